// Words for pairs of bf16 in a register, which the one-token kernel alone is written in (`pairs.hpp` has them for the emulator).

// a · b + c of both halves, rounded once.
DEVICE u32 fma_pairs(u32 a, u32 b, u32 c)
{
    u32 d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}
// The two bytes of each half change places.
DEVICE u32 swap_bytes(u32 x) { return __byte_perm(x, 0, 0x2301); }
