# One stub a vector, 16 bytes apart: make every frame look alike, then one common path.
# The CPU pushes an error code for vectors 8, 10-14, 17, 21, 29 and 30; the others get a zero.

.section .text.trap, "ax"
.balign 16
.globl {stubs}
{stubs}:
.set vector, 0
.rept {count}
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    push 0
    .endif
    push vector
    jmp 2f
    .set vector, vector + 1
.endr

2:  push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    mov rbx, rsp
    and rsp, -16
    call {dispatch}
    mov rsp, rbx
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16                 # vector and error code
    iretq
.text
