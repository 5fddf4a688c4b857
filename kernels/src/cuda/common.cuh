// Small functions over the vocabulary, the same on the GPU and in the emulator.
#pragma once

DEVICE float bf16_low(u32 pair) { return as_float(pair << 16); }
DEVICE float bf16_high(u32 pair) { return as_float(pair & 0xffff0000u); }
DEVICE float bf16_rounded(float x) { return bf16_low(bf16_pair(x, 0.f)); }

// A tagged float: the sign, exponent and 15 bits of the fraction of a number (a relative error
// of 2^-17, that of a sum of two bf16), and 8 bits that say in which step it was written. Who
// waits for it looks at the word itself: no flag, no fence, no barrier over the grid.
DEVICE u32 tagged(float x, u32 tag) { return ((as_bits(x) + 0x80u) & 0xffffff00u) | tag; }
DEVICE float untagged(u32 word) { return as_float(word & 0xffffff00u); }
DEVICE float rounded_to_tagged(float x) { return as_float((as_bits(x) + 0x80u) & 0xffffff00u); }
DEVICE bool is_of(u32 word, u32 tag) { return (word & 0xffu) == tag; }
DEVICE bool is_of(uint2 words, u32 tag) { return (((words.x ^ tag) | (words.y ^ tag)) & 0xffu) == 0; }
DEVICE bool is_of(uint4 words, u32 tag)
{
    return (((words.x ^ tag) | (words.y ^ tag) | (words.z ^ tag) | (words.w ^ tag)) & 0xffu) == 0;
}

const float LOG2_E = 1.4426950408889634f;
DEVICE float exp_fast(float x) { return exp2_fast(x * LOG2_E); }
DEVICE float sigmoid(float x) { return reciprocal_fast(1.f + exp_fast(-x)); }
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
