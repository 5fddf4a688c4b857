// The gradients of Kimi Delta Attention that need the states on both sides of a chunk, all chunks at once: dq, dk, dg by
// channel, and dβ, from the states S and their gradients Z that the walks have left. With M = scale · dO Δᵀ (i ≥ j) and
// N = −dE Δᵀ (i > j), a_s = e^{g_s} the decays [KW] of position s, and Γ_ij = Π_{j < s ≤ i} a_s channel by channel:
//     dq_i = D_i ⊙ scale (dO Sᵀ)_i + Σ_{j ≤ i} M_ij k_j ⊙ Γ_ij
//     dk_i = T_i ⊙ (Δ Zᵀ)_i − D_i ⊙ (dE Sᵀ)_i + Σ_{j < i} N_ij k_j ⊙ Γ_ij + Σ_{m ≥ i} (M_mi q_m + N_mi k_m) ⊙ Γ_mi
//     dβ_i = (dE_i · Δ_i) / β_i²
// (the reverse of Kimi Linear's equation 1, arXiv 2510.26692; D and T reach to the chunk's ends; N_ii = 0.)
//
// How products of decays are formed: never as e^{ℓ_i} / e^{ℓ_j}, which overflows, nor as e^{ℓ_i − ℓ_j}, whose exponents lose
// their last bits once a decay before both is strong. In a piece of 16 positions products go on from position to position in
// fp32, starting at 1; with a piece's own w = Π a, q̂ and k̂ (decayed since the piece's begin) and ǩ (until its end), what
// passes a boundary goes from piece to piece as a state does, by tensor cores:
//     x ← dO Sᵀ, then x ← w ⊙ x + M ǩ for each earlier piece: D ⊙ x is what q gets of all before its piece
//     y ← Δ Zᵀ, then y ← w ⊙ y + Mᵀ q̂ + Nᵀ k̂ for each later piece, from the last: T ⊙ y is what k gets of all after it
// (D and T of the piece alone). No factor is above 1, nothing is divided, and a decay that underflows to 0 is forgotten.
//
// g_r stands in the exponent of what passes position r. So dg_r sums, of each channel, k_j · (what is stored at j < r and
// read at i ≥ r): inside the piece pair by pair, from before the piece as a sum over i ≥ r, to after it as one over j < r,
// and once for each piece what passes it whole (S and Z are the piece before the first and the one after the last). Every
// term has a_r as a factor, so that dg_r is as exact as it is small; the shorter Σ_{i ≥ r} (q_i ⊙ dq_i …) − k_i ⊙ dk_i holds
// each later pair with both signs, and its rounding drowns what strong decays leave.
//
// Eight warps: four pieces, two halves of the channels.

#ifdef KDA_GRADIENTS
struct KdaGradientArguments {
    const Number *q, *k;      // [B, T, heads, KW], rows `*_row` apart
    const float* g;           // the same
    const Number* delta;      // Δ, [B, T, heads, V]
    const Number* d_out;      // the same, rows `d_row` apart
    const Number* d_values;   // dE = dV, [B, T, heads, V]
    const Number *states, *d_states; // [B, heads, chunks, V, KW]
    const float *decays, *beta; // [B, heads, chunks, KW]: e^{ℓ_C}; [B, T, heads]
    Number *d_q, *d_k;        // [B, T, heads, KW]
    float *d_g, *d_beta;      // [B, T, heads, KW]; [B, T, heads]
    u64 q_row, k_row, g_row, d_row;
    u32 tokens, heads, value_width;
    float scale;
};

const u32 KDA_GRADIENT_THREADS = 256, KDA_PIECE = 16, KDA_HALF = KW / 2, KDA_STAGED_ROW = KDA_HALF + 8;

