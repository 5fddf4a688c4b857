// What a chunk of Kimi Delta Attention (arXiv 2510.26692, section 3) needs that does not depend on the state before it, all
// chunks at once. With ℓ the running sum of g inside the chunk, of each channel c of the keys:
//     A_ij = β_i Σ_c k_ic k_jc e^{ℓ_ic − ℓ_jc} (i > j),  inverse = (I + A)⁻¹ diag(β),  scores_ij = scale Σ_c q_ic k_jc e^{ℓ_ic − ℓ_jc}
// (i ≥ j), and what the walks multiply: scale e^ℓ ⊙ q, e^ℓ ⊙ k, e^{ℓ_C − ℓ} ⊙ k, e^{ℓ_C}.
//
// No exponent is above zero, however small a decay: between pieces of 16 positions products go by way of the boundary before
// the later piece, e^{ℓ_i − ℓ_r} times e^{ℓ_r − ℓ_j} with i > r ≥ j, on tensor cores; inside a piece pair by pair in fp32.
// Nor is an exponent the difference of two that a strong decay before both has made large: sums begin anew with each piece,
// and go from piece to piece by the pieces' own sums (−128, which is 2⁻¹²⁸, is as much as one decay forgets).
//
// RAW 1: decays come as the projection leaves them (prefill); RAW 0: as their logarithms g (training).

#ifdef KDA_PREPARE
struct KdaPrepareArguments {
    const Number *q, *k;      // [B, T, heads, KW], rows `*_row` apart
#if RAW
    const u16* f;             // the same, bf16: g = −e^A_log softplus(f + dt_bias)
    const float *a_log, *dt_bias; // [heads]; [heads, KW]
#else
    const float* g;           // [B, T, heads, KW], rows `g_row` apart
#endif
    const float* beta;        // [B, T, heads]
    Number *queries, *keys, *keys_after; // [B, T, heads, KW]
    Number *inverse, *scores; // [B, heads, chunks, C, C]
    float* decays;            // [B, heads, chunks, KW]: e^{ℓ_C}
    u64 q_row, k_row, g_row;
    u32 tokens, heads;
    float scale;
};

const u32 KDA_THREADS = 128, KDA_ROW = KW + 4; // floats of a row of ℓ

struct KdaShared {
    static const u32 k = 0, q = k + tile_bytes(C, KW), log_decay = q + tile_bytes(C, KW), ends = log_decay + C * KDA_ROW * 4,
                     minus_a = ends + 4 * KW * 4, beta = minus_a + C * PREPARE_A_ROW * 4, end = beta + C * 4;
};

// g of a channel at position t of the chunk, in units of ln 2.
struct KdaDecay {
#if RAW
    float rate, bias;
    const u16* f;
#else
    const float* g;
#endif
    u64 row;
};
DEVICE KdaDecay kda_decay_of(const KdaPrepareArguments& args, u64 row, u32 head, u32 channel)
{
    KdaDecay decay;
    decay.row = args.g_row;
#if RAW
    decay.rate = -LOG2_E * exp_fast(load_constant(args.a_log + head)), decay.bias = load_constant(args.dt_bias + head * KW + channel);
    decay.f = args.f + row * args.g_row + head * KW + channel;
#else
    decay.g = args.g + row * args.g_row + head * KW + channel;
#endif
    return decay;
}
DEVICE float log_decay_at(const KdaDecay& decay, u32 t)
{
#if RAW
    return fmaxf(decay.rate * softplus(bf16_low(load_constant(decay.f + t * decay.row)) + decay.bias), -128.f);
#else
    return fmaxf(LOG2_E * load_constant(decay.g + t * decay.row), -128.f);
#endif
}

// An operand's rows `rows`, columns `columns` of q or k times e to what `exponent(row, column)` says of two neighbours.
template <class Exponent> DEVICE void decay_operand(Operand& x, const u32 (&rows)[4], const u32 (&columns)[4], Exponent exponent)
{
    UNROLL for (u32 i = 0; i < 4; i++) {
        float2 value = numbers(x, i), by = exponent(rows[i], columns[i]);
        set_numbers(x, i, value.x * exp2_fast(by.x), value.y * exp2_fast(by.y));
    }
}

