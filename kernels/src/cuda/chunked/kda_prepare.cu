// What a chunk of Kimi Delta Attention (arXiv 2510.26692, section 3) needs that does not depend on the state before it, all
// chunks at once. With ℓ the running sum of g inside the chunk, of each channel c of the keys:
//     A_ij = β_i Σ_c k_ic k_jc e^{ℓ_ic − ℓ_jc} (i > j),  inverse = (I + A)⁻¹ diag(β),  scores_ij = scale Σ_c q_ic k_jc e^{ℓ_ic − ℓ_jc}
// (i ≥ j), and what the walk multiplies: scale e^ℓ ⊙ q, e^ℓ ⊙ k, e^{ℓ_C − ℓ} ⊙ k, e^{ℓ_C}.
//
// No exponent is above zero, however small a decay: between pieces of 16 positions products go by way of the position before
// the later piece, e^{ℓ_i − ℓ_r} times e^{ℓ_r − ℓ_j} with i > r ≥ j, on tensor cores; inside a piece pair by pair in fp32.

#ifdef KDA_PREPARE
struct KdaPrepareArguments {
    const u16 *q, *k, *f;     // [B, T, heads, KW], rows `*_row` apart; f becomes g = −e^A_log softplus(f + dt_bias)
    const float *a_log, *dt_bias, *beta; // [heads]; [heads, KW]; [B, T, heads]
    u16 *queries, *keys, *keys_after; // [B, T, heads, KW]
    u16 *inverse, *scores;    // [B, heads, chunks, C, C]
    float* decays;            // [B, heads, chunks, KW]: e^{ℓ_C}
    u64 q_row, k_row, f_row;
    u32 tokens, heads;
    float scale;
};

const u32 KDA_THREADS = 128, KDA_ROW = KW + 4; // floats of a row of ℓ

struct KdaShared {
    static const u32 k = 0, q = k + tile_bytes(C, KW), log_decay = q + tile_bytes(C, KW), minus_a = log_decay + C * KDA_ROW * 4,
                     beta = minus_a + C * PREPARE_A_ROW * 4, end = beta + C * 4;
};

// An operand's rows `row`, `row` + 8, columns `column`, `column` + 8 of q or k times e^(sign (ℓ − ℓ_r)).
DEVICE void decay_operand(u32 (&x)[4], const float* log_decay, u32 reference, const u32 (&rows)[4], const u32 (&columns)[4], float sign)
{
    UNROLL for (u32 i = 0; i < 4; i++) {
        float2 l = *(const float2*)(log_decay + rows[i] * KDA_ROW + columns[i]), r = *(const float2*)(log_decay + reference * KDA_ROW + columns[i]);
        x[i] = bf16_pair(bf16_low(x[i]) * exp2_fast(sign * (l.x - r.x)), bf16_high(x[i]) * exp2_fast(sign * (l.y - r.y)));
    }
}