struct KdaGradientStage { // of SLICE value columns
    static const u32 d_out = 0, delta = d_out + tile_bytes(C, SLICE), d_values = delta + tile_bytes(C, SLICE),
                     state = d_values + tile_bytes(C, SLICE), d_state = state + tile_bytes(SLICE, KW), end = d_state + tile_bytes(SLICE, KW);
};
struct KdaGradientShared {
    static const u32 k = 0, q = k + tile_bytes(C, KW), pieces = q + tile_bytes(C, KW), // w of each piece
                     passing = pieces + 4 * KW * 4,                                    // see `Passing`
                     states = passing + 16 * KW * 4,                                   // Σ_v Z ⊙ S
                     reused = states + KW * 4;
    // in turn in the same place: the slices; sums of their Z ⊙ S; the tiles of what passes boundaries; what a lane gets of
    // its channel. M and N of the pieces stay to the end.
    static const u32 slices = reused, products = reused,
                     m = reused, n = m + tile_bytes(C, C), queries = n + tile_bytes(C, C), keys = queries + tile_bytes(C, KW),
                     until_end = keys + tile_bytes(C, KW), tiles_end = until_end + tile_bytes(C, KW),
                     staged = reused, staged_bytes = 3 * KDA_PIECE * KDA_STAGED_ROW * 4, staged_end = staged + 8 * staged_bytes,
                     own_m = larger(larger(tiles_end, staged_end), products + KDA_GRADIENT_THREADS * 8 * 4),
                     own_n = own_m + 4 * KDA_PIECE * KDA_PIECE * 4,
                     end = larger(own_n + 4 * KDA_PIECE * KDA_PIECE * 4, slices + 2 * KdaGradientStage::end);
};

DEVICE void kda_gradient_copy(const KdaGradientArguments& args, u8* to, Sequence s, u64 row, u64 place, u32 there, u32 slice)
{
    u32 thread = thread_index(), column = s.head * args.value_width + slice * SLICE;
    u64 row_elements = (u64)args.heads * args.value_width, first = (place * args.value_width + slice * SLICE) * KW;
    copy_numbers<C, SLICE, KDA_GRADIENT_THREADS>(to + KdaGradientStage::d_out, args.d_out + row * args.d_row + column, args.d_row, there, thread);
    copy_numbers<C, SLICE, KDA_GRADIENT_THREADS>(to + KdaGradientStage::delta, args.delta + row * row_elements + column, row_elements, there, thread);
    copy_numbers<C, SLICE, KDA_GRADIENT_THREADS>(to + KdaGradientStage::d_values, args.d_values + row * row_elements + column, row_elements, there, thread);
    copy_numbers<SLICE, KW, KDA_GRADIENT_THREADS>(to + KdaGradientStage::state, args.states + first, KW, SLICE, thread);
    copy_numbers<SLICE, KW, KDA_GRADIENT_THREADS>(to + KdaGradientStage::d_state, args.d_states + first, KW, SLICE, thread);
    copies_commit();
}

// What passes piece p whole, of each channel: slot (p, q < p) is what piece q has stored for those after p, slot (p, p) what
// piece p reads of S, which has passed all before it.
DEVICE float* passing_slot(float* passing, u32 piece, u32 of) { return passing + (piece * 4 + of) * KW; }

// The sums over a warp's 16 rows of x ⊙ y, y being a tile's rows from `row` on; `add(n, sums)` gets those of columns n·8 +
// 2·pair and the next.
template <u32 N2, class Take> DEVICE void sums_of_columns(const float (&x)[N2][4], const u8* tile, u32 row, u32 column, u32 lane, Take take)
{
    u32 group = lane / 4, pair = lane % 4;
    UNROLL for (u32 n = 0; n < N2; n++) {
        float2 above = load_pair<KW>(tile, row + group, column + n * 8 + 2 * pair), below = load_pair<KW>(tile, row + group + 8, column + n * 8 + 2 * pair);
        float2 sum = make_float2(x[n][0] * above.x + x[n][2] * below.x, x[n][1] * above.y + x[n][3] * below.y);
        UNROLL for (u32 mask = 4; mask <= 16; mask *= 2) sum.x += shuffle_xor(sum.x, mask), sum.y += shuffle_xor(sum.y, mask);
        take(n, sum);
    }
}
// Each column of x times its channel's factor.
template <u32 N2> DEVICE void scale_channels(float (&x)[N2][4], const float* factors, u32 pair)
{
    UNROLL for (u32 n = 0; n < N2; n++) {
        float2 by = *(const float2*)(factors + n * 8 + 2 * pair);
        x[n][0] *= by.x, x[n][1] *= by.y, x[n][2] *= by.x, x[n][3] *= by.y;
    }
}

