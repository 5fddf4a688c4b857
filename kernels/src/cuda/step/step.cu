// One token of each sequence of a batch through what has a state, bound by the bytes of the state, read and written once.
//
// step_recurrent: S ← e^g S, then of the delta rule S ← S + β k (v − Sᵀk)ᵀ for each of the token's steps (DELTA 1), of
// Mamba2 S ← S + B (dt x)ᵀ (DELTA 0); o = scale · Sᵀq, or SᵀC + D x. A block owns COLUMNS columns of one head's state
// [KW, V] and holds them in registers: a thread four columns of every GROUPS-th row, asked for before anything else. The
// query meets the state before the last update, as S'ᵀq = d Sᵀq + (k·q) u, so that each step needs one sum over the block.

#ifdef RECURRENT
struct RecurrentArguments {
    const u16 *x, *b, *a;     // q | k of each step | v of each step; β of each step; a. Mamba2: x | B | C; none; dt
    const float *a_log, *dt_bias, *skip; // [heads]; of the delta rule a_log is null where there is no decay
    float* state;             // [B, heads, KW, V]
    u16* out;                 // [B, heads, V]
    u64 x_row, b_row, a_row;
    u32 heads, key_heads, value_width, steps;
    float largest_beta, scale, epsilon;
};

const u32 RECURRENT_THREADS = 128, LANES = COLUMNS / 4, GROUPS = RECURRENT_THREADS / LANES, ROWS = KW / GROUPS;

// shared: q, k of each step [1 + steps, KW]; the sums of the warps [2, 4 warps, 2, COLUMNS]
struct RecurrentShared {
    static const u32 sums = 0, vectors = 2 * 4 * 2 * COLUMNS; // floats
};

// A vector of KW elements by one warp, of length 1 if it is to be normed, times a factor.
DEVICE void put_vector(float* to, const u16* from, bool normed, float epsilon, float factor, u32 lane)
{
    float x[KW / 32], squares = 0.f;
    UNROLL for (u32 i = 0; i < KW / 32; i++) {
        x[i] = bf16_low(load_constant(from + i * 32 + lane));
        squares += x[i] * x[i];
    }
    if (normed) factor *= square_root_reciprocal(warp_sum(squares) + epsilon);
    UNROLL for (u32 i = 0; i < KW / 32; i++) to[i * 32 + lane] = x[i] * factor;
}

DEVICE float4 four_values(const u16* p)
{
    uint2 words = load_constant((const uint2*)p);
    return make_float4(bf16_low(words.x), bf16_high(words.x), bf16_low(words.y), bf16_high(words.y));
}
DEVICE void add_product(float4& to, const float4& x, float y) { to.x += x.x * y, to.y += x.y * y, to.z += x.z * y, to.w += x.w * y; }

// Over the lanes of a warp that hold the same columns.
DEVICE float4 sum_of_groups(float4 x)
{
    UNROLL for (u32 mask = LANES; mask < 32; mask *= 2) {
        x.x += shuffle_xor(x.x, mask), x.y += shuffle_xor(x.y, mask);
        x.z += shuffle_xor(x.z, mask), x.w += shuffle_xor(x.w, mask);
    }
    return x;
}

