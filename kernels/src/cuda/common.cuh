// Small functions over the vocabulary, the same on the GPU and in the emulator.
#pragma once

DEVICE float bf16_low(u32 pair) { return as_float(pair << 16); }
DEVICE float bf16_high(u32 pair) { return as_float(pair & 0xffff0000u); }
DEVICE float bf16_rounded(float x) { return bf16_low(bf16_pair(x, 0.f)); }

const float LOG2_E = 1.4426950408889634f;
DEVICE float exp_fast(float x) { return exp2_fast(x * LOG2_E); }
DEVICE float sigmoid(float x) { return 1.f / (1.f + exp_fast(-x)); }
DEVICE float silu(float x) { return x * sigmoid(x); }
DEVICE float softplus(float x) { return x > 20.f ? x : log1pf(expf(x)); }

DEVICE float warp_sum(float x)
{
    UNROLL for (u32 mask = 16; mask > 0; mask >>= 1) x += shuffle_xor(x, mask);
    return x;
}
DEVICE float warp_max(float x)
{
    UNROLL for (u32 mask = 16; mask > 0; mask >>= 1) x = fmaxf(x, shuffle_xor(x, mask));
    return x;
}
