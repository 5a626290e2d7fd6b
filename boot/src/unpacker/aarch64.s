// Between the entry's map and Rust: move out of the way of what is unpacked. The file, of at most 256 KiB, is
// followed by memory that belongs to the image.
    adrp x0, image_start
    add x1, x0, #{shift}, lsl #12
    add x2, x0, #64, lsl #12
1:  ldp x3, x4, [x0], #16
    ldp x5, x6, [x0], #16
    ldp x7, x8, [x0], #16
    ldp x9, x10, [x0], #16
    stp x3, x4, [x1], #16
    stp x5, x6, [x1], #16
    stp x7, x8, [x1], #16
    stp x9, x10, [x1], #16
    cmp x0, x2
    b.lo 1b
    // What was code is data to a cache; and there will be none when it ends.
    adrp x0, image_start
    add x0, x0, #{shift}, lsl #12
    adrp x1, packed_start
    add x1, x1, :lo12:packed_start
    add x1, x1, #{shift}, lsl #12
    bl clean
    adr x0, 1f
    add x0, x0, #{shift}, lsl #12
    br x0

// An exception, which can only be that of a failure's call where nobody listens: stand still.
    .balign 2048
stop:
    wfi
    b stop

// Cleans memory from x0 to x1 to where a processor without caches sees it, and forgets the instructions of before.
clean:
    mrs x3, ctr_el0
    ubfx x3, x3, #16, #4
    mov x4, #4
    lsl x4, x4, x3
    sub x3, x4, #1
    bic x0, x0, x3
2:  dc cvac, x0
    add x0, x0, x4
    cmp x0, x1
    b.lo 2b
    dsb sy
    ic iallu
    dsb sy
    isb
    ret

// x0, x1 = start and end of the image, x2 = its entry, x3 = the device tree.
.globl {enter}
{enter}:
    mov x19, x2
    mov x20, x3
    bl clean
    mrs x3, sctlr_el1
    mov x4, #0x1005             // MMU and both caches
    bic x3, x3, x4
    msr sctlr_el1, x3
    isb
    mov x0, x20
    mov x1, xzr
    mov x2, xzr
    mov x3, xzr
    br x19

1:  adr x0, stop
    msr vbar_el1, x0
    isb

