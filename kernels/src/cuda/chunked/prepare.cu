// What a chunk needs that does not depend on the state before it, all chunks at once.
//
// With ℓ the running sum of g inside the chunk and Γ_ij = e^{ℓ_i − ℓ_j} for i ≥ j:
//     A = strictLower(diag(β) (Γ ⊙ K Kᵀ)),  inverse = (I + A)⁻¹ diag(β),  scores = scale · (Γ ⊙ Q Kᵀ),
// both [C, C] and lower triangular (16×16 pieces above the diagonal are not written), and the decays e^ℓ and e^{ℓ_C − ℓ}.
// The products run on tensor cores; the inverse is solved in fp32, a column a thread. One block serves a chunk of one key
// head and all value heads that share it, two at a time.
//
// DELTA 0 leaves out A and its inverse: linear attention.

#ifdef PREPARE
struct PrepareArguments {
    const Number *q, *k;      // [B, T, key heads, KW], rows `q_row`, `k_row` apart
    const float *g, *beta;    // [B, T, heads]; g may be null: no decay
    Number *inverse, *scores; // [B, heads, chunks, C, C]
    float* decays;            // [B, heads, chunks, 3, C]: e^ℓ, e^{ℓ_C − ℓ}, ℓ / ln 2
    u64 q_row, k_row;
    u32 tokens, heads, key_heads;
    float scale;
};

const u32 PREPARE_THREADS = 128;

// Of A two heads' at a time, each where a tile was.
struct PrepareShared {
    static const u32 tile = tile_bytes(C, KW) > C * PREPARE_A_ROW * 4 ? tile_bytes(C, KW) : C * PREPARE_A_ROW * 4;
    static const u32 k = 0, q = tile, log_decay = q + tile, beta = log_decay + 2 * C * 4, end = beta + 2 * C * 4;
};

// ℓ in units of ln 2, β and the decays of one head's chunk, by a warp: two positions a lane.
DEVICE void prepare_decays(const PrepareArguments& args, float* log_decay, float* betas, u64 row, u32 head, u64 place, u32 there, u32 lane)
{
    float g[2];
    UNROLL for (u32 i = 0; i < 2; i++) {
        u32 t = 2 * lane + i;
        u64 at = (row + t) * args.heads + head;
        g[i] = t < there && args.g != nullptr ? args.g[at] * LOG2_E : 0.f;
        if (DELTA) betas[t] = t < there ? beta_used(args.beta[at]) : 0.f;
    }
    float sum = g[0] + g[1];
    for (u32 distance = 1; distance < 32; distance *= 2) {
        float before = shuffle_from(sum, lane >= distance ? lane - distance : lane);
        if (lane >= distance) sum += before;
    }
    float last = shuffle_from(sum, 31), first = sum - g[1];
    float* decays = args.decays + place * 3 * C + 2 * lane;
    *(float2*)(log_decay + 2 * lane) = make_float2(first, sum);
    *(float2*)decays = make_float2(exp2_fast(first), exp2_fast(sum));
    *(float2*)(decays + C) = make_float2(exp2_fast(last - first), exp2_fast(last - sum));
    *(float2*)(decays + 2 * C) = make_float2(first, sum);
}

// Rows 16·warp.. of A Bᵀ, up to the diagonal.
DEVICE void prepare_square(float (&square)[C / 8][4], const u8* a_tile, const u8* b_tile, u32 warp, u32 lane)
{
    set_zero(square);
    UNROLL_TWICE for (u32 step = 0; step < KW / 16; step++) {
        Operand a, b;
        load_a<KW>(a, a_tile, warp * 16, step * 16, lane);
        UNROLL for (u32 n = 0; n < C / 16; n++)
            if (n <= warp) {
                load_b<KW>(b, b_tile, n * 16, step * 16, lane);
                product(square[2 * n], square[2 * n + 1], a, b);
            }
    }
}

