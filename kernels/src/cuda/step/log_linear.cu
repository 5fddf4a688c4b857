// One token of each sequence of a batch through a log-linear mixer (arXiv 2506.04761): of every level in use
// S ← e^g S − β k (e^g Sᵀk)ᵀ (of Mamba2 S ← e^g S), of level 0 S = β k vᵀ or B (dt x)ᵀ; o = scale · Σ λ_l S_lᵀq, of Mamba2 + D x.
// What `step_recurrent` does for one state, level after level.

#ifdef LOG_LINEAR
struct LogLinearArguments {
    const u16 *x, *b, *a, *l; // q | k | v; β; a; λ [heads, all levels] before L and softplus. Mamba2: x | B | C; none; dt; λ
    const float *a_log, *dt_bias, *skip, *scales; // [heads] each; L [heads, all levels]
    const u32* positions;     // [B]
    float* state;             // [levels, B, heads, KW, V]
    u16* out;                 // [B, heads, V]
    u64 x_row, b_row, a_row, l_row, level_size;
    u32 heads, key_heads, value_width, levels, all_levels;
    float largest_beta, scale, epsilon;
};

KERNEL(step_log_linear, LogLinearArguments, RECURRENT_THREADS)
{
    float* shared = (float*)shared_memory();
    u32 thread = thread_index(), warp = thread / 32, lane = thread % 32, group = thread / LANES;
    u32 batch = block_index_y() / args.heads, head = block_index_y() % args.heads, key_head = head / (args.heads / args.key_heads);
    u32 column = block_index() * COLUMNS + thread % LANES * 4, levels = args.levels;
    u32 position = load_constant(args.positions + batch), merged = position > 0 ? level_of_merged(position, levels) : 0;
    float* state = args.state + (u64)block_index_y() * KW * args.value_width + column;
    const u16* x = args.x + batch * args.x_row;
    u32 keys = args.key_heads * KW, values = args.heads * args.value_width;
    float *q = shared + RecurrentShared::vectors, *k = q + KW, *lambdas = k + KW;
    if (warp < 2) { // q or C, then k or B
        u32 at = DELTA ? warp * keys + key_head * KW : values + (1 - warp) * KW;
        put_vector(warp == 0 ? q : k, x + at, DELTA, args.epsilon, warp == 0 ? args.scale : 1.f, lane);
    }
    if (thread < levels) {
        float raw = bf16_low(load_constant(args.l + batch * args.l_row + head * args.all_levels + thread));
        lambdas[thread] = softplus(raw * load_constant(args.scales + head * args.all_levels + thread));
    }
    float dt = softplus(bf16_low(load_constant(args.a + batch * args.a_row + head)) + load_constant(args.dt_bias + head));
    float decay = exp_fast(-exp_fast(load_constant(args.a_log + head)) * dt);
    float beta = DELTA ? args.largest_beta * sigmoid(bf16_low(load_constant(args.b + batch * args.b_row + head))) : dt;
    float4 v = four_values(x + (DELTA ? 2 * keys : 0) + head * args.value_width + column), read = make_float4(0.f, 0.f, 0.f, 0.f);
    block_sync();

    u32 sums_made = 0;
    float4 s[ROWS];
    auto add_level = [&](u32 level) {
        const float* from = state + level * args.level_size;
        UNROLL for (u32 r = 0; r < ROWS; r++) add_product(s[r], *(const float4*)(from + (u64)(group + GROUPS * r) * args.value_width), 1.f);
    };
    auto empty = [&]() { UNROLL for (u32 r = 0; r < ROWS; r++) s[r] = make_float4(0.f, 0.f, 0.f, 0.f); };
    auto read_and_keep = [&](u32 level) {
        float* to = state + level * args.level_size;
        UNROLL for (u32 r = 0; r < ROWS; r++) {
            add_product(read, s[r], q[group + GROUPS * r] * lambdas[level]);
            *(float4*)(to + (u64)(group + GROUPS * r) * args.value_width) = s[r];
        }
    };
    auto pass = [&](u32 level) {
        float4 kept = make_float4(0.f, 0.f, 0.f, 0.f);
        if (DELTA) {
            UNROLL for (u32 r = 0; r < ROWS; r++) add_product(kept, s[r], k[group + GROUPS * r]);
            kept = sum_of_groups(kept);
            float4* sums = (float4*)(shared + RecurrentShared::sums) + sums_made % 2 * (4 * LANES);
            if (lane < LANES) sums[warp * LANES + lane] = kept;
            block_sync();
            kept = make_float4(0.f, 0.f, 0.f, 0.f);
            UNROLL for (u32 w = 0; w < 4; w++) add_product(kept, sums[w * LANES + thread % LANES], -beta * decay);
            sums_made++;
        }
        UNROLL for (u32 r = 0; r < ROWS; r++) {
            float key = DELTA ? k[group + GROUPS * r] : 0.f;
            s[r].x = decay * s[r].x + key * kept.x, s[r].y = decay * s[r].y + key * kept.y;
            s[r].z = decay * s[r].z + key * kept.z, s[r].w = decay * s[r].w + key * kept.w;
        }
        read_and_keep(level);
    };
    if (position > 0) {
        for (u32 level = 1; level < levels; level++) {
            if (!level_in_use(level, position - 1, levels) || level_merges(level, merged, levels)) continue;
            empty(), add_level(level), pass(level);
        }
        empty();
        for (u32 level = 0; level < levels; level++)
            if (level_in_use(level, position - 1, levels) && level_merges(level, merged, levels)) add_level(level);
        pass(merged);
    }
    empty();
    UNROLL for (u32 r = 0; r < ROWS; r++) add_product(s[r], v, beta * k[group + GROUPS * r]);
    read_and_keep(0);

    read = sum_of_groups(read);
    float4* sums = (float4*)(shared + RecurrentShared::sums) + sums_made % 2 * (4 * LANES);
    if (lane < LANES) sums[warp * LANES + lane] = read;
    block_sync();
    if (group == 0) {
        float4 o = make_float4(0.f, 0.f, 0.f, 0.f);
        UNROLL for (u32 w = 0; w < 4; w++) add_product(o, sums[w * LANES + thread % LANES], 1.f);
        if (!DELTA) add_product(o, v, load_constant(args.skip + head));
        *(uint2*)(args.out + (u64)block_index_y() * args.value_width + column) = make_uint2(bf16_pair(o.x, o.y), bf16_pair(o.z, o.w));
    }
}
#endif // LOG_LINEAR