// The decays of a channel at the positions of a piece, of which `there` are there.
DEVICE void piece_decays(float (&a)[KDA_PIECE], const float* g, u64 g_row, u32 there)
{
    UNROLL for (u32 i = 0; i < KDA_PIECE; i++) a[i] = i < there ? exp2_fast(LOG2_E * load_constant(g + i * g_row)) : 1.f;
}

// q̂, k̂, ǩ and w of a channel of a piece.
DEVICE void decay_piece(u8* shared, const float (&a)[KDA_PIECE], u32 piece, u32 channel)
{
    u32 first = piece * KDA_PIECE;
    float since = 1.f, until = 1.f;
    UNROLL for (u32 i = 0; i < KDA_PIECE; i++) {
        since *= a[i];
        float q = load_one_of<KW>(shared + KdaGradientShared::q, first + i, channel), k = load_one_of<KW>(shared + KdaGradientShared::k, first + i, channel);
        store_one<KW>(shared + KdaGradientShared::queries, first + i, channel, since * q);
        store_one<KW>(shared + KdaGradientShared::keys, first + i, channel, since * k);
    }
    ((float*)(shared + KdaGradientShared::pieces))[piece * KW + channel] = since;
    UNROLL for (u32 x = 0; x < KDA_PIECE; x++) {
        const u32 i = KDA_PIECE - 1 - x;
        float k = load_one_of<KW>(shared + KdaGradientShared::k, first + i, channel);
        store_one<KW>(shared + KdaGradientShared::until_end, first + i, channel, until * k);
        until *= a[i];
    }
}

// The gradients of a channel of a piece, from what `staged` holds of it, in rows of KDA_STAGED_ROW: what q and k get of all
// before the piece, and k of all after it, each before it decays inside the piece. `passing` is what passes the piece whole.
DEVICE void finish_channel(const KdaGradientArguments& args, u8* shared, float* staged, const float (&a)[KDA_PIECE], u32 piece, u32 channel,
                           float passing, u64 to, u64 row_elements, u32 there)
{
    const u32 ROWS = KDA_PIECE * KDA_STAGED_ROW;
    const float *own_m = (const float*)(shared + KdaGradientShared::own_m) + piece * KDA_PIECE * KDA_PIECE;
    const float *own_n = (const float*)(shared + KdaGradientShared::own_n) + piece * KDA_PIECE * KDA_PIECE;
    float k[KDA_PIECE], columns[KDA_PIECE], since = 1.f, until = 1.f, reads = passing;
    UNROLL for (u32 i = 0; i < KDA_PIECE; i++) {
        since *= a[i];
        staged[i * KDA_STAGED_ROW] *= since, staged[ROWS + i * KDA_STAGED_ROW] *= since;
        k[i] = load_one_of<KW>(shared + KdaGradientShared::k, piece * KDA_PIECE + i, channel);
        columns[i] = 0.f;
    }
    UNROLL for (u32 x = 0; x < KDA_PIECE; x++) {
        const u32 i = KDA_PIECE - 1 - x;
        float* at = staged + i * KDA_STAGED_ROW;
        float q = load_one_of<KW>(shared + KdaGradientShared::q, piece * KDA_PIECE + i, channel);
        float d_q = at[0], d_k = at[ROWS], stored = until * at[2 * ROWS], d_g = 0.f, gamma = 1.f;
        until *= a[i];
        reads += q * d_q + k[i] * d_k;
        float m[KDA_PIECE], n[KDA_PIECE];
        UNROLL for (u32 j = 0; j <= i; j += 4) {
            float4 x = *(const float4*)(own_m + i * KDA_PIECE + j), y = *(const float4*)(own_n + i * KDA_PIECE + j);
            m[j] = x.x, m[j + 1] = x.y, m[j + 2] = x.z, m[j + 3] = x.w;
            n[j] = y.x, n[j + 1] = y.y, n[j + 2] = y.z, n[j + 3] = y.w;
        }
        d_q += m[i] * k[i], d_k += m[i] * q + stored;
        UNROLL for (u32 y = 0; y < i; y++) {
            const u32 j = i - 1 - y;
            gamma *= a[j + 1];
            float earlier = k[j] * gamma;
            d_q += m[j] * earlier, d_k += n[j] * earlier;
            columns[j] += (m[j] * q + n[j] * k[i]) * gamma;
            d_g += k[j] * columns[j];
        }
        if (i < there) store_number(args.d_q + to + i * row_elements, d_q);
        at[0] = d_g + reads, at[ROWS] = d_k, at[2 * ROWS] = k[i] * stored;
    }
    float before = 0.f;
    UNROLL for (u32 i = 0; i < KDA_PIECE; i++) {
        float* at = staged + i * KDA_STAGED_ROW;
        if (i < there) {
            store_number(args.d_k + to + i * row_elements, at[ROWS] + columns[i]);
            args.d_g[to + i * row_elements] = at[0] + before;
        }
        before += at[2 * ROWS];
    }
}

