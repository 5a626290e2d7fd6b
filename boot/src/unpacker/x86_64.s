# From long mode to what PVH promises: 32-bit protected mode, flat segments, paging off, interrupts off,
# ebx = hvm_start_info. rdi = the entry, rsi = hvm_start_info, both below 4 GiB.

.text
.code64
.globl {enter}
{enter}:
    lgdt [flat_gdt_pointer]
    push 0x08
    lea rax, [rip + flat]
    push rax
    retfq

.code32
flat:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, 1                  # PE and nothing else
    mov cr0, eax
    mov ecx, 0xc0000080         # EFER
    rdmsr
    and eax, 0xfffff6ff         # neither LME nor NXE
    wrmsr
    xor eax, eax
    mov cr4, eax
    mov ebx, esi
    jmp edi

.section .rodata.flat_gdt, "a"
    .align 8
flat_gdt:
    .quad 0
    .quad 0x00cf9a000000ffff    # 32-bit code
    .quad 0x00cf92000000ffff    # data
flat_gdt_pointer:
    .word 23
    .quad flat_gdt
.text
.code64
