// The walk over the chunks of a sequence, the state in registers; a block per head and slice of VB value columns.
//
// Everything is transposed so that the result of one product is, in registers, the left operand of the next: a warp owns
// 16 columns of V from beginning to end and meets no other warp but the one that writes its output.
//     Eᵀ = Vᵀ − e^ℓ ⊙ (Sᵀ Kᵀ)      Δᵀ = Eᵀ inverseᵀ      S'ᵀ = e^{ℓ_C} Sᵀ + (e^{ℓ_C − ℓ} ⊙ Δᵀ) K
//     Oᵀ = scale · e^ℓ ⊙ (Sᵀ Qᵀ) + Δᵀ scoresᵀ
// The first line is one warp's, the second that of another, which takes Sᵀ and Δᵀ from shared memory in the order of the
// first one's registers; a third kind of warp copies the next chunks. (DELTA 0: Δ = V.)

// With a decay for each channel of the keys (CHANNELS 1, of `kda_prepare`) what the decays do is in q, k and a third matrix:
//     Eᵀ = Vᵀ − Sᵀ Kᵀ      S'ᵀ = e^{ℓ_C} ⊙ Sᵀ + Δᵀ (e^{ℓ_C − ℓ} ⊙ k)      Oᵀ = Sᵀ Qᵀ + Δᵀ scoresᵀ
//
// Of a log-linear mixer (LEVELS 1, see `log_linear.cu`) a walk goes over 2 SPAN chunks alone: it writes in the first half, and in
// the second, where V is taken as zeros, it reads what was written, weighed by λ of one level.

#ifdef FORWARD
#ifndef CHANNELS
#define CHANNELS 0
#endif
#ifndef LEVELS
#define LEVELS 0
#endif
struct ForwardArguments {
    const Number *q, *k, *v;  // [B, T, key heads, KW] twice, [B, T, heads, V], rows `*_row` apart
    const Number *inverse, *scores;
    const float* decays;
    const float* state;       // [B, heads, KW, V], or null: zeros
    float* state_after;       // the same, or null
    Number* out;              // [B, T, heads, V]
    Number* corrections;      // Δ, the same, or null: nothing is kept for a backward pass
    Number* states;           // Sᵀ before each chunk, [B, heads, chunks, V, KW], or null
#if CHANNELS
    const Number* k_after;    // as k
#endif
#if LEVELS
    const float* lambda;      // [B, T, heads, levels]
    float* sums;              // [B, T, heads, V], added to
#endif
    u64 q_row, k_row, v_row;
    u32 tokens, heads, key_heads, value_width;
    float scale;
#if LEVELS
    u32 span, level, levels, adds; // whether the state after the last chunk is added to what is there
#endif
};

// What a block walks over, and which of its columns of V it has.
struct ForwardWalk {
    u32 begin, count, columns; // chunks; the first column
};
DEVICE ForwardWalk forward_walk_of(const ForwardArguments& args)
{
    u32 chunks = (args.tokens + C - 1) / C;
#if LEVELS
    u32 pieces = args.value_width / VB, begin = block_index() / pieces * 2 * args.span;
    ForwardWalk w = {begin, smaller(2 * args.span, chunks - begin), block_index() % pieces * VB};
#else
    ForwardWalk w = {0, chunks, block_index() * VB};
#endif
    return w;
}

const u32 FORWARD_WALKERS = VB / 16, FORWARD_THREADS = 32 * (2 * FORWARD_WALKERS + 1);

// One chunk in shared memory.
struct ForwardStage {
    static const u32 k = 0, q = k + tile_bytes(C, KW), scores = q + tile_bytes(C, KW), inverse = scores + tile_bytes(C, C),
                     v = inverse + (DELTA ? tile_bytes(C, C) : 0), decays = v + tile_bytes(C, VB), decay_floats = CHANNELS ? KW : 2 * C,
                     k_after = decays + decay_floats * 4, end = k_after + (CHANNELS ? tile_bytes(C, KW) : 0);
};
// What a walker hands over of one chunk: Sᵀ and Δᵀ as operands.
struct Handover {
    static const u32 state = 0, delta = KW / 16 * PARTS * 512, end = delta + C / 16 * PARTS * 512;
};
struct ForwardShared {
    static const u32 stages = 0, handovers = stages + STAGES * ForwardStage::end, gates = handovers + FORWARD_WALKERS * 2 * Handover::end,
                     end = gates + (2 * STAGES + 4 * FORWARD_WALKERS) * 8;
};
struct ForwardGates {
    Gate full[STAGES], empty[STAGES];
    Gate given[FORWARD_WALKERS][2], taken[FORWARD_WALKERS][2];
};

