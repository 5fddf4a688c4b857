// The log-linear forms of the chunked rules (arXiv 2506.04761): what a position reads of the pieces of its past, each weighed by
// a scale λ of its own. Levels up to 6 lie inside a chunk:
//     log_linear_inside: O = (Λ ⊙ (scores · inverse)) V,  Λ_ij = λ_i[level of j seen from i]  (DELTA 0: of scores alone).
// Level 7 + b is of pairs of spans of 2^b chunks, the second reading what the first wrote: `chunked_forward` with LEVELS, all
// pairs of a level at once. What is left for the steps to come, of the levels inside the last chunk, is log_linear_last's.

#ifdef LOG_LINEAR
DEVICE u32 bit_length(u32 x)
{
    u32 n = 0;
    UNROLL for (u32 i = 0; i < 6; i++) n += x >> i != 0 ? 1 : 0; // below C
    return n;
}
DEVICE u32 level_of(u32 i, u32 j, u32 levels) { return smaller(bit_length(i ^ j), levels - 1); }

// λ = softplus(L ⊙ raw)
struct ScalesArguments {
    const u16* raw;           // [rows, heads · levels], rows `raw_row` apart
    const float* scales;      // L [heads · levels]
    float* lambda;            // [rows, heads · levels]
    u64 raw_row;
    u32 rows, columns;
};
const u32 SCALES_THREADS = 256;
KERNEL(log_linear_scales, ScalesArguments, SCALES_THREADS)
{
    u64 item = (u64)block_index() * SCALES_THREADS + thread_index();
    u32 row = (u32)(item / args.columns), column = (u32)(item % args.columns);
    if (row < args.rows) args.lambda[item] = softplus(bf16_low(load_constant(args.raw + row * args.raw_row + column)) * load_constant(args.scales + column));
}

// f32 to what the layer goes on with.
struct FinishArguments {
    const float* sums;
    u16* out;
    u64 pieces;               // of eight numbers
};
KERNEL(log_linear_finish, FinishArguments, SCALES_THREADS)
{
    u64 item = (u64)block_index() * SCALES_THREADS + thread_index();
    if (item < args.pieces) store_eight(args.out + item * 8, load_eight_f32(args.sums + item * 8));
}

struct InsideArguments {
    const u16 *v, *inverse, *scores; // [B, T, heads, V], rows `v_row` apart; [B, heads, chunks, C, C] twice
    const float* lambda;      // [B, T, heads, levels]
    float* sums;              // [B, T, heads, V]
    u64 v_row;
    u32 tokens, heads, value_width, levels;
};

const u32 INSIDE_THREADS = 128, MOST_LEVELS = 33;

struct InsideShared {
    static const u32 scores = 0, inverse = tile_bytes(C, C), v = inverse + tile_bytes(C, C), lambda = v + tile_bytes(C, SLICE),
                     end = lambda + C * MOST_LEVELS * 4;
};

KERNEL(log_linear_inside, InsideArguments, INSIDE_THREADS)
{
    u8* shared = shared_memory();
    u8 *scores = shared + InsideShared::scores, *inverse = shared + InsideShared::inverse, *v_tile = shared + InsideShared::v;
    float* lambdas = (float*)(shared + InsideShared::lambda);
    u32 thread = thread_index(), warp = thread / 32, lane = thread % 32, group = lane / 4, pair = lane % 4, levels = args.levels;
    u32 chunk = block_index(), batch = block_index_y() / args.heads, head = block_index_y() % args.heads;
    u32 there = smaller(C, args.tokens - chunk * C);
    u64 row = (u64)batch * args.tokens + chunk * C, place = (u64)block_index_y() * block_count() + chunk;
    copy_tile<C, C, INSIDE_THREADS, true>(scores, args.scores + place * C * C, C, C, thread);
    if (DELTA) copy_tile<C, C, INSIDE_THREADS, true>(inverse, args.inverse + place * C * C, C, C, thread);
    copies_commit();
    for (u32 at = thread; at < C * levels; at += INSIDE_THREADS)
        lambdas[at] = at / levels < there ? args.lambda[((row + at / levels) * args.heads + head) * levels + at % levels] : 0.f;
    copies_wait<0>();
    block_sync();
    float m[C / 8][4]; // this warp's 16 rows
    set_zero(m);
    if (DELTA) {
        UNROLL for (u32 step = 0; step < C / 16; step++) {
            if (step > warp) break;
            u32 a[4], b[4];
            load_a<C>(a, scores, warp * 16, step * 16, lane);
            UNROLL for (u32 n = 0; n < C / 16; n++) {
                if (n > step) break;
                load_b_transposed<C>(b, inverse, step * 16, n * 16, lane);
                product(m[2 * n], m[2 * n + 1], a, b);
            }
        }
    } else {
        UNROLL for (u32 n = 0; n < C / 8; n++) UNROLL for (u32 half = 0; half < 2; half++) {
            if (n / 2 > warp) continue;
            float2 two = load_pair<C>(scores, warp * 16 + half * 8 + group, n * 8 + 2 * pair);
            m[n][2 * half] = two.x, m[n][2 * half + 1] = two.y;
        }
    }
    u32 weights[C / 16][4];
    UNROLL for (u32 n = 0; n < C / 8; n++) UNROLL for (u32 i = 0; i < 4; i++) {
        u32 from = warp * 16 + i / 2 * 8 + group, to = n * 8 + 2 * pair + i % 2;
        m[n][i] = to <= from ? m[n][i] * lambdas[from * levels + level_of(from, to, levels)] : 0.f;
    }
    UNROLL for (u32 step = 0; step < C / 16; step++) as_operand(weights[step], m[2 * step], m[2 * step + 1]);
    for (u32 first = 0; first < args.value_width; first += SLICE) {
        block_sync(); // nobody reads the slice before
        copy_tile<C, SLICE, INSIDE_THREADS>(v_tile, args.v + row * args.v_row + head * args.value_width + first, args.v_row, there, thread);
        copies_commit();
        copies_wait<0>();
        block_sync();
        float o[SLICE / 8][4];
        set_zero(o);
        UNROLL for (u32 step = 0; step < C / 16; step++) {
            if (step > warp) break;
            UNROLL for (u32 n = 0; n < SLICE / 16; n++) {
                u32 b[4];
                load_b_transposed<SLICE>(b, v_tile, step * 16, n * 16, lane);
                product(o[2 * n], o[2 * n + 1], weights[step], b);
            }
        }
        UNROLL for (u32 n = 0; n < SLICE / 8; n++) UNROLL for (u32 half = 0; half < 2; half++) {
            u32 t = warp * 16 + half * 8 + group;
            if (t < there)
                *(float2*)(args.sums + ((row + t) * args.heads + head) * args.value_width + first + n * 8 + 2 * pair) =
                    make_float2(o[n][2 * half], o[n][2 * half + 1]);
        }
    }
}

