// What surrounds the recurrence of Mamba2, on rows [B, T, H, P] of values x:
//     v = a x  (a for each head and position),  y = o + D x  (D for each head)
// and their gradients from those of v and y: dx = a dv + D dy, da = dv · x, dD = Σ dy · x.
//
// A thread owns eight columns of one head and walks over LENGTH positions; P / 8 threads share a row. Rows of x lie `x_row`
// apart for each position, all others without gaps.

struct ScaleArguments {
    const Number* x;
    const float* factors;     // a, [positions, H]
    Number* v;
    u64 x_row;
    u32 positions, heads;
};
struct SkipArguments {
    const Number* x;
    const float* skip;        // D, [H]
    Number* y;                // o, then y
    u64 x_row;
    u32 positions, heads;
};
struct ValuesBackwardArguments {
    const Number* x;
    const float *factors, *skip; // null: 1, 0
    const Number *d_v, *d_y;
    Number* d_x;
    float* d_factors;         // [positions, H], or null
    float* d_skip;            // [walks, H]: a part for each walk, or null
    u64 x_row, d_row;         // of x, of d_y
    u32 positions, heads;
};

const u32 VALUES_THREADS = 256, VALUES_GROUP = P / 8;

// The head, the first column and the positions of a thread.
struct Place {
    u32 head, column, first, end;
    bool here;
};
DEVICE Place place_of(u32 positions, u32 heads)
{
    Place p;
    p.head = block_index() * (VALUES_THREADS / VALUES_GROUP) + thread_index() / VALUES_GROUP;
    p.column = p.head * P + thread_index() % VALUES_GROUP * 8;
    p.here = p.head < heads;
    p.first = block_index_y() * LENGTH;
    p.end = p.first + LENGTH < positions ? p.first + LENGTH : positions;
    return p;
}

KERNEL(values_scale, ScaleArguments, VALUES_THREADS)
{
    Place p = place_of(args.positions, args.heads);
    if (!p.here) return;
    UNROLL_BY_FOUR for (u32 t = p.first; t < p.end; t++) {
        Eight x = load_eight(args.x + t * args.x_row + p.column);
        float factor = load_constant(args.factors + (u64)t * args.heads + p.head);
        UNROLL for (u32 i = 0; i < 8; i++) x.x[i] *= factor;
        store_eight(args.v + (u64)t * args.heads * P + p.column, x);
    }
}

KERNEL(values_skip, SkipArguments, VALUES_THREADS)
{
    Place p = place_of(args.positions, args.heads);
    if (!p.here) return;
    float skip = load_constant(args.skip + p.head);
    UNROLL_BY_FOUR for (u32 t = p.first; t < p.end; t++) {
        Number* y = args.y + (u64)t * args.heads * P + p.column;
        Eight x = load_eight(args.x + t * args.x_row + p.column), o = load_eight(y);
        UNROLL for (u32 i = 0; i < 8; i++) o.x[i] += skip * x.x[i];
        store_eight(y, o);
    }
}

KERNEL(values_backward, ValuesBackwardArguments, VALUES_THREADS)
{
    Place p = place_of(args.positions, args.heads);
    float skip = p.here && args.skip != nullptr ? load_constant(args.skip + p.head) : 0.f, d_skip = 0.f;
    UNROLL_BY_FOUR for (u32 t = p.first; t < p.end; t++) {
        Eight x = filled(0.f), d_v = filled(0.f), d_y = filled(0.f), d_x;
        float factor = 1.f, dot = 0.f;
        if (p.here) {
            x = load_eight(args.x + t * args.x_row + p.column);
            d_v = load_eight(args.d_v + (u64)t * args.heads * P + p.column);
            d_y = load_eight(args.d_y + t * args.d_row + p.column);
            if (args.factors != nullptr) factor = load_constant(args.factors + (u64)t * args.heads + p.head);
        }
        UNROLL for (u32 i = 0; i < 8; i++) {
            d_x.x[i] = factor * d_v.x[i] + skip * d_y.x[i];
            dot += d_v.x[i] * x.x[i];
            d_skip += d_y.x[i] * x.x[i];
        }
        UNROLL for (u32 mask = 1; mask < VALUES_GROUP; mask *= 2) dot += shuffle_xor(dot, mask);
        if (!p.here) continue;
        store_eight(args.d_x + (u64)t * args.heads * P + p.column, d_x);
        if (args.d_factors != nullptr && thread_index() % VALUES_GROUP == 0) args.d_factors[(u64)t * args.heads + p.head] = dot;
    }
    UNROLL for (u32 mask = 1; mask < VALUES_GROUP; mask *= 2) d_skip += shuffle_xor(d_skip, mask);
    if (p.here && args.d_skip != nullptr && thread_index() % VALUES_GROUP == 0)
        args.d_skip[(u64)block_index_y() * args.heads + p.head] = d_skip;
}