KERNEL_BESIDE(kda_prepare, KdaPrepareArguments, KDA_THREADS, PARTS == 1 ? 2 : 1)
{
    u8* shared = shared_memory();
    u8 *k_tile = shared + KdaShared::k, *q_tile = shared + KdaShared::q;
    float *log_decay = (float*)(shared + KdaShared::log_decay), *ends = (float*)(shared + KdaShared::ends);
    float *minus_a = (float*)(shared + KdaShared::minus_a), *betas = (float*)(shared + KdaShared::beta);
    u32 thread = thread_index(), warp = thread / 32, lane = thread % 32, group = lane / 4, pair = lane % 4;
    u32 chunk = block_index(), batch = block_index_y() / args.heads, head = block_index_y() % args.heads;
    u32 there = smaller(C, args.tokens - chunk * C);
    u64 row = (u64)batch * args.tokens + chunk * C, place = (u64)block_index_y() * block_count() + chunk;
    copy_numbers<C, KW, KDA_THREADS>(k_tile, args.k + row * args.k_row + head * KW, args.k_row, there, thread);
    copy_numbers<C, KW, KDA_THREADS>(q_tile, args.q + row * args.q_row + head * KW, args.q_row, there, thread);
    copies_commit();

    // ℓ from the begin of each piece, in units of ln 2, a channel a thread
    if (thread < KW) {
        KdaDecay decay = kda_decay_of(args, row, head, thread);
        float whole = 0.f;
        for (u32 first = 0; first < C; first += 16) {
            float l[16], sum = 0.f; // asked for at once
            UNROLL for (u32 i = 0; i < 16; i++) l[i] = first + i < there ? log_decay_at(decay, first + i) : 0.f;
            UNROLL for (u32 i = 0; i < 16; i++) sum += l[i], log_decay[(first + i) * KDA_ROW + thread] = sum;
            ends[first / 16 * KW + thread] = sum, whole += sum;
        }
        args.decays[place * KW + thread] = exp2_fast(whole);
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
            float since = log_decay[t * KDA_ROW + column + i], left = ends[t / 16 * KW + column + i] - since;
            for (u32 other = 0; other < 4; other++) {
                float sum = ends[other * KW + column + i];
                if (other < t / 16) since += sum;
                else if (other > t / 16) left += sum;
            }
            float decay = exp2_fast(since);
            q.x[i] *= args.scale * decay, k.x[i] *= decay, after.x[i] *= exp2_fast(left);
        }
        u64 to = ((row + t) * args.heads + head) * KW + column;
        store_eight(args.queries + to, q), store_eight(args.keys + to, k), store_eight(args.keys_after + to, after);
    }

    Number* scores = args.scores + place * C * C;
    u32 first = warp * 16; // this warp's rows
    if (warp > 0) {
        float qk[6][4], kk[6][4];
        set_zero(qk), set_zero(kk);
        UNROLL_TWICE for (u32 step = 0; step < KW / 16; step++) {
            Operand q, k;
            u32 column = step * 16 + 2 * pair;
            load_a<KW>(q, q_tile, first, step * 16, lane), load_a<KW>(k, k_tile, first, step * 16, lane);
            const u32 rows[4] = {first + group, first + group + 8, first + group, first + group + 8};
            const u32 columns[4] = {column, column, column + 8, column + 8};
            auto since = [&](u32 i, u32 c) { return *(const float2*)(log_decay + i * KDA_ROW + c); };
            decay_operand(q, rows, columns, since), decay_operand(k, rows, columns, since);
            UNROLL for (u32 n = 0; n < 3; n++) {
                if (n >= warp) break;
                Operand b;
                load_b<KW>(b, k_tile, n * 16, step * 16, lane);
                const u32 b_rows[4] = {n * 16 + group, n * 16 + group, n * 16 + group + 8, n * 16 + group + 8};
                const u32 b_columns[4] = {column, column + 8, column, column + 8};
                decay_operand(b, b_rows, b_columns, [&](u32 j, u32 c) {
                    float2 to = *(const float2*)(ends + n * KW + c), l = since(j, c);
                    to.x -= l.x, to.y -= l.y;
                    for (u32 between = n + 1; between < warp; between++) {
                        float2 sum = *(const float2*)(ends + between * KW + c);
                        to.x += sum.x, to.y += sum.y;
                    }
                    return to;
                });
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
            float4 a = load_four_of<KW>(q_tile, i, column), b = load_four_of<KW>(k_tile, i, column), other = load_four_of<KW>(k_tile, j, column);
            float x = other.x * exp2_fast(l.x - m.x), y = other.y * exp2_fast(l.y - m.y);
            float z = other.z * exp2_fast(l.z - m.z), w = other.w * exp2_fast(l.w - m.w);
            qk += a.x * x + a.y * y + (a.z * z + a.w * w);
            kk += b.x * x + b.y * y + (b.z * z + b.w * w);
        }
        store_number(scores + i * C + j, args.scale * qk);
        if (j < i) minus_a[i * PREPARE_A_ROW + j] = -betas[i] * kk;
        else UNROLL for (u32 above = 1; above < 16; above++) // of row i = j what stands right of the diagonal
            if (j + above < first + 16) store_number(scores + i * C + j + above, 0.f);
    }
    block_sync();
    Number* inverse = args.inverse + place * C * C;
    if (warp == 0) solve_column<0>(inverse, minus_a, lane, betas[lane]);
    else if (warp == 1) solve_column<C / 2>(inverse, minus_a, C / 2 + lane, betas[C / 2 + lane]);
}
#endif // KDA_PREPARE
