// A softmax over tiles of scores, in the registers of a product's result (arXiv 2307.08691, section 3.1).

DEVICE float nothing() { return as_float(0xff800000u); } // −∞

// The softmax of 16 rows as far as it has come; a lane holds rows lane / 4 and lane / 4 + 8.
struct Softmax {
    float largest[2]; // a score that weights are relative to: the largest, or one less than 2^8 times smaller
    float sum[2];     // of this lane's columns only
};

// Scores to weights. What was summed so far shrinks where a score has grown much: weights of up to 2^8 do no harm.
template <u32 N, u32 COLUMNS> DEVICE void soften(Softmax& m, float (&s)[N][4], float (&o)[COLUMNS][4], float scale)
{
    float high[2];
    bool grows = false;
    UNROLL for (u32 half = 0; half < 2; half++) {
        high[half] = m.largest[half];
        UNROLL for (u32 n = 0; n < N; n++) high[half] = fmaxf(high[half], fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        high[half] = fmaxf(high[half], shuffle_xor(high[half], 1));
        high[half] = fmaxf(high[half], shuffle_xor(high[half], 2));
        grows = grows || (high[half] - m.largest[half]) * scale > 8.f; // −∞ from −∞ is no number, and does not grow
    }
    if (warp_any(grows)) UNROLL for (u32 half = 0; half < 2; half++) {
        float keep = high[half] == m.largest[half] ? 1.f : exp2_fast((m.largest[half] - high[half]) * scale);
        m.largest[half] = high[half];
        m.sum[half] *= keep;
        UNROLL for (u32 n = 0; n < COLUMNS; n++) o[n][2 * half] *= keep, o[n][2 * half + 1] *= keep;
    }
    UNROLL for (u32 half = 0; half < 2; half++) {
        // a row that has seen no key yet: all its weights are 2^−∞
        float base = m.largest[half] == nothing() ? 0.f : m.largest[half] * scale;
        UNROLL for (u32 n = 0; n < N; n++) UNROLL for (u32 i = 2 * half; i < 2 * half + 2; i++) {
            s[n][i] = exp2_fast(s[n][i] * scale - base);
            m.sum[half] += s[n][i];
        }
    }
}
