// Log-linear attention (arXiv 2506.04761): a state for each piece of a Fenwick tree over the past, each read with a scale λ
// of its own. States are Sᵀ [levels][rows = heads · V][K], K = 32 · N; a warp owns a row of all levels. They do not pass
// through the ring, as only some are in use and those that end at a step become one: the producer asks for them early.
//     of every level in use: S ← e^g S − β k (e^g Sᵀk)ᵀ (not of Mamba2); of level 0: S = β k vᵀ, or dt B xᵀ; o = Σ λ_l S_lᵀ q
// now: q, k, v, or x, B, C; z: b [heads], a [heads], or z, dt; then λ [heads, tiles] before L and softplus.

#if GENES & LEVELED
// As `load_lanes`, of what this launch overwrites.
DEVICE void take_lanes(Lanes<4>& v, const float* p) { float4 x = load_fresh((const float4*)p); v.at[0] = x.x, v.at[1] = x.y, v.at[2] = x.z, v.at[3] = x.w; }
DEVICE void take_lanes(Lanes<2>& v, const float* p) { float2 x = load_fresh((const float2*)p); v.at[0] = x.x, v.at[1] = x.y; }
DEVICE void take_lanes(Lanes<1>& v, const float* p) { v.at[0] = load_fresh(p); }

