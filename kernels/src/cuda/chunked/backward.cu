// The walk back: chunks from the last to the first, the gradient of the state in registers; a block per head and slice of
// VB value columns, a warp per 16 of them, everything transposed as in the walk forward.
//
// With Z the gradient that arrives at the state after the chunk, and dO that at the output:
//     dΔᵀ = dOᵀ scores + e^{ℓ_C − ℓ} ⊙ (Zᵀ Kᵀ)      dEᵀ = dΔᵀ inverse = dVᵀ
//     dSᵀ = e^{ℓ_C} Zᵀ − (e^ℓ ⊙ dEᵀ) K + (scale e^ℓ ⊙ dOᵀ) Q
// (DELTA 0: dV = dΔ, and the middle term of dS is not there.)
//
// With a decay for each channel of the keys (CHANNELS 1, of `kda_prepare`) what the decays do is in q, k and a third matrix,
// as in the walk forward:
//     dΔᵀ = dOᵀ scores + Zᵀ (e^{ℓ_C − ℓ} ⊙ k)ᵀ      dSᵀ = e^{ℓ_C} ⊙ Zᵀ − dEᵀ (e^ℓ ⊙ k) + dOᵀ (scale e^ℓ ⊙ q)

#ifdef BACKWARD
#ifndef CHANNELS
#define CHANNELS 0
#endif
struct BackwardArguments {
    const Number *q, *k;
    const Number *inverse, *scores;
    const float* decays;
    const Number* d_out;      // [B, T, heads, V], rows `d_row` apart
    const float* d_state_after; // [B, heads, KW, V], or null: zeros
    float* d_state;           // the same
    Number* d_values;         // [B, T, heads, V]
    Number* d_states;         // Zᵀ of each chunk, [B, heads, chunks, V, KW]
#if CHANNELS
    const Number* k_after;    // as k
#endif
    u64 q_row, k_row, d_row;
    u32 tokens, heads, key_heads, value_width;
    float scale;
};

const u32 BACKWARD_WALKERS = VB / 16, BACKWARD_THREADS = 32 * (BACKWARD_WALKERS + 1);

struct BackwardStage {
    static const u32 k = 0, q = k + tile_bytes(C, KW), scores = q + tile_bytes(C, KW), inverse = scores + tile_bytes(C, C),
                     d_out = inverse + (DELTA ? tile_bytes(C, C) : 0), decays = d_out + tile_bytes(C, VB), decay_floats = CHANNELS ? KW : 2 * C,
                     k_after = decays + decay_floats * 4, end = k_after + (CHANNELS ? tile_bytes(C, KW) : 0);
};
struct BackwardShared {
    static const u32 gates = STAGES * BackwardStage::end, end = gates + 2 * STAGES * 8;
};
struct BackwardGates {
    Gate full[STAGES], empty[STAGES];
};

DEVICE void backward_copy(const BackwardArguments& args, u8* shared, BackwardGates* gates, u32 lane)
{
    u32 chunks = (args.tokens + C - 1) / C;
    Sequence s = sequence_of(block_index_y(), args.heads, args.key_heads);
    for (u32 index = 0; index < chunks; index++) {
        u32 stage = index % STAGES, round = index / STAGES, chunk = chunks - 1 - index;
        if (round > 0) gate_wait(&gates->empty[stage], (round - 1) & 1);
        u8* to = shared + stage * BackwardStage::end;
        u32 there = smaller(C, args.tokens - chunk * C);
        u64 row = (u64)s.batch * args.tokens + chunk * C, place = (u64)block_index_y() * chunks + chunk;
#if CHANNELS
        copy_numbers<C, KW, 32>(to + BackwardStage::k_after, args.k_after + row * args.k_row + s.key_head * KW, args.k_row, there, lane);
#endif
        copy_numbers<C, KW, 32>(to + BackwardStage::k, args.k + row * args.k_row + s.key_head * KW, args.k_row, there, lane);
        copy_numbers<C, VB, 32>(to + BackwardStage::d_out, args.d_out + row * args.d_row + s.head * args.value_width + block_index() * VB,
                      args.d_row, there, lane);
        for (u32 piece = lane; piece < BackwardStage::decay_floats / 4; piece += 32)
            copy_floats(to + BackwardStage::decays + piece * 16, args.decays + place * (CHANNELS ? KW : 3 * C) + piece * 4);
        copy_numbers<C, C, 32, true>(to + BackwardStage::scores, args.scores + place * C * C, C, C, lane);
        if (DELTA) copy_numbers<C, C, 32, true>(to + BackwardStage::inverse, args.inverse + place * C * C, C, C, lane);
        copy_numbers<C, KW, 32>(to + BackwardStage::q, args.q + row * args.q_row + s.key_head * KW, args.q_row, there, lane);
        copied(&gates->full[stage]);
    }
}