#if !defined(CHANNEL_DECAY) && !defined(LOG_LINEAR)
KERNEL(step_recurrent, RecurrentArguments, RECURRENT_THREADS)
{
    float* shared = (float*)shared_memory();
    u32 thread = thread_index(), warp = thread / 32, lane = thread % 32, group = thread / LANES;
    u32 batch = block_index_y() / args.heads, head = block_index_y() % args.heads, key_head = head / (args.heads / args.key_heads);
    u32 column = block_index() * COLUMNS + thread % LANES * 4;
    float* state = args.state + (u64)block_index_y() * KW * args.value_width + column;
    float4 s[ROWS];
    UNROLL for (u32 r = 0; r < ROWS; r++) s[r] = *(const float4*)(state + (u64)(group + GROUPS * r) * args.value_width);

    const u16* x = args.x + batch * args.x_row;
    u32 keys = args.key_heads * KW, values = args.heads * args.value_width, steps = DELTA ? args.steps : 1;
    float* vectors = shared + RecurrentShared::vectors;
    for (u32 i = warp; i < 1 + steps; i += 4) { // q or C, then k or B
        u32 at = DELTA ? i * keys + key_head * KW : values + (1 - i) * KW;
        put_vector(vectors + i * KW, x + at, DELTA, args.epsilon, i == 0 ? args.scale : 1.f, lane);
    }
    float decay = 1.f, dt = 1.f;
    if (args.a_log != nullptr) {
        dt = softplus(bf16_low(load_constant(args.a + batch * args.a_row + head)) + load_constant(args.dt_bias + head));
        decay = exp_fast(-exp_fast(load_constant(args.a_log + head)) * dt);
    }
    block_sync();
    const float *q = vectors, *last = vectors + steps * KW;
    float both = 0.f; // k·q
    UNROLL for (u32 i = 0; i < KW / 32; i++) both += q[i * 32 + lane] * last[i * 32 + lane];
    both = warp_sum(both);

    for (u32 j = 0; j < steps; j++) {
        const float* k = vectors + (1 + j) * KW;
        float4 v = four_values(x + (DELTA ? (1 + steps) * keys + j * values : 0) + head * args.value_width + column);
        float beta = DELTA ? args.largest_beta * sigmoid(bf16_low(load_constant(args.b + batch * args.b_row + j * args.heads + head))) : dt;
        float4 kept = make_float4(0.f, 0.f, 0.f, 0.f), read = kept;
        UNROLL for (u32 r = 0; r < ROWS; r++) {
            if (DELTA) add_product(kept, s[r], k[group + GROUPS * r]);
            add_product(read, s[r], q[group + GROUPS * r]);
        }
        float4* sums = (float4*)(shared + RecurrentShared::sums) + j % 2 * (4 * 2 * LANES);
        if (DELTA) kept = sum_of_groups(kept);
        read = sum_of_groups(read);
        if (lane < LANES) {
            if (DELTA) sums[(warp * 2) * LANES + lane] = kept;
            sums[(warp * 2 + 1) * LANES + lane] = read;
        }
        block_sync();
        kept = make_float4(0.f, 0.f, 0.f, 0.f), read = kept;
        UNROLL for (u32 w = 0; w < 4; w++) {
            if (DELTA) add_product(kept, sums[(w * 2) * LANES + thread % LANES], 1.f);
            add_product(read, sums[(w * 2 + 1) * LANES + thread % LANES], 1.f);
        }
        float4 u = v;
        add_product(u, kept, -decay);
        u.x *= beta, u.y *= beta, u.z *= beta, u.w *= beta;
        UNROLL for (u32 r = 0; r < ROWS; r++) {
            float key = k[group + GROUPS * r];
            s[r].x = decay * s[r].x + key * u.x, s[r].y = decay * s[r].y + key * u.y;
            s[r].z = decay * s[r].z + key * u.z, s[r].w = decay * s[r].w + key * u.w;
        }
        if (j + 1 == steps && group == 0) {
            float4 o = make_float4(0.f, 0.f, 0.f, 0.f);
            add_product(o, read, decay);
            add_product(o, u, both);
            if (!DELTA && args.skip != nullptr) add_product(o, v, load_constant(args.skip + head));
            *(uint2*)(args.out + (u64)block_index_y() * args.value_width + column) = make_uint2(bf16_pair(o.x, o.y), bf16_pair(o.z, o.w));
        }
        decay = 1.f; // once a token
    }
    UNROLL for (u32 r = 0; r < ROWS; r++) *(float4*)(state + (u64)(group + GROUPS * r) * args.value_width) = s[r];
}
#endif // the plain forms
#endif // RECURRENT

// The short convolution of four taps and its SiLU for one position of each sequence. The ring holds the last four inputs
// of each channel, that of position p in row p % 4. A thread owns eight channels of several sequences.
#ifdef CONVOLUTION
struct ConvStepArguments {
    const u16* x;             // [B, C], rows `x_row` apart
    const float *weight, *bias; // [C, 4]; [C] or null
    u16* ring;                // [B, 4, C]
    const u32* positions;     // [B]
    u16* y;                   // [B, C]
    u64 x_row;
    u32 batch, channels;
};

const u32 CONV_STEP_THREADS = 128;

KERNEL(step_convolution, ConvStepArguments, CONV_STEP_THREADS)
{
    u32 channel = (block_index() * CONV_STEP_THREADS + thread_index()) * 8, stride = args.channels;
    if (channel >= args.channels) return;
    float4 taps[8];
    UNROLL for (u32 i = 0; i < 8; i++) taps[i] = load_constant((const float4*)args.weight + channel + i);
    Eight bias = args.bias != nullptr ? load_eight_f32(args.bias + channel) : filled(0.f);
    u32 sequences = (args.batch + CONV_ROWS - 1) / CONV_ROWS; // blocks in y
    for (u32 b = block_index_y(); b < args.batch; b += sequences) {
        u32 position = load_constant(args.positions + b);
        u16* ring = args.ring + (u64)b * 4 * stride + channel;
        Eight now = load_eight(args.x + b * args.x_row + channel), past[3], y;
        UNROLL for (u32 j = 0; j < 3; j++) // positions before the first count as zeros, whatever the ring holds
            past[j] = position + j >= 3 ? load_eight_changing(ring + ((position + 1 + j) & 3) * stride) : filled(0.f);
        UNROLL for (u32 i = 0; i < 8; i++)
            y.x[i] = silu(bias.x[i] + taps[i].x * past[0].x[i] + taps[i].y * past[1].x[i] + taps[i].z * past[2].x[i] + taps[i].w * now.x[i]);
        store_eight(ring + (position & 3) * stride, now);
        store_eight(args.y + (u64)b * stride + channel, y);
    }
}
#endif // CONVOLUTION
