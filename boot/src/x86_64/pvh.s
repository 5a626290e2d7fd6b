# PVH entry: 32-bit protected mode, flat segments, paging off, interrupts off, ebx = hvm_start_info.
# (Xen's x86 HVM direct boot ABI; the note below is how a loader finds the entry.)
#
# The way to long mode: a first, crude identity map of 1 GiB (replaced in Rust by one that keeps
# W^X, see gnomon_arch::mmu), PAE, LME and NXE, paging, a far jump into a 64-bit segment.

.section .note.pvh, "a", @note
    .align 4
    .long 4                     # name size
    .long 4                     # descriptor size
    .long 18                    # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long {entry}

.section .text.pvh, "ax"
.code32
.globl {entry}
{entry}:
    cld
    mov esp, offset stack_top

    # boot_pml4[0] -> boot_pdpt[0] -> boot_pd: 512 pages of 2 MiB, present | writable | large.
    mov eax, offset boot_pdpt
    or eax, 3
    mov [boot_pml4], eax
    mov eax, offset boot_pd
    or eax, 3
    mov [boot_pdpt], eax
    xor ecx, ecx
1:  mov eax, ecx
    shl eax, 21
    or eax, 0x83
    mov [boot_pd + ecx * 8], eax
    inc ecx
    cmp ecx, 512
    jb 1b

    mov eax, offset boot_pml4
    mov cr3, eax
    mov eax, cr4
    or eax, 0x20                # PAE
    mov cr4, eax
    mov ecx, 0xc0000080         # EFER
    rdmsr
    or eax, 0x900               # LME | NXE
    wrmsr
    mov eax, cr0
    or eax, 0x80010000          # PG | WP: read-only holds for us as well
    mov cr0, eax

    lgdt [boot_gdt_pointer]
    push 0x08
    mov eax, offset long_mode
    push eax
    retf

.code64
long_mode:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    mov rsp, offset stack_top
    mov edi, ebx                # zero-extends: the physical address of hvm_start_info
    xor ebp, ebp
    call {start}
    ud2                         # start never returns

.section .rodata.boot_gdt, "a"
    .align 8
boot_gdt:
    .quad 0
    .quad 0x00af9a000000ffff    # 64-bit code
    .quad 0x00cf92000000ffff    # data
boot_gdt_pointer:
    .word 23
    .long boot_gdt

.section .bss.boot_tables, "aw", @nobits
    .align 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4096
.text