// A lane's part of operand number i; `at` is the lane's place.
DEVICE void hand_over(u8* at, u32 i, const Operand& a)
{
    UNROLL for (u32 part = 0; part < PARTS; part++)
        *(uint4*)(at + (i * PARTS + part) * 512) = make_uint4(a.of[part][0], a.of[part][1], a.of[part][2], a.of[part][3]);
}
DEVICE Operand handed_over(const u8* at, u32 i)
{
    Operand a;
    UNROLL for (u32 part = 0; part < PARTS; part++) {
        uint4 given = *(const uint4*)(at + (i * PARTS + part) * 512);
        a.of[part][0] = given.x, a.of[part][1] = given.y, a.of[part][2] = given.z, a.of[part][3] = given.w;
    }
    return a;
}

DEVICE void forward_copy(const ForwardArguments& args, u8* shared, ForwardGates* gates, u32 lane)
{
    u32 chunks = (args.tokens + C - 1) / C;
    ForwardWalk w = forward_walk_of(args);
    Sequence s = sequence_of(block_index_y(), args.heads, args.key_heads);
    for (u32 i = 0; i < w.count; i++) {
        u32 chunk = w.begin + i, stage = i % STAGES, round = i / STAGES;
        if (round > 0) gate_wait(&gates->empty[stage], (round - 1) & 1);
        u8* to = shared + ForwardShared::stages + stage * ForwardStage::end;
        u32 there = smaller(C, args.tokens - chunk * C);
        u64 row = (u64)s.batch * args.tokens + chunk * C, place = (u64)block_index_y() * chunks + chunk;
        copy_numbers<C, KW, 32>(to + ForwardStage::k, args.k + row * args.k_row + s.key_head * KW, args.k_row, there, lane);
        copy_numbers<C, VB, 32>(to + ForwardStage::v, args.v + row * args.v_row + s.head * args.value_width + w.columns, args.v_row, there, lane);
        for (u32 piece = lane; piece < ForwardStage::decay_floats / 4; piece += 32)
            copy_floats(to + ForwardStage::decays + piece * 16, args.decays + place * (CHANNELS ? KW : 3 * C) + piece * 4);
#if CHANNELS
        copy_numbers<C, KW, 32>(to + ForwardStage::k_after, args.k_after + row * args.k_row + s.key_head * KW, args.k_row, there, lane);
#endif
        if (DELTA) copy_numbers<C, C, 32, true>(to + ForwardStage::inverse, args.inverse + place * C * C, C, C, lane);
        copy_numbers<C, KW, 32>(to + ForwardStage::q, args.q + row * args.q_row + s.key_head * KW, args.q_row, there, lane);
        copy_numbers<C, C, 32, true>(to + ForwardStage::scores, args.scores + place * C * C, C, C, lane);
        copied(&gates->full[stage]);
    }
}

