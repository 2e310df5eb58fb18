/* What the table doesn't take goes straight on: one jump through struct real, all registers as they came. */
#include RUNAI_LIBRARY_H

    .text
    .set offset, 0

#if defined(__x86_64__)
#define JUMP endbr64; jmp *libvgpu_real+offset(%rip)
#elif defined(__aarch64__)
#define JUMP hint 34; adrp x16, libvgpu_real+offset; ldr x16, [x16, :lo12:libvgpu_real+offset]; br x16
#else
#error "no trampoline for this processor"
#endif

#define TRAMPOLINE(name) .globl name; .type name, %function; .p2align 4; name: JUMP; .size name, . - name

#define DO_TAKE(name)
#define DO_PASS(name) TRAMPOLINE(name);
#define DO_ASIDE(name) TRAMPOLINE(name);
#define FUNCTION(policy, name) DO_##policy(name) .set offset, offset + 8
#include FUNCTIONS_H

    .hidden libvgpu_real
    .section .note.GNU-stack, "", %progbits