DEVICE void backward_walk(const BackwardArguments& args, u8* shared, BackwardGates* gates, u32 walker, u32 lane)
{
    u32 chunks = (args.tokens + C - 1) / C, group = lane / 4, pair = lane % 4;
    Sequence sequence = sequence_of(block_index_y(), args.heads, args.key_heads);
    u64 row_elements = (u64)args.heads * args.value_width;
    u32 column = block_index() * VB + walker * 16;
    float z[KW / 8][4]; // Zᵀ: rows are 16 value columns
    u64 corner = (u64)block_index_y() * KW * args.value_width + column + group;
    UNROLL for (u32 n = 0; n < KW / 8; n++) UNROLL for (u32 i = 0; i < 4; i++) {
        u64 at = corner + (u64)(n * 8 + 2 * pair + i % 2) * args.value_width + i / 2 * 8;
        z[n][i] = args.d_state_after != nullptr ? args.d_state_after[at] : 0.f;
    }
    for (u32 index = 0; index < chunks; index++) {
        u32 stage = index % STAGES, chunk = chunks - 1 - index;
        u8* from = shared + stage * BackwardStage::end;
        const float* decays = (const float*)(from + BackwardStage::decays);
        u64 place = (u64)block_index_y() * chunks + chunk;
        gate_wait(&gates->full[stage], index / STAGES & 1);
        auto operand = [&](u32 step) { // Zᵀ
            Operand a;
            as_operand(a, z[2 * step], z[2 * step + 1]);
            return a;
        };
        UNROLL for (u32 step = 0; step < KW / 16; step++)
            store_state(args.d_states + (place * args.value_width + column) * KW + step * 16, z[2 * step], z[2 * step + 1], lane);
        float e[C / 8][4]; // Zᵀ Kᵀ, dΔᵀ, dEᵀ
        set_zero(e);
        products_of<false, ALL_PIECES, KW, KW / 16>(e, from + (CHANNELS ? BackwardStage::k_after : BackwardStage::k), lane, operand);
        if (!CHANNELS) UNROLL for (u32 n = 0; n < C / 8; n++) {
            float2 kept = *(const float2*)(decays + C + n * 8 + 2 * pair);
            e[n][0] *= kept.x, e[n][2] *= kept.x;
            e[n][1] *= kept.y, e[n][3] *= kept.y;
        }
        Operand d_out[C / 16], d_values[C / 16];
        UNROLL for (u32 n = 0; n < C / 16; n++) load_a_transposed<VB>(d_out[n], from + BackwardStage::d_out, n * 16, walker * 16, lane);
        products<true, LOWER_PIECES, C>(e, d_out, from + BackwardStage::scores, lane);
        UNROLL for (u32 n = 0; n < C / 16; n++) as_operand(d_values[n], e[2 * n], e[2 * n + 1]);
        if (DELTA) {
            set_zero(e);
            products<true, LOWER_PIECES, C>(e, d_values, from + BackwardStage::inverse, lane);
            UNROLL for (u32 n = 0; n < C / 16; n++) as_operand(d_values[n], e[2 * n], e[2 * n + 1]);
        }
        u64 first = ((u64)sequence.batch * args.tokens + chunk * C) * row_elements + (u64)sequence.head * args.value_width + column;
        u32 there = smaller(C, args.tokens - chunk * C);
        UNROLL for (u32 n = 0; n < C / 16; n++)
            store_transposed(args.d_values + first + n * 16 * row_elements, row_elements, d_values[n],
                             there > n * 16 ? there - n * 16 : 0, lane);

        if (CHANNELS && PARTS > 1) warp_sync(); // what follows would be loaded before it: there are no registers for that
        float whole = CHANNELS ? 0.f : decays[C - 1];
        UNROLL for (u32 n = 0; n < KW / 8; n++) {
            float2 by = CHANNELS ? *(const float2*)(decays + n * 8 + 2 * pair) : make_float2(whole, whole);
            z[n][0] *= by.x, z[n][1] *= by.y, z[n][2] *= by.x, z[n][3] *= by.y;
        }
        if (DELTA) {
            UNROLL for (u32 step = 0; step < C / 16; step++) {
                if (CHANNELS) negate(d_values[step]);
                else scale_columns(d_values[step], d_values[step], decays + step * 16, -1.f, pair);
            }
            products<true, ALL_PIECES, KW>(z, d_values, from + BackwardStage::k, lane);
        }
        UNROLL for (u32 step = 0; step < C / 16; step++) {
            if (PARTS > 1) // there are no registers to keep them in
                load_a_transposed<VB>(d_out[step], from + BackwardStage::d_out, step * 16, walker * 16, lane);
            if (!CHANNELS) scale_columns(d_out[step], d_out[step], decays + step * 16, args.scale, pair);
        }
        products<true, ALL_PIECES, KW>(z, d_out, from + BackwardStage::q, lane);
        warp_sync();
        if (lane == 0) gate_arrive(&gates->empty[stage]);
    }
    if (args.d_state != nullptr)
        UNROLL for (u32 n = 0; n < KW / 8; n++) UNROLL for (u32 i = 0; i < 4; i++)
            args.d_state[corner + (u64)(n * 8 + 2 * pair + i % 2) * args.value_width + i / 2 * 8] = z[n][i];
}

KERNEL(chunked_backward, BackwardArguments, BACKWARD_THREADS)
{
    u8* shared = shared_memory();
    BackwardGates* gates = (BackwardGates*)(shared + BackwardShared::gates);
    u32 warp = thread_index() / 32, lane = thread_index() % 32;
    if (thread_index() == 0) {
        for (u32 i = 0; i < STAGES; i++) gate_init(&gates->full[i], 32), gate_init(&gates->empty[i], BACKWARD_WALKERS);
        gates_ready();
    }
    block_sync();
    if (warp < BACKWARD_WALKERS)
        backward_walk(args, shared, gates, warp, lane);
    else
        backward_copy(args, shared, gates, lane);
}
#endif // BACKWARD