DEVICE void forward_walk(const ForwardArguments& args, u8* shared, ForwardGates* gates, u32 walker, u32 lane)
{
    u32 group = lane / 4, pair = lane % 4;
    ForwardWalk w = forward_walk_of(args);
    float s[KW / 8][4]; // Sᵀ: rows are 16 value columns
    u64 corner = (u64)block_index_y() * KW * args.value_width + w.columns + walker * 16 + group;
    UNROLL for (u32 n = 0; n < KW / 8; n++) UNROLL for (u32 i = 0; i < 4; i++) {
        u64 at = corner + (u64)(n * 8 + 2 * pair + i % 2) * args.value_width + i / 2 * 8;
        s[n][i] = args.state != nullptr ? args.state[at] : 0.f;
    }
    for (u32 chunk = 0; chunk < w.count; chunk++) { // of the walk
        u32 stage = chunk % STAGES;
        u8* from = shared + ForwardShared::stages + stage * ForwardStage::end;
        u8* handover = shared + ForwardShared::handovers + (walker * 2 + chunk % 2) * Handover::end + lane * 16;
        const float* decays = (const float*)(from + ForwardStage::decays);
        gate_wait(&gates->full[stage], chunk / STAGES & 1);
        if (chunk >= 2) gate_wait(&gates->taken[walker][chunk % 2], (chunk / 2 - 1) & 1);
#if LEVELS
        bool writes = chunk < args.span;
#else
        const bool writes = true;
#endif
        auto operand = [&](u32 step) { // Sᵀ
            Operand a;
            as_operand(a, s[2 * step], s[2 * step + 1]);
            return a;
        };
        UNROLL for (u32 step = 0; step < KW / 16; step++) hand_over(handover + Handover::state, step, operand(step));
        Operand delta[C / 16]; // Δᵀ
        if (DELTA) {
            float e[C / 8][4]; // Sᵀ Kᵀ, then Eᵀ
            set_zero(e);
            products_of<false, ALL_PIECES, KW, KW / 16>(e, from + ForwardStage::k, lane, operand);
            Operand errors[C / 16]; // Eᵀ
            UNROLL for (u32 n = 0; n < C / 16; n++) {
                Operand v;
                load_a_transposed<VB>(v, from + ForwardStage::v, n * 16, walker * 16, lane);
                UNROLL for (u32 half = 0; half < 2; half++) {
                    float2 decay = CHANNELS ? make_float2(1.f, 1.f) : *(const float2*)(decays + n * 16 + half * 8 + 2 * pair);
                    float(&x)[4] = e[2 * n + half];
                    UNROLL for (u32 i = 0; i < 2; i++) {
                        float2 value = writes ? numbers(v, 2 * half + i) : make_float2(0.f, 0.f);
                        x[2 * i] = value.x - decay.x * x[2 * i];
                        x[2 * i + 1] = value.y - decay.y * x[2 * i + 1];
                    }
                }
                as_operand(errors[n], e[2 * n], e[2 * n + 1]);
            }
            set_zero(e); // Δᵀ from here
            products<false, UPPER_PIECES, C>(e, errors, from + ForwardStage::inverse, lane);
            UNROLL for (u32 n = 0; n < C / 16; n++) as_operand(delta[n], e[2 * n], e[2 * n + 1]);
        } else {
            UNROLL for (u32 n = 0; n < C / 16; n++) load_a_transposed<VB>(delta[n], from + ForwardStage::v, n * 16, walker * 16, lane);
            if (!writes) UNROLL for (u32 n = 0; n < C / 16; n++) UNROLL for (u32 i = 0; i < 4; i++) set_numbers(delta[n], i, 0.f, 0.f);
        }
        UNROLL for (u32 n = 0; n < C / 16; n++) hand_over(handover + Handover::delta, n, delta[n]);
        warp_sync();
        if (lane == 0) gate_arrive(&gates->given[walker][chunk % 2]);

#if CHANNELS
        UNROLL for (u32 n = 0; n < KW / 8; n++) {
            float2 whole = *(const float2*)(decays + n * 8 + 2 * pair);
            s[n][0] *= whole.x, s[n][1] *= whole.y, s[n][2] *= whole.x, s[n][3] *= whole.y;
        }
        products<true, ALL_PIECES, KW>(s, delta, from + ForwardStage::k_after, lane);
#else
        float whole = decays[C - 1];
        UNROLL for (u32 n = 0; n < KW / 8; n++) UNROLL for (u32 i = 0; i < 4; i++) s[n][i] *= whole;
        UNROLL for (u32 step = 0; step < C / 16; step++) // e^{ℓ_C − ℓ} ⊙ Δᵀ
            scale_columns(delta[step], delta[step], decays + C + step * 16, 1.f, pair);
        products<true, ALL_PIECES, KW>(s, delta, from + ForwardStage::k, lane);
#endif
        warp_sync();
        if (lane == 0) gate_arrive(&gates->empty[stage]);
    }
#if LEVELS
    if (args.state_after != nullptr && (w.begin + w.count) * C >= args.tokens)
        UNROLL for (u32 n = 0; n < KW / 8; n++) UNROLL for (u32 i = 0; i < 4; i++) {
            float* to = args.state_after + corner + (u64)(n * 8 + 2 * pair + i % 2) * args.value_width + i / 2 * 8;
            *to = args.adds ? *to + s[n][i] : s[n][i];
        }
#else
    if (args.state_after != nullptr)
        UNROLL for (u32 n = 0; n < KW / 8; n++) UNROLL for (u32 i = 0; i < 4; i++)
            args.state_after[corner + (u64)(n * 8 + 2 * pair + i % 2) * args.value_width + i / 2 * 8] = s[n][i];
#endif
}

