// From the entry's map to Rust.

    // Relocations (RELR): an even word is an address, an odd one a bitmap of the 63 words after it.
    adrp x0, relr_start
    add x0, x0, :lo12:relr_start
    adrp x1, relr_end
    add x1, x1, :lo12:relr_end
    adrp x2, image_start
6:  cmp x0, x1
    b.hs 10f
    ldr x3, [x0], #8
    tbnz x3, #0, 7f
    add x4, x2, x3
    ldr x5, [x4]
    add x5, x5, x2
    str x5, [x4], #8
    b 6b
7:  mov x6, x4
8:  lsr x3, x3, #1
    cbz x3, 9f
    tbz x3, #0, 11f
    ldr x5, [x6]
    add x5, x5, x2
    str x5, [x6]
11: add x6, x6, #8
    b 8b
9:  add x4, x4, #504
    b 6b

    // A restarted machine has not zeroed it.
10: adrp x0, bss_start
    adrp x1, bss_end
12: stp xzr, xzr, [x0], #16
    cmp x0, x1
    b.lo 12b

    // Run on SP_EL0: exceptions switch to SP_EL1, which gets a stack of its own.
    msr spsel, #0
    adrp x0, stack_top
    mov sp, x0
    mov x29, xzr
    mov x30, xzr
    mov x0, x19
    bl {start}
    brk #0                      // start never returns

.text