template <int N, bool DELTA_RULE>
APART void log_linear(const Phase& p, const Step& step, u32 reciprocal, u32 thread)
{
    const u32 K = 32 * N, AT_ONCE = 8;
    u32 lane = thread % 32, warp = thread / 32, tag = step.tag, position = step.position, levels = p.splits;
    u32 blocks = block_count(), me = block_index() + p.rotation, rows = p.groups;
    if (me >= blocks) me -= blocks;
    u32 begin = over_blocks(rows * me, blocks, reciprocal), end = over_blocks(rows * (me + 1), blocks, reciprocal); // the host checks the range
    u32 merged_level = position > 0 ? level_of_merged(position, levels) : 0;
    for (u32 row = begin + warp; row < end; row += WARPS) {
        u32 head = row / p.value_width, key_head = DELTA_RULE ? head * p.key_heads / p.heads : 0, keys = p.key_heads * K;
        u32 q_at = DELTA_RULE ? key_head * K + lane * N : rows + K + lane * N, k_at = DELTA_RULE ? keys + q_at : rows + lane * N;
        u32 v_at = DELTA_RULE ? 2 * keys + row : row, a_at = DELTA_RULE ? p.heads + head : rows + head;
        float* states = (float*)p.x + (u64)row * K;
        auto is_kept = [&](u32 level) { return level < levels && position > 0 && level_in_use(level, position - 1, levels); };
        Lanes<N> s[AT_ONCE];
        auto load = [&](u32 first) {
            UNROLL for (u32 j = 0; j < AT_ONCE; j++) {
                UNROLL for (u32 e = 0; e < N; e++) s[j].at[e] = 0.f;
                if (is_kept(first + j)) take_lanes(s[j], states + (u64)(first + j) * rows * K + lane * N);
            }
        };
        Past<N> q_past, k_past;
        Past<1> v_past;
        read_past(q_past, p, q_at, position);
        read_past(k_past, p, k_at, position);
        read_past(v_past, p, v_at, position);
        if (DELTA_RULE) UNROLL for (u32 e = 0; e < N; e++) q_past.bias.at[e] = k_past.bias.at[e] = 0.f; // there is none: registers
        float rate = exp_fast(load_constant((const float*)p.a_log + head)), dt_bias = load_constant((const float*)p.dt_bias + head);
        float skip = DELTA_RULE ? 0.f : load_constant((const float*)p.skip + head), scale = 0.f;
        if (lane < levels) scale = load_constant((const float*)p.k_norm + head * p.tiles + lane);
        u32 lambda_at = (DELTA_RULE ? 2 * p.heads : rows + p.heads) + head * p.tiles + lane;
        Lanes<N> q_now, k_now;
        Lanes<1> v_now, b_now, a_now, gate_now, lambda_now;
        b_now.at[0] = gate_now.at[0] = lambda_now.at[0] = 0.f;
        for (u32 looks = 0;;) {
            bool here = look_lanes(q_now, p.now, q_at, tag);
            here = look_lanes(k_now, p.now, k_at, tag) && here;
            here = look_lanes(v_now, p.now, v_at, tag) && here;
            here = look_lanes(a_now, p.z, a_at, tag) && here;
            if (DELTA_RULE) here = look_lanes(b_now, p.z, head, tag) && here;
            else here = look_lanes(gate_now, p.z, row, tag) && here;
            if (lane < levels) here = look_lanes(lambda_now, p.z, lambda_at, tag) && here;
            if (here) break;
            look_again(looks);
        }
        warp_sync();
        float dt = softplus(a_now.at[0] + dt_bias), decay = exp_fast(-rate * dt), lambda = softplus(lambda_now.at[0] * scale);
        Lanes<N> q = convolved(q_past, q_now), k = convolved(k_past, k_now);
        float v = convolved(v_past, v_now).at[0], beta = DELTA_RULE ? p.largest_beta * sigmoid(b_now.at[0]) : dt;
        if (DELTA_RULE) {
#if GENES & TURNING
            Turned<N> turned = await_turned<N>(p.skip, p.key_heads, key_head, lane, tag);
            turn_lanes(q, turned, p.skip, lane), turn_lanes(k, turned, p.skip, lane);
#endif
            float squares[2] = {dot(q, q), dot(k, k)};
            warp_sums(squares);
            float q_norm = square_root_reciprocal(squares[0] + L2_EPS), k_norm = square_root_reciprocal(squares[1] + L2_EPS);
            UNROLL for (u32 e = 0; e < N; e++) q.at[e] *= q_norm, k.at[e] *= k_norm;
        }
        Lanes<N> merged, read; // read: Σ λ S
        UNROLL for (u32 e = 0; e < N; e++) merged.at[e] = 0.f, read.at[e] = k.at[e] * (beta * v); // level 0
        float first = shuffle_from(lambda, 0);
        UNROLL for (u32 e = 0; e < N; e++) read.at[e] *= first;
        for (u32 base = 0; base < levels; base += AT_ONCE) {
            load(base); // from the L2: for more the pasts of the convolution leave no registers
            UNROLL for (u32 j = 0; j < AT_ONCE; j++)
                if (level_merges(base + j, merged_level, levels)) UNROLL for (u32 e = 0; e < N; e++) merged.at[e] += s[j].at[e], s[j].at[e] = 0.f;
            float kept[AT_ONCE];
            UNROLL for (u32 j = 0; j < AT_ONCE; j++) kept[j] = DELTA_RULE ? dot(s[j], k) : 0.f;
            if (DELTA_RULE) warp_sums(kept);
            UNROLL for (u32 j = 0; j < AT_ONCE; j++) {
                u32 level = base + j;
                float u = -beta * decay * kept[j], weight = shuffle_from(lambda, level % 32);
                if (!is_kept(level) || level_merges(level, merged_level, levels)) continue;
                UNROLL for (u32 e = 0; e < N; e++) {
                    s[j].at[e] = decay * s[j].at[e] + (DELTA_RULE ? k.at[e] * u : 0.f);
                    read.at[e] += weight * s[j].at[e];
                }
                store_row(s[j], states + (u64)level * rows * K, lane);
            }
        }
        if (position > 0) {
            float u = DELTA_RULE ? -beta * decay * warp_sum(dot(merged, k)) : 0.f, weight = shuffle_from(lambda, merged_level);
            UNROLL for (u32 e = 0; e < N; e++) {
                merged.at[e] = decay * merged.at[e] + (DELTA_RULE ? k.at[e] * u : 0.f);
                read.at[e] += weight * merged.at[e];
            }
            store_row(merged, states + (u64)merged_level * rows * K, lane);
        }
        UNROLL for (u32 e = 0; e < N; e++) merged.at[e] = k.at[e] * (beta * v);
        store_row(merged, states, lane); // level 0, when what it held has been read
        float o = warp_sum(dot(read, q));
        if (!DELTA_RULE) o = (o + skip * v) * silu(gate_now.at[0]);
        if (lane == 0) show((u32*)p.out + row, tagged(o, tag));
    }
}
#endif // GENES
