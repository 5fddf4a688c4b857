// The words of `pairs.cuh` for the emulator.

DEVICE u32 fma_pairs(u32 a, u32 b, u32 c)
{
    float low = std::fma(bf16_of(a, 0), bf16_of(b, 0), bf16_of(c, 0)), high = std::fma(bf16_of(a, 1), bf16_of(b, 1), bf16_of(c, 1));
    return bf16_pair(low, high);
}
DEVICE u32 swap_bytes(u32 x) { return (x & 0x00ff00ffu) << 8 | (x >> 8 & 0x00ff00ffu); }
