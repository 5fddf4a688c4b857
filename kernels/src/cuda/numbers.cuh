// Eight neighbouring numbers of a row, bf16 or f32 in memory (WIDE), f32 in registers.
#ifdef WIDE
#if WIDE
typedef float Number;
#else
typedef u16 Number;
#endif

struct Eight {
    float x[8];
};
DEVICE Eight eight_of(uint4 words)
{
    Eight e = {{bf16_low(words.x), bf16_high(words.x), bf16_low(words.y), bf16_high(words.y), bf16_low(words.z), bf16_high(words.z),
                bf16_low(words.w), bf16_high(words.w)}};
    return e;
}
DEVICE Eight eight_of(float4 low, float4 high)
{
    Eight e = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
    return e;
}
DEVICE Eight load_eight_f32(const float* p) { return eight_of(load_constant((const float4*)p), load_constant((const float4*)p + 1)); }
DEVICE Eight load_eight(const Number* p)
{
#if WIDE
    return load_eight_f32(p);
#else
    return eight_of(load_constant((const uint4*)p));
#endif
}
// What this launch changes, past the read-only path.
DEVICE Eight load_eight_changing(const Number* p)
{
#if WIDE
    return eight_of(*(const float4*)p, *((const float4*)p + 1));
#else
    return eight_of(*(const uint4*)p);
#endif
}
DEVICE Eight filled(float x)
{
    Eight e = {{x, x, x, x, x, x, x, x}};
    return e;
}
DEVICE void store_eight_f32(float* p, const Eight& e)
{
    *(float4*)p = make_float4(e.x[0], e.x[1], e.x[2], e.x[3]);
    *((float4*)p + 1) = make_float4(e.x[4], e.x[5], e.x[6], e.x[7]);
}
DEVICE void store_eight(Number* p, const Eight& e)
{
#if WIDE
    store_eight_f32(p, e);
#else
    *(uint4*)p = make_uint4(bf16_pair(e.x[0], e.x[1]), bf16_pair(e.x[2], e.x[3]), bf16_pair(e.x[4], e.x[5]), bf16_pair(e.x[6], e.x[7]));
#endif
}
// Four of them, where eight would take too many registers.
struct Four {
    float x[4];
};
DEVICE Four four_zeros()
{
    Four f = {{0.f, 0.f, 0.f, 0.f}};
    return f;
}
DEVICE Four load_four_f32(const float* p)
{
    float4 words = load_constant((const float4*)p);
    Four f = {{words.x, words.y, words.z, words.w}};
    return f;
}
DEVICE Four load_four(const Number* p)
{
#if WIDE
    return load_four_f32(p);
#else
    uint2 words = load_constant((const uint2*)p);
    Four f = {{bf16_low(words.x), bf16_high(words.x), bf16_low(words.y), bf16_high(words.y)}};
    return f;
#endif
}
DEVICE void store_four_f32(float* p, const Four& f) { *(float4*)p = make_float4(f.x[0], f.x[1], f.x[2], f.x[3]); }
DEVICE void store_four(Number* p, const Four& f)
{
#if WIDE
    store_four_f32(p, f);
#else
    *(uint2*)p = make_uint2(bf16_pair(f.x[0], f.x[1]), bf16_pair(f.x[2], f.x[3]));
#endif
}
// The derivative of SiLU.
DEVICE float silu_slope(float x)
{
    float s = sigmoid(x);
    return s * (1.f + x * (1.f - s));
}
#endif // WIDE
