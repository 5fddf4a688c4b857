// The gradients that need the states on both sides of a chunk, all chunks at once: dQ, dK, dg, dβ from the states S and
// their gradients Z that the walks have left. Letters as in the walk back; M = dP ⊙ Γ · scale, dP = dO Δᵀ, and
// N = −Γ ⊙ (dE Δᵀ) below the diagonal:
//     dQ = scale e^ℓ ⊙ (dO Sᵀ) + M K
//     dK = e^{ℓ_C − ℓ} ⊙ (Δ Zᵀ) − e^ℓ ⊙ (dE Sᵀ) + Mᵀ Q + (N + Nᵀ) K
//     dβ_i = (dE_i · Δ_i) / β_i²
// dℓ collects, for each decayed quantity, its product with its gradient, and dg_r = Σ_{i ≥ r} dℓ_i.
//
// Eight warps: four groups of 16 positions, two halves of the columns. (DELTA 0: Δ = V, no dE, N or dβ.)

#ifdef GRADIENTS
struct GradientArguments {
    const Number *q, *k;
    const Number* delta;      // Δ, [B, T, heads, V], rows `delta_row` apart
    const Number* d_out;      // rows `d_row` apart
    const Number* d_values;   // dE = dV, [B, T, heads, V]
    const Number *states, *d_states; // [B, heads, chunks, V, KW]
    const float *decays, *beta;
    Number *d_q, *d_k;        // [B, T, heads, KW]
    float *d_g, *d_beta;      // [B, T, heads]; d_g may be null
    u64 q_row, k_row, delta_row, d_row;
    u32 tokens, heads, key_heads, value_width;
    float scale;
};

const u32 GRADIENT_THREADS = 256;

struct GradientStage { // of SLICE value columns
    static const u32 d_out = 0, delta = d_out + tile_bytes(C, SLICE), d_values = delta + tile_bytes(C, SLICE),
                     state = d_values + (DELTA ? tile_bytes(C, SLICE) : 0), d_state = state + tile_bytes(SLICE, KW),
                     end = d_state + tile_bytes(SLICE, KW);
};
struct GradientShared {
    static const u32 k = 0, q = k + tile_bytes(C, KW), m = q + tile_bytes(C, KW), n = m + tile_bytes(C, C),
                     stages = n + (DELTA ? tile_bytes(C, C) : 0), rows = stages + 2 * GradientStage::end, kept = rows + 2 * C * 4,
                     columns = kept + 2 * C * 4, warps = columns + 4 * C * 4, end = warps + 8 * 4;
};

DEVICE void gradient_copy(const GradientArguments& args, u8* to, Sequence s, u64 row, u64 place, u32 there, u32 slice)
{
    u32 thread = thread_index(), column = s.head * args.value_width + slice * SLICE;
    u64 row_elements = (u64)args.heads * args.value_width, first = (place * args.value_width + slice * SLICE) * KW;
    copy_numbers<C, SLICE, GRADIENT_THREADS>(to + GradientStage::d_out, args.d_out + row * args.d_row + column, args.d_row, there, thread);
    copy_numbers<C, SLICE, GRADIENT_THREADS>(to + GradientStage::delta, args.delta + row * args.delta_row + column, args.delta_row, there, thread);
    if (DELTA)
        copy_numbers<C, SLICE, GRADIENT_THREADS>(to + GradientStage::d_values, args.d_values + row * row_elements + column, row_elements, there, thread);
    copy_numbers<SLICE, KW, GRADIENT_THREADS>(to + GradientStage::state, args.states + first, KW, SLICE, thread);
    copy_numbers<SLICE, KW, GRADIENT_THREADS>(to + GradientStage::d_state, args.d_states + first, KW, SLICE, thread);
    copies_commit();
}


