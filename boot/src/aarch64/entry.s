// The arm64 image header and entry (Linux's "Booting arm64"): MMU and data cache off, interrupts
// masked, x0 = physical address of the device tree, EL2 or EL1.
//
// The way to Rust: down to EL1, a first, crude map of the 2 MiB the image lies in (replaced in Rust
// by one that keeps W^X, see gnomon_arch::mmu), and then image.s: relocation, zeroed memory, a stack. With the
// MMU off nothing is written but the three tables of that map, {shift} pages from where they were linked.

.section .text.image, "ax"
.globl {entry}
{entry}:
    b 1f
    .long 0
    .quad 0                     // text_offset
    .quad image_size
    .quad 0xa                   // little endian, 4 KiB pages, anywhere in memory
    .quad 0
    .quad 0
    .quad 0
    .ascii "ARM\x64"
    .long 0

1:  mov x19, x0
    mrs x1, CurrentEL
    cmp x1, #8                  // EL2
    b.ne 3f

    // EL2: nothing is trapped, the virtual counter is the physical one, EL1 is AArch64.
    mov x1, #0x80000000         // HCR_EL2.RW
    msr hcr_el2, x1
    isb
    mov x1, #3                  // EL1 may use the physical timer and counter
    msr cnthctl_el2, x1
    msr cntvoff_el2, xzr
    mov x1, #0x33ff             // no traps of floating point
    msr cptr_el2, x1
    msr hstr_el2, xzr
    mrs x1, mdcr_el2
    and x1, x1, #0x1f           // keep the number of event counters, trap nothing
    msr mdcr_el2, x1
    mrs x1, midr_el1
    msr vpidr_el2, x1
    mrs x1, mpidr_el1
    msr vmpidr_el2, x1
    mrs x1, id_aa64mmfr0_el1    // fine-grained traps (FEAT_FGT): none
    ubfx x1, x1, #56, #4
    cbz x1, 2f
    msr s3_4_c1_c1_4, xzr       // HFGRTR_EL2
    msr s3_4_c1_c1_5, xzr       // HFGWTR_EL2
    msr s3_4_c1_c1_6, xzr       // HFGITR_EL2
    msr s3_4_c3_c1_4, xzr       // HDFGRTR_EL2
    msr s3_4_c3_c1_5, xzr       // HDFGWTR_EL2
2:  mrs x1, id_aa64pfr0_el1     // GIC system registers: EL1 may use them
    ubfx x1, x1, #24, #4
    cbz x1, 2f
    mrs x1, icc_sre_el2
    mov x2, #9                  // SRE, Enable
    orr x1, x1, x2
    msr icc_sre_el2, x1
    isb
    mrs x1, icc_sre_el2
    tbz x1, #0, 2f
    msr ich_hcr_el2, xzr
2:  ldr w1, =0x30d00800
    msr sctlr_el1, x1
    mov x1, #0x3c5              // EL1 with its own stack pointer, everything masked
    msr spsr_el2, x1
    adr x1, 3f
    msr elr_el2, x1
    eret

    // EL1.
3:  msr daifset, #15
    ldr w1, =0x30d00800         // only what must be set: MMU, caches and alignment checks off
    msr sctlr_el1, x1
    mov x1, #0x300000           // floating point and vectors, which the compiler uses
    msr cpacr_el1, x1
    isb

    // boot_l0 -> boot_l1 -> boot_l2: one block of 2 MiB, and nothing else.
    adrp x2, boot_l0
    add x2, x2, #{shift}, lsl #12
    add x3, x2, #0x3000
    mov x4, x2
4:  stp xzr, xzr, [x4], #16
    cmp x4, x3
    b.lo 4b
    adrp x5, image_start
    add x6, x2, #0x1000
    orr x7, x6, #3
    ubfx x8, x5, #39, #9
    str x7, [x2, x8, lsl #3]
    add x9, x2, #0x2000
    orr x7, x9, #3
    ubfx x8, x5, #30, #9
    str x7, [x6, x8, lsl #3]
    and x7, x5, #0xffffffffffe00000
    mov x8, #0xf05              // block, normal memory, inner shareable, accessed, not global
    orr x7, x7, x8
    ubfx x8, x5, #21, #9
    str x7, [x9, x8, lsl #3]
    // What caches hold of the tables is older than what was just written past them.
    dmb sy
    mrs x4, ctr_el0
    ubfx x4, x4, #16, #4
    mov x5, #4
    lsl x5, x5, x4
    mov x4, x2
5:  dc ivac, x4
    add x4, x4, x5
    cmp x4, x3
    b.lo 5b
    dsb sy

    ldr x1, ={mair}
    msr mair_el1, x1
    mrs x1, id_aa64mmfr0_el1    // as many physical address bits as there are, up to 48
    and x1, x1, #0xf
    mov x4, #5
    cmp x1, x4
    csel x1, x1, x4, lo
    ldr x4, =0x00903510         // 48 bits, 4 KiB, write-back, inner shareable, no upper half
    orr x1, x4, x1, lsl #32
    msr tcr_el1, x1
    msr ttbr0_el1, x2
    isb
    tlbi vmalle1
    ic iallu
    dsb sy
    isb
    mrs x1, sctlr_el1
    mov x4, #0x1005             // MMU and both caches on
    orr x1, x1, x4
    msr sctlr_el1, x1
    isb

.section .boot_tables, "aw", %nobits
    .balign 4096
boot_l0: .skip 4096
boot_l1: .skip 4096
boot_l2: .skip 4096
.section .text.image, "ax"