DEVICE void forward_output(const ForwardArguments& args, u8* shared, ForwardGates* gates, u32 walker, u32 lane)
{
    u32 chunks = (args.tokens + C - 1) / C, pair = lane % 4;
    ForwardWalk w = forward_walk_of(args);
    Sequence sequence = sequence_of(block_index_y(), args.heads, args.key_heads);
    u64 row_elements = (u64)args.heads * args.value_width;
    u32 column = w.columns + walker * 16;
    for (u32 chunk = 0; chunk < w.count; chunk++) { // of the walk
        u32 stage = chunk % STAGES;
        u8* from = shared + ForwardShared::stages + stage * ForwardStage::end;
        u8* handover = shared + ForwardShared::handovers + (walker * 2 + chunk % 2) * Handover::end + lane * 16;
        const float* decays = (const float*)(from + ForwardStage::decays);
        u64 place = (u64)block_index_y() * chunks + w.begin + chunk;
        gate_wait(&gates->full[stage], chunk / STAGES & 1);
        gate_wait(&gates->given[walker][chunk % 2], chunk / 2 & 1);
#if LEVELS
        if (chunk < args.span) { // nothing is read yet
            warp_sync();
            if (lane == 0) gate_arrive(&gates->taken[walker][chunk % 2]), gate_arrive(&gates->empty[stage]);
            continue;
        }
#endif
        float o[C / 8][4];
        set_zero(o);
        Operand operands[KW / 16]; // Sᵀ
        UNROLL for (u32 step = 0; step < KW / 16; step++) {
            operands[step] = handed_over(handover + Handover::state, step);
            if (args.states != nullptr)
                store_state(args.states + (place * args.value_width + column) * KW + step * 16, operands[step], lane);
        }
        products<false, ALL_PIECES, KW>(o, operands, from + ForwardStage::q, lane);
        if (!CHANNELS) UNROLL for (u32 n = 0; n < C / 8; n++) {
            float2 decay = *(const float2*)(decays + n * 8 + 2 * pair);
            o[n][0] *= args.scale * decay.x, o[n][2] *= args.scale * decay.x;
            o[n][1] *= args.scale * decay.y, o[n][3] *= args.scale * decay.y;
        }
        Operand delta[C / 16];
        UNROLL for (u32 n = 0; n < C / 16; n++) delta[n] = handed_over(handover + Handover::delta, n);
        products<false, UPPER_PIECES, C>(o, delta, from + ForwardStage::scores, lane);
        warp_sync();
        if (lane == 0) {
            gate_arrive(&gates->taken[walker][chunk % 2]);
            gate_arrive(&gates->empty[stage]);
        }
        u64 first = ((u64)sequence.batch * args.tokens + (w.begin + chunk) * C) * row_elements + (u64)sequence.head * args.value_width + column;
        u32 there = smaller(C, args.tokens - (w.begin + chunk) * C);
#if LEVELS
        const float* lambda = args.lambda + (((u64)sequence.batch * args.tokens + (w.begin + chunk) * C) * args.heads + sequence.head) * args.levels + args.level;
        UNROLL for (u32 n = 0; n < C / 8; n++) UNROLL for (u32 i = 0; i < 4; i++) {
            u32 at = n * 8 + 2 * pair + i % 2;
            if (at < there) args.sums[first + at * row_elements + lane / 4 + i / 2 * 8] += load_constant(lambda + (u64)at * args.heads * args.levels) * o[n][i];
        }
#else
        UNROLL for (u32 n = 0; n < C / 16; n++) {
            Operand a;
            as_operand(a, o[2 * n], o[2 * n + 1]);
            u32 rest = there > n * 16 ? there - n * 16 : 0;
            store_transposed(args.out + first + n * 16 * row_elements, row_elements, a, rest, lane);
            if (DELTA && args.corrections != nullptr)
                store_transposed(args.corrections + first + n * 16 * row_elements, row_elements, delta[n], rest, lane);
        }
#endif
    }
}

KERNEL(chunked_forward, ForwardArguments, FORWARD_THREADS)
{
    u8* shared = shared_memory();
    ForwardGates* gates = (ForwardGates*)(shared + ForwardShared::gates);
    u32 warp = thread_index() / 32, lane = thread_index() % 32;
    if (thread_index() == 0) {
        for (u32 i = 0; i < STAGES; i++) gate_init(&gates->full[i], 32), gate_init(&gates->empty[i], 2 * FORWARD_WALKERS);
        for (u32 w = 0; w < FORWARD_WALKERS; w++)
            for (u32 i = 0; i < 2; i++) gate_init(&gates->given[w][i], 1), gate_init(&gates->taken[w][i], 1);
        gates_ready();
    }
    block_sync();
    if (warp < FORWARD_WALKERS)
        forward_walk(args, shared, gates, warp, lane);
    else if (warp < 2 * FORWARD_WALKERS)
        forward_output(args, shared, gates, warp - FORWARD_WALKERS, lane);
    else
        forward_copy(args, shared, gates, lane);
}
#endif // FORWARD