KERNEL_BESIDE(chunked_gradients, GradientArguments, GRADIENT_THREADS, GRADIENT_BLOCKS)
{
    const u32 HALF = KW / 2, N = KW / 32; // columns of a warp, and their pieces of 16
    u8* shared = shared_memory();
    u8 *k_tile = shared + GradientShared::k, *q_tile = shared + GradientShared::q;
    u8 *m_tile = shared + GradientShared::m, *n_tile = shared + GradientShared::n;
    float *rows = (float*)(shared + GradientShared::rows), *kepts = (float*)(shared + GradientShared::kept);
    float *columns = (float*)(shared + GradientShared::columns), *warps = (float*)(shared + GradientShared::warps);
    u32 thread = thread_index(), warp = thread / 32, lane = thread % 32, group = lane / 4, pair = lane % 4;
    u32 i0 = warp % 4 * 16, side = warp / 4, block_row = warp % 4;
    u32 chunk = block_index(), chunks = block_count(), slices = args.value_width / SLICE;
    Sequence s = sequence_of(block_index_y(), args.heads, args.key_heads);
    u64 row = (u64)s.batch * args.tokens + chunk * C, place = (u64)block_index_y() * chunks + chunk;
    u32 there = smaller(C, args.tokens - chunk * C);
    const float* decays = args.decays + place * 3 * C;

    copy_numbers<C, KW, GRADIENT_THREADS>(k_tile, args.k + row * args.k_row + s.key_head * KW, args.k_row, there, thread);
    copy_numbers<C, KW, GRADIENT_THREADS>(q_tile, args.q + row * args.q_row + s.key_head * KW, args.q_row, there, thread);
    gradient_copy(args, shared + GradientShared::stages, s, row, place, there, 0);

    float d_q[2 * N][4], d_k[2 * N][4], read[2 * N][4]; // dO Sᵀ, Δ Zᵀ, dE Sᵀ
    float d_p[4][4], d_n[4][4];                          // dO Δᵀ, dE Δᵀ: 32 columns
    float z_s = 0.f;                                     // Z · S
    set_zero(d_q), set_zero(d_k), set_zero(read), set_zero(d_p), set_zero(d_n);
    for (u32 slice = 0; slice < slices; slice++) {
        const u8* from = shared + GradientShared::stages + slice % 2 * GradientStage::end;
        if (slice + 1 < slices) {
            gradient_copy(args, shared + GradientShared::stages + (slice + 1) % 2 * GradientStage::end, s, row, place, there, slice + 1);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        block_sync();
        UNROLL for (u32 step = 0; step < SLICE / 16; step++) {
            Operand out, delta, corrected, b;
            load_a<SLICE>(out, from + GradientStage::d_out, i0, step * 16, lane);
            load_a<SLICE>(delta, from + GradientStage::delta, i0, step * 16, lane);
            if (DELTA) load_a<SLICE>(corrected, from + GradientStage::d_values, i0, step * 16, lane);
            UNROLL for (u32 n = 0; n < N; n++) {
                load_b_transposed<KW>(b, from + GradientStage::state, step * 16, side * HALF + n * 16, lane);
                product(d_q[2 * n], d_q[2 * n + 1], out, b);
                if (DELTA) product(read[2 * n], read[2 * n + 1], corrected, b);
                load_b_transposed<KW>(b, from + GradientStage::d_state, step * 16, side * HALF + n * 16, lane);
                product(d_k[2 * n], d_k[2 * n + 1], delta, b);
            }
            UNROLL for (u32 n = 0; n < 2; n++)
                if (side * 2 + n <= block_row) {
                    load_b<SLICE>(b, from + GradientStage::delta, side * 32 + n * 16, step * 16, lane);
                    product(d_p[2 * n], d_p[2 * n + 1], out, b);
                    if (DELTA) product(d_n[2 * n], d_n[2 * n + 1], corrected, b);
                }
        }
        for (u32 piece = thread; piece < SLICE * KW / 8; piece += GRADIENT_THREADS) {
            u32 at = piece / (KW / 8), column = piece % (KW / 8) * 8;
            Eight x = load_eight_of<KW>(from + GradientStage::state, at, column), y = load_eight_of<KW>(from + GradientStage::d_state, at, column);
            UNROLL for (u32 e = 0; e < 8; e++) z_s += x.x[e] * y.x[e];
        }
        block_sync();
    }
    z_s = warp_sum(z_s);
    if (lane == 0) warps[warp] = z_s;

    float row_sums[2];
    UNROLL for (u32 half = 0; half < 2; half++) {
        u32 i = i0 + half * 8 + group;
        float decay = decays[i], keep = decays[C + i], reads = 0.f, corrects = 0.f, keeps = 0.f;
        UNROLL for (u32 n = 0; n < 2 * N; n++) {
            u32 column = side * HALF + n * 8 + 2 * pair;
            float2 q = load_pair<KW>(q_tile, i, column), k = load_pair<KW>(k_tile, i, column);
            float *dq = d_q[n] + 2 * half, *dk = d_k[n] + 2 * half, *r = read[n] + 2 * half;
            reads += q.x * dq[0] + q.y * dq[1];
            corrects += k.x * r[0] + k.y * r[1];
            keeps += k.x * dk[0] + k.y * dk[1];
            UNROLL for (u32 e = 0; e < 2; e++) {
                dq[e] *= args.scale * decay;
                dk[e] = keep * dk[e] - decay * r[e];
            }
        }
        row_sums[half] = args.scale * decay * reads - decay * corrects - keep * keeps;
        keeps = keep * keeps;
        keeps += shuffle_xor(keeps, 1);
        keeps += shuffle_xor(keeps, 2);
        if (pair == 0) kepts[side * C + i] = keeps;
    }

    // M and N of 16 positions by 32, and what they add to dℓ
    float qk[4][4], kk[4][4], column_sums[4][2] = {};
    set_zero(qk), set_zero(kk);
    UNROLL for (u32 step = 0; step < KW / 16; step++) {
        Operand q, k, b;
        load_a<KW>(q, q_tile, i0, step * 16, lane);
        if (DELTA) load_a<KW>(k, k_tile, i0, step * 16, lane);
        UNROLL for (u32 n = 0; n < 2; n++)
            if (side * 2 + n <= block_row) {
                load_b<KW>(b, k_tile, side * 32 + n * 16, step * 16, lane);
                product(qk[2 * n], qk[2 * n + 1], q, b);
                if (DELTA) product(kk[2 * n], kk[2 * n + 1], k, b);
            }
    }
    UNROLL for (u32 half = 0; half < 2; half++) {
        u32 i = i0 + half * 8 + group;
        float l_i = decays[2 * C + i];
        UNROLL for (u32 n = 0; n < 4; n++) {
            float m[2], below[2];
            UNROLL for (u32 e = 0; e < 2; e++) {
                u32 j = side * 32 + n * 8 + 2 * pair + e, x = 2 * half + e;
                float gamma = j <= i ? exp2_fast(l_i - decays[2 * C + j]) : 0.f;
                m[e] = args.scale * gamma * d_p[n][x];
                below[e] = DELTA && j < i ? -gamma * d_n[n][x] : 0.f;
                float sum = m[e] * qk[n][x] + below[e] * kk[n][x];
                row_sums[half] += sum;
                column_sums[n][e] += sum;
                if (DELTA && i == j && i < there) {
                    u64 at = (row + i) * args.heads + s.head;
                    float beta = beta_used(args.beta[at]);
                    args.d_beta[at] = d_n[n][x] / beta / beta;
                }
            }
            u32 column = side * 32 + n * 8 + 2 * pair;
            store_pair<C>(m_tile, i, column, m[0], m[1]);
            if (DELTA) store_pair<C>(n_tile, i, column, below[0], below[1]);
        }
        row_sums[half] += shuffle_xor(row_sums[half], 1);
        row_sums[half] += shuffle_xor(row_sums[half], 2);
        if (pair == 0) rows[side * C + i] = row_sums[half];
    }
    UNROLL for (u32 n = 0; n < 4; n++) UNROLL for (u32 e = 0; e < 2; e++) {
        float sum = column_sums[n][e];
        UNROLL for (u32 mask = 4; mask <= 16; mask *= 2) sum += shuffle_xor(sum, mask);
        if (group == 0) columns[block_row * C + side * 32 + n * 8 + 2 * pair + e] = sum;
    }
    block_sync();

    if (warp == 0 && args.d_g != nullptr) { // two positions a lane
        float d_l[2], keeps = 0.f;
        UNROLL for (u32 e = 0; e < 2; e++) {
            u32 i = 2 * lane + e;
            d_l[e] = rows[i] + rows[C + i] - columns[i] - columns[C + i] - columns[2 * C + i] - columns[3 * C + i];
            keeps += kepts[i] + kepts[C + i];
        }
        keeps = warp_sum(keeps);
        float all = 0.f;
        UNROLL for (u32 w = 0; w < GRADIENT_THREADS / 32; w++) all += warps[w];
        if (lane == 31) d_l[1] += keeps + decays[C - 1] * all;
        float sum = d_l[0] + d_l[1]; // from here to the end of the chunk
        for (u32 distance = 1; distance < 32; distance *= 2) {
            float after = shuffle_from(sum, lane + distance < 32 ? lane + distance : lane);
            if (lane + distance < 32) sum += after;
        }
        u64 at = (row + 2 * lane) * args.heads + s.head;
        if (2 * lane < there) args.d_g[at] = sum;
        if (2 * lane + 1 < there) args.d_g[at + args.heads] = sum - d_l[0];
    }

    UNROLL for (u32 step = 0; step < C / 16; step++) {
        Operand a, b, below;
        if (step <= block_row) { // M K, N K
            load_a<C>(a, m_tile, i0, step * 16, lane);
            if (DELTA) load_a<C>(below, n_tile, i0, step * 16, lane);
            UNROLL for (u32 n = 0; n < N; n++) {
                load_b_transposed<KW>(b, k_tile, step * 16, side * HALF + n * 16, lane);
                product(d_q[2 * n], d_q[2 * n + 1], a, b);
                if (DELTA) product(d_k[2 * n], d_k[2 * n + 1], below, b);
            }
        }
        if (step >= block_row) { // Mᵀ Q, Nᵀ K
            load_a_transposed<C>(a, m_tile, step * 16, i0, lane);
            if (DELTA) load_a_transposed<C>(below, n_tile, step * 16, i0, lane);
            UNROLL for (u32 n = 0; n < N; n++) {
                load_b_transposed<KW>(b, q_tile, step * 16, side * HALF + n * 16, lane);
                product(d_k[2 * n], d_k[2 * n + 1], a, b);
                if (DELTA) {
                    load_b_transposed<KW>(b, k_tile, step * 16, side * HALF + n * 16, lane);
                    product(d_k[2 * n], d_k[2 * n + 1], below, b);
                }
            }
        }
    }
    UNROLL for (u32 half = 0; half < 2; half++) {
        u32 i = i0 + half * 8 + group;
        if (i < there) UNROLL for (u32 n = 0; n < 2 * N; n++) {
            u64 at = ((row + i) * args.heads + s.head) * KW + side * HALF + n * 8 + 2 * pair;
            store_pair(args.d_q + at, d_q[n][2 * half], d_q[n][2 * half + 1]);
            store_pair(args.d_k + at, d_k[n][2 * half], d_k[n][2 * half + 1]);
        }
    }
}
#endif // GRADIENTS