KERNEL_BESIDE(kda_prepare, KdaPrepareArguments, KDA_THREADS, 2)
{
    u8* shared = shared_memory();
    u8 *k_tile = shared + KdaShared::k, *q_tile = shared + KdaShared::q;
    float *log_decay = (float*)(shared + KdaShared::log_decay), *minus_a = (float*)(shared + KdaShared::minus_a);
    float* betas = (float*)(shared + KdaShared::beta);
    u32 thread = thread_index(), warp = thread / 32, lane = thread % 32, group = lane / 4, pair = lane % 4;
    u32 chunk = block_index(), batch = block_index_y() / args.heads, head = block_index_y() % args.heads;
    u32 there = smaller(C, args.tokens - chunk * C);
    u64 row = (u64)batch * args.tokens + chunk * C, place = (u64)block_index_y() * block_count() + chunk;
    copy_tile<C, KW, KDA_THREADS>(k_tile, args.k + row * args.k_row + head * KW, args.k_row, there, thread);
    copy_tile<C, KW, KDA_THREADS>(q_tile, args.q + row * args.q_row + head * KW, args.q_row, there, thread);
    copies_commit();

    // ℓ in units of ln 2, a channel a thread
    if (thread < KW) {
        float rate = -LOG2_E * exp_fast(load_constant(args.a_log + head)), bias = load_constant(args.dt_bias + head * KW + thread), sum = 0.f;
        const u16* f = args.f + row * args.f_row + head * KW + thread;
        UNROLL_BY_FOUR for (u32 t = 0; t < C; t++) {
            if (t < there) sum += rate * softplus(bf16_low(load_constant(f + t * args.f_row)) + bias);
            log_decay[t * KDA_ROW + thread] = sum;
        }
        args.decays[place * KW + thread] = exp2_fast(sum);
    }
    if (thread < C) betas[thread] = thread < there ? beta_used(args.beta[(row + thread) * args.heads + head]) : 0.f;
    copies_wait<0>();
    block_sync();

    const u32 PIECES = KW / 8;
    for (u32 piece = thread; piece < C * PIECES; piece += KDA_THREADS) {
        u32 t = piece / PIECES, column = piece % PIECES * 8;
        if (t >= there) break;
        Eight q = load_eight_of<KW>(q_tile, t, column), k = load_eight_of<KW>(k_tile, t, column), after = k;
        UNROLL for (u32 i = 0; i < 8; i++) {
            float l = log_decay[t * KDA_ROW + column + i], decay = exp2_fast(l);
            q.x[i] *= args.scale * decay, k.x[i] *= decay, after.x[i] *= exp2_fast(log_decay[(C - 1) * KDA_ROW + column + i] - l);
        }
        u64 to = ((row + t) * args.heads + head) * KW + column;
        store_eight(args.queries + to, q), store_eight(args.keys + to, k), store_eight(args.keys_after + to, after);
    }

    u16* scores = args.scores + place * C * C;
    u32 first = warp * 16; // this warp's rows
    if (warp > 0) {
        float qk[6][4], kk[6][4];
        set_zero(qk), set_zero(kk);
        UNROLL_TWICE for (u32 step = 0; step < KW / 16; step++) {
            u32 q[4], k[4], column = step * 16 + 2 * pair;
            load_a<KW>(q, q_tile, first, step * 16, lane), load_a<KW>(k, k_tile, first, step * 16, lane);
            const u32 rows[4] = {first + group, first + group + 8, first + group, first + group + 8};
            const u32 columns[4] = {column, column, column + 8, column + 8};
            decay_operand(q, log_decay, first - 1, rows, columns, 1.f), decay_operand(k, log_decay, first - 1, rows, columns, 1.f);
            UNROLL for (u32 n = 0; n < 3; n++) {
                if (n >= warp) break;
                u32 b[4];
                load_b<KW>(b, k_tile, n * 16, step * 16, lane);
                const u32 b_rows[4] = {n * 16 + group, n * 16 + group, n * 16 + group + 8, n * 16 + group + 8};
                const u32 b_columns[4] = {column, column + 8, column, column + 8};
                decay_operand(b, log_decay, first - 1, b_rows, b_columns, -1.f);
                product(qk[2 * n], qk[2 * n + 1], q, b), product(kk[2 * n], kk[2 * n + 1], k, b);
            }
        }
        UNROLL for (u32 n = 0; n < 6; n++) {
            if (n / 2 >= warp) break;
            UNROLL for (u32 half = 0; half < 2; half++) {
                u32 i = first + half * 8 + group, j = n * 8 + 2 * pair;
                store_pair(scores + i * C + j, args.scale * qk[n][2 * half], args.scale * qk[n][2 * half + 1]);
                *(float2*)(minus_a + i * PREPARE_A_ROW + j) = make_float2(-betas[i] * kk[n][2 * half], -betas[i] * kk[n][2 * half + 1]);
            }
        }
    }
    // the piece on the diagonal, a pair (i, j) a lane: rows r and 15 − r have 17 of them together
    for (u32 at = lane; at < 136; at += 32) {
        u32 r = at / 17, c = at % 17, i = first + (c <= r ? r : 15 - r), j = first + (c <= r ? c : c - r - 1);
        float qk = 0.f, kk = 0.f;
        for (u32 column = 0; column < KW; column += 4) {
            float4 l = *(const float4*)(log_decay + i * KDA_ROW + column), m = *(const float4*)(log_decay + j * KDA_ROW + column);
            uint2 a = *(const uint2*)element<KW>(q_tile, i, column), b = *(const uint2*)element<KW>(k_tile, i, column);
            uint2 other = *(const uint2*)element<KW>(k_tile, j, column);
            float x = bf16_low(other.x) * exp2_fast(l.x - m.x), y = bf16_high(other.x) * exp2_fast(l.y - m.y);
            float z = bf16_low(other.y) * exp2_fast(l.z - m.z), w = bf16_high(other.y) * exp2_fast(l.w - m.w);
            qk += bf16_low(a.x) * x + bf16_high(a.x) * y + (bf16_low(a.y) * z + bf16_high(a.y) * w);
            kk += bf16_low(b.x) * x + bf16_high(b.x) * y + (bf16_low(b.y) * z + bf16_high(b.y) * w);
        }
        store_number(scores + i * C + j, args.scale * qk);
        if (j < i) minus_a[i * PREPARE_A_ROW + j] = -betas[i] * kk;
        else UNROLL for (u32 above = 1; above < 16; above++) // of row i = j what stands right of the diagonal
            if (j + above < first + 16) store_number(scores + i * C + j + above, 0.f);
    }
    block_sync();
    u16* inverse = args.inverse + place * C * C;
    if (warp == 0) solve_column<0>(inverse, minus_a, lane, betas[lane]);
    else if (warp == 1) solve_column<C / 2>(inverse, minus_a, C / 2 + lane, betas[C / 2 + lane]);
}
#endif // KDA_PREPARE
