// The vector table (Arm ARM, D1.3): sixteen entries, 128 bytes apart. Each leaves its number and
// joins one common path, which saves the registers in the order of `Frame` and never returns unless
// `dispatch` says that it has dealt with the exception.

.section .text.trap, "ax"
.balign 2048
.globl {vectors}
{vectors}:
.set vector, 0
.rept 16
    .balign 128
    sub sp, sp, #288
    stp x0, x1, [sp]
    mov x0, #vector
    b 2f
    .set vector, vector + 1
.endr

2:  stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    stp x18, x19, [sp, #144]
    stp x20, x21, [sp, #160]
    stp x22, x23, [sp, #176]
    stp x24, x25, [sp, #192]
    stp x26, x27, [sp, #208]
    stp x28, x29, [sp, #224]
    mrs x1, elr_el1
    stp x30, x1, [sp, #240]
    mrs x1, spsr_el1
    mrs x2, sp_el0
    stp x1, x2, [sp, #256]
    str x0, [sp, #272]
    mov x0, sp
    bl {dispatch}
    // Only what was expected to fail gets here: its one result is in x0.
    ldr x30, [sp, #248]
    msr elr_el1, x30
    ldr x30, [sp, #256]
    msr spsr_el1, x30
    ldp x0, x1, [sp]
    ldp x2, x3, [sp, #16]
    ldp x4, x5, [sp, #32]
    ldp x6, x7, [sp, #48]
    ldp x8, x9, [sp, #64]
    ldp x10, x11, [sp, #80]
    ldp x12, x13, [sp, #96]
    ldp x14, x15, [sp, #112]
    ldp x16, x17, [sp, #128]
    ldr x18, [sp, #144]
    ldr x30, [sp, #240]
    add sp, sp, #288
    eret
.text