// The states of the levels inside the last chunk: S_l = Σ_r e^{ℓ_C − ℓ_r} k_r Δ_lᵀ, Δ_l = inverse · (V where the level is l).
struct LastArguments {
    const u16 *k, *v, *inverse;
    const float* decays;      // [B, heads, chunks, 3, C]
    float* states;            // [levels, B, heads, KW, V]
    u64 k_row, v_row, level_size;
    u32 tokens, heads, key_heads, value_width, levels, adds; // to the last level, as far as there are states of earlier chunks in it
};

const u32 LAST_THREADS = 128, LAST_COLUMNS = 16;

KERNEL(log_linear_last, LastArguments, LAST_THREADS)
{
    float* delta = (float*)shared_memory(); // [C, LAST_COLUMNS]
    u32 thread = thread_index(), chunk = (args.tokens - 1) / C, chunks = chunk + 1, newest = (args.tokens - 1) % C, first = block_index() * LAST_COLUMNS;
    Sequence s = sequence_of(block_index_y(), args.heads, args.key_heads);
    u64 row = (u64)s.batch * args.tokens + chunk * C, place = (u64)block_index_y() * chunks + chunk;
    const u16* v = args.v + row * args.v_row + s.head * args.value_width + first;
    const u16* k = args.k + row * args.k_row + s.key_head * KW;
    const float* decays = args.decays + place * 3 * C + C;
    for (u32 level = 0; level < smaller(args.levels, 7); level++) {
        if (!level_in_use(level, newest, args.levels)) continue;
        block_sync(); // nobody reads the level before
        for (u32 at = thread; at < C * LAST_COLUMNS; at += LAST_THREADS) {
            u32 r = at / LAST_COLUMNS, column = at % LAST_COLUMNS;
            float sum = 0.f;
            if (r <= newest) {
                for (u32 j = DELTA ? 0 : r; j <= r; j++) {
                    if (level_of(newest, j, args.levels) != level) continue;
                    float by = DELTA ? bf16_low(load_constant(args.inverse + place * C * C + r * C + j)) : 1.f;
                    sum += by * bf16_low(load_constant(v + j * args.v_row + column));
                }
                sum *= load_constant(decays + r);
            }
            delta[at] = sum;
        }
        block_sync();
        float* to = args.states + level * args.level_size + (u64)block_index_y() * KW * args.value_width + first;
        for (u32 at = thread; at < KW * LAST_COLUMNS; at += LAST_THREADS) {
            u32 i = at / LAST_COLUMNS, column = at % LAST_COLUMNS;
            float sum = 0.f;
            for (u32 r = 0; r <= newest; r++) sum += bf16_low(load_constant(k + r * args.k_row + i)) * delta[r * LAST_COLUMNS + column];
            float* state = to + (u64)i * args.value_width + column;
            *state = args.adds && level + 1 == args.levels ? *state + sum : sum;
        }
    }
}
#endif // LOG_LINEAR