KERNEL(kda_gradients, KdaGradientArguments, KDA_GRADIENT_THREADS)
{
    const u32 N = KW / 32; // pieces of 16 columns of a warp
    u8* shared = shared_memory();
    u8 *k_tile = shared + KdaGradientShared::k, *q_tile = shared + KdaGradientShared::q;
    u8 *m_tile = shared + KdaGradientShared::m, *n_tile = shared + KdaGradientShared::n;
    float *pieces = (float*)(shared + KdaGradientShared::pieces), *passing = (float*)(shared + KdaGradientShared::passing);
    float *states = (float*)(shared + KdaGradientShared::states), *products_of_states = (float*)(shared + KdaGradientShared::products);
    u32 thread = thread_index(), warp = thread / 32, lane = thread % 32, group = lane / 4, pair = lane % 4;
    u32 piece = warp % 4, side = warp / 4, i0 = piece * KDA_PIECE, c0 = side * KDA_HALF;
    u32 chunk = block_index(), chunks = block_count(), slices = args.value_width / SLICE;
    Sequence s = sequence_of(block_index_y(), args.heads, args.heads);
    u64 row = (u64)s.batch * args.tokens + chunk * C, place = (u64)block_index_y() * chunks + chunk;
    u32 there = smaller(C, args.tokens - chunk * C);

    copy_numbers<C, KW, KDA_GRADIENT_THREADS>(k_tile, args.k + row * args.k_row + s.head * KW, args.k_row, there, thread);
    copy_numbers<C, KW, KDA_GRADIENT_THREADS>(q_tile, args.q + row * args.q_row + s.head * KW, args.q_row, there, thread);
    kda_gradient_copy(args, shared + KdaGradientShared::slices, s, row, place, there, 0);

    float d_q[2 * N][4], d_k[2 * N][4], read[2 * N][4]; // dO Sᵀ, Δ Zᵀ, dE Sᵀ
    float d_p[4][4], d_n[4][4];                          // dO Δᵀ, dE Δᵀ: 32 columns
    const u32 EIGHTS = KW / 8, PARTS_OF_ROWS = KDA_GRADIENT_THREADS / EIGHTS; // who sums Z ⊙ S: eight channels a thread, some rows of each slice
    float z_s[8] = {};
    set_zero(d_q), set_zero(d_k), set_zero(read), set_zero(d_p), set_zero(d_n);
    for (u32 slice = 0; slice < slices; slice++) {
        const u8* from = shared + KdaGradientShared::slices + slice % 2 * KdaGradientStage::end;
        if (slice + 1 < slices) {
            kda_gradient_copy(args, shared + KdaGradientShared::slices + (slice + 1) % 2 * KdaGradientStage::end, s, row, place, there, slice + 1);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        block_sync();
        UNROLL for (u32 step = 0; step < SLICE / 16; step++) {
            Operand out, delta, corrected, b;
            load_a<SLICE>(out, from + KdaGradientStage::d_out, i0, step * 16, lane);
            load_a<SLICE>(delta, from + KdaGradientStage::delta, i0, step * 16, lane);
            load_a<SLICE>(corrected, from + KdaGradientStage::d_values, i0, step * 16, lane);
            UNROLL for (u32 n = 0; n < N; n++) {
                load_b_transposed<KW>(b, from + KdaGradientStage::state, step * 16, c0 + n * 16, lane);
                product(d_q[2 * n], d_q[2 * n + 1], out, b);
                product(read[2 * n], read[2 * n + 1], corrected, b);
                load_b_transposed<KW>(b, from + KdaGradientStage::d_state, step * 16, c0 + n * 16, lane);
                product(d_k[2 * n], d_k[2 * n + 1], delta, b);
            }
            UNROLL for (u32 n = 0; n < 2; n++)
                if (side * 2 + n <= piece) {
                    load_b<SLICE>(b, from + KdaGradientStage::delta, side * 32 + n * 16, step * 16, lane);
                    product(d_p[2 * n], d_p[2 * n + 1], out, b);
                    product(d_n[2 * n], d_n[2 * n + 1], corrected, b);
                }
        }
        if (thread < EIGHTS * PARTS_OF_ROWS)
            for (u32 at = thread / EIGHTS; at < SLICE; at += PARTS_OF_ROWS) {
                Eight x = load_eight_of<KW>(from + KdaGradientStage::state, at, thread % EIGHTS * 8);
                Eight y = load_eight_of<KW>(from + KdaGradientStage::d_state, at, thread % EIGHTS * 8);
                UNROLL for (u32 e = 0; e < 8; e++) z_s[e] += x.x[e] * y.x[e];
            }
        block_sync();
    }
    if (thread < EIGHTS * PARTS_OF_ROWS) UNROLL for (u32 e = 0; e < 8; e++) products_of_states[thread * 8 + e] = z_s[e];
    block_sync();
    if (thread < KW) {
        float sum = 0.f;
        for (u32 part = 0; part < PARTS_OF_ROWS; part++) sum += products_of_states[part * KW + thread];
        states[thread] = sum;
    }
    block_sync(); // the tiles take their place

    UNROLL for (u32 half = 0; half < 2; half++) UNROLL for (u32 n = 0; n < 4; n++) {
        u32 i = i0 + half * 8 + group, j = side * 32 + n * 8 + 2 * pair;
        float m[2], below[2];
        UNROLL for (u32 e = 0; e < 2; e++) {
            u32 x = 2 * half + e;
            m[e] = j + e <= i ? args.scale * d_p[n][x] : 0.f;
            below[e] = j + e < i ? -d_n[n][x] : 0.f;
            if (j + e == i && i < there) {
                u64 at = (row + i) * args.heads + s.head;
                float beta = beta_used(args.beta[at]);
                args.d_beta[at] = d_n[n][x] / beta / beta;
            }
        }
        if (j / KDA_PIECE == piece) {
            u32 at = (i0 + i % KDA_PIECE) * KDA_PIECE + j % KDA_PIECE;
            *(float2*)((float*)(shared + KdaGradientShared::own_m) + at) = make_float2(m[0], m[1]);
            *(float2*)((float*)(shared + KdaGradientShared::own_n) + at) = make_float2(below[0], below[1]);
        } else if (j / KDA_PIECE < piece) {
            store_pair<C>(m_tile, i, j, m[0], m[1]);
            store_pair<C>(n_tile, i, j, below[0], below[1]);
        }
    }
    u32 here = there > i0 ? smaller(KDA_PIECE, there - i0) : 0;
    const float* g = args.g + (row + i0) * args.g_row + s.head * KW;
    for (u32 first = lane; first < KDA_HALF; first += 32) {
        float a[KDA_PIECE];
        piece_decays(a, g + c0 + first, args.g_row, here);
        decay_piece(shared, a, piece, c0 + first);
    }
    block_sync(); // the tiles are there

    // what comes from before the piece
    const float* w = pieces + c0;
    float lead[2 * N][2]; // what is left of S at its begin
    UNROLL for (u32 n = 0; n < 2 * N; n++) UNROLL for (u32 e = 0; e < 2; e++) {
        lead[n][e] = 1.f;
        for (u32 p = 0; p < piece; p++) lead[n][e] *= w[p * KW + n * 8 + 2 * pair + e];
        UNROLL for (u32 half = 0; half < 2; half++) d_q[n][2 * half + e] *= args.scale, read[n][2 * half + e] *= -1.f;
    }
    float* slot = passing_slot(passing, piece, piece) + c0;
    auto keep = [&](u32 n, float2 sum, bool first) {
        float2* to = (float2*)(slot + n * 8 + 2 * pair);
        if (group == 0) *to = first ? make_float2(sum.x * lead[n][0], sum.y * lead[n][1]) : make_float2(to->x + sum.x * lead[n][0], to->y + sum.y * lead[n][1]);
    };
    sums_of_columns(d_q, shared + KdaGradientShared::queries, i0, c0, lane, [&](u32 n, float2 sum) { keep(n, sum, true); });
    sums_of_columns(read, shared + KdaGradientShared::keys, i0, c0, lane, [&](u32 n, float2 sum) { keep(n, sum, false); });
    for (u32 p = 0; p < piece; p++) {
        Operand a, below, b;
        scale_channels(d_q, w + p * KW, pair), scale_channels(read, w + p * KW, pair);
        load_a<C>(a, m_tile, i0, p * 16, lane);
        load_a<C>(below, n_tile, i0, p * 16, lane);
        UNROLL for (u32 n = 0; n < N; n++) {
            load_b_transposed<KW>(b, shared + KdaGradientShared::until_end, p * 16, c0 + n * 16, lane);
            product(d_q[2 * n], d_q[2 * n + 1], a, b);
            product(read[2 * n], read[2 * n + 1], below, b);
        }
    }
    // what goes to after it
    for (u32 p = 3; p > piece; p--) {
        slot = passing_slot(passing, p, piece) + c0;
        sums_of_columns(d_k, shared + KdaGradientShared::until_end, i0, c0, lane, [&](u32 n, float2 sum) {
            for (u32 between = piece + 1; between <= p; between++) {
                float2 by = *(const float2*)(w + between * KW + n * 8 + 2 * pair);
                sum.x *= by.x, sum.y *= by.y;
            }
            if (group == 0) *(float2*)(slot + n * 8 + 2 * pair) = sum;
        });
        Operand a, below, b;
        scale_channels(d_k, w + p * KW, pair);
        load_a_transposed<C>(a, m_tile, p * 16, i0, lane);
        load_a_transposed<C>(below, n_tile, p * 16, i0, lane);
        UNROLL for (u32 n = 0; n < N; n++) {
            load_b_transposed<KW>(b, shared + KdaGradientShared::queries, p * 16, c0 + n * 16, lane);
            product(d_k[2 * n], d_k[2 * n + 1], a, b);
            load_b_transposed<KW>(b, shared + KdaGradientShared::keys, p * 16, c0 + n * 16, lane);
            product(d_k[2 * n], d_k[2 * n + 1], below, b);
        }
    }
    block_sync(); // the tiles are read

    float* staged = (float*)(shared + KdaGradientShared::staged + warp * KdaGradientShared::staged_bytes);
    UNROLL for (u32 n = 0; n < 2 * N; n++) UNROLL for (u32 half = 0; half < 2; half++) {
        float* to = staged + (half * 8 + group) * KDA_STAGED_ROW + n * 8 + 2 * pair;
        const u32 ROWS = KDA_PIECE * KDA_STAGED_ROW;
        *(float2*)to = make_float2(d_q[n][2 * half], d_q[n][2 * half + 1]);
        *(float2*)(to + ROWS) = make_float2(read[n][2 * half], read[n][2 * half + 1]);
        *(float2*)(to + 2 * ROWS) = make_float2(d_k[n][2 * half], d_k[n][2 * half + 1]);
    }
    warp_sync();
    u64 row_elements = (u64)args.heads * KW, to = (row + i0) * row_elements + s.head * KW + c0;
    for (u32 first = lane; first < KDA_HALF; first += 32) {
        u32 channel = c0 + first;
        float whole = load_constant(args.decays + place * KW + channel) * states[channel];
        for (u32 p = piece + 1; p < 4; p++) whole += passing_slot(passing, p, p)[channel];
        for (u32 p = 0; p < piece; p++) whole += passing_slot(passing, piece, p)[channel];
        float a[KDA_PIECE];
        piece_decays(a, g + channel, args.g_row, here);
        finish_channel(args, shared, staged + first, a, piece, channel, whole, to + first, row_elements, here);
    }
}
#endif // KDA_GRADIENTS