// Γ ⊙ those rows, two neighbours at a time to `write(i, j, at j, at j + 1)`.
template <class Write> DEVICE void decayed_square(const float (&square)[C / 8][4], const float* log_decay, u32 warp, u32 lane, Write write)
{
    UNROLL for (u32 half = 0; half < 2; half++) {
        u32 i = warp * 16 + half * 8 + lane / 4;
        float l_i = log_decay[i];
        UNROLL for (u32 n = 0; n < C / 8; n++)
            if (n / 2 <= warp) {
                u32 j = n * 8 + lane % 4 * 2;
                float low = j <= i ? exp2_fast(l_i - log_decay[j]) : 0.f, high = j + 1 <= i ? exp2_fast(l_i - log_decay[j + 1]) : 0.f;
                write(i, j, low * square[n][2 * half], high * square[n][2 * half + 1]);
            }
    }
}

KERNEL_BESIDE(chunked_prepare, PrepareArguments, PREPARE_THREADS, 3)
{
    u8* shared = shared_memory();
    u8 *k_tile = shared + PrepareShared::k, *q_tile = shared + PrepareShared::q;
    float *log_decays = (float*)(shared + PrepareShared::log_decay), *betas = (float*)(shared + PrepareShared::beta);
    u32 thread = thread_index(), warp = thread / 32, lane = thread % 32;
    u32 chunk = block_index(), chunks = block_count();
    u32 batch = block_index_y() / args.key_heads, key_head = block_index_y() % args.key_heads;
    u32 there = smaller(C, args.tokens - chunk * C), shared_by = args.heads / args.key_heads;
    u64 row = (u64)batch * args.tokens + chunk * C;
    u64 first_place = ((u64)batch * args.heads + key_head * shared_by) * chunks + chunk; // of head h: h · chunks further
    float scores[C / 8][4];
    for (u32 first = 0; first < shared_by; first += 2) {
        block_sync(); // nobody solves any more
        if (DELTA || first == 0) { // A has taken the place of the tiles
            copy_numbers<C, KW, PREPARE_THREADS>(k_tile, args.k + row * args.k_row + key_head * KW, args.k_row, there, thread);
            copy_numbers<C, KW, PREPARE_THREADS>(q_tile, args.q + row * args.q_row + key_head * KW, args.q_row, there, thread);
            copies_commit();
        }
        u32 mine = first + warp; // for warps 0 and 1
        if (warp < 2 && mine < shared_by)
            prepare_decays(args, log_decays + warp * C, betas + warp * C, row, key_head * shared_by + mine, first_place + mine * chunks,
                           there, lane);
        copies_wait<0>();
        block_sync();
        if (DELTA || first == 0) prepare_square(scores, q_tile, k_tile, warp, lane);
        for (u32 side = 0; side < 2 && first + side < shared_by; side++) {
            Number* to = args.scores + (first_place + (first + side) * chunks) * C * C;
            decayed_square(scores, log_decays + side * C, warp, lane, [&](u32 i, u32 j, float low, float high) {
                store_pair(to + i * C + j, args.scale * low, args.scale * high);
            });
        }
        if (DELTA) {
            float kk[C / 8][4];
            prepare_square(kk, k_tile, k_tile, warp, lane);
            block_sync(); // the tiles are read
            for (u32 side = 0; side < 2 && first + side < shared_by; side++) {
                const float* beta = betas + side * C;
                float* minus_a = (float*)(shared + side * PrepareShared::tile);
                decayed_square(kk, log_decays + side * C, warp, lane, [&](u32 i, u32 j, float low, float high) {
                    float by = -beta[i];
                    *(float2*)(minus_a + i * PREPARE_A_ROW + j) = make_float2(j < i ? by * low : 0.f, j + 1 < i ? by * high : 0.f);
                });
            }
            block_sync();
        }
        if (DELTA && first + warp / 2 < shared_by) {
            const float* minus_a = (const float*)(shared + warp / 2 * PrepareShared::tile);
            u64 place = first_place + (first + warp / 2) * chunks;
            u32 column = warp % 2 * 32 + lane;
            float beta = betas[warp / 2 * C + column];
            if (warp % 2 == 0)
                solve_column<0>(args.inverse + place * C * C, minus_a, column, beta);
            else
                solve_column<C / 2>(args.inverse + place * C * C, minus_a, column, beta);
        }
    }
}

#endif // PREPARE
