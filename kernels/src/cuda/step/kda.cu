// One token of each sequence of a batch through Kimi Delta Attention (arXiv 2510.26692, eq. 1), as `step_recurrent` has the
// delta rule: S ← Diag(e^g) S; S ← S + β k (v − Sᵀk)ᵀ; o = scale · Sᵀq. With d = e^g what is kept is Sᵀ(d k), and the query
// meets the state before the update as Sᵀ(d q) + (k·q) u.

#ifdef CHANNEL_DECAY
struct KdaArguments {
    const u16 *x, *b, *f;     // q | k | v; β; f [heads KW]
    const float *a_log, *dt_bias; // [heads]; [heads KW]
    float* state;             // [B, heads, KW, V]
    u16* out;                 // [B, heads, V]
    u64 x_row, b_row, f_row;
    u32 heads, value_width;
    float scale, epsilon;
};

KERNEL(step_kda, KdaArguments, RECURRENT_THREADS)
{
    float* shared = (float*)shared_memory();
    u32 thread = thread_index(), warp = thread / 32, lane = thread % 32, group = thread / LANES;
    u32 batch = block_index_y() / args.heads, head = block_index_y() % args.heads, keys = args.heads * KW;
    u32 column = block_index() * COLUMNS + thread % LANES * 4;
    float* state = args.state + (u64)block_index_y() * KW * args.value_width + column;
    float4 s[ROWS];
    UNROLL for (u32 r = 0; r < ROWS; r++) s[r] = *(const float4*)(state + (u64)(group + GROUPS * r) * args.value_width);

    const u16* x = args.x + batch * args.x_row;
    float *q = shared + RecurrentShared::vectors, *k = q + KW, *decays = k + KW;
    if (warp < 2) put_vector(warp == 0 ? q : k, x + warp * keys + head * KW, true, args.epsilon, warp == 0 ? args.scale : 1.f, lane);
    float rate = exp_fast(load_constant(args.a_log + head));
    for (u32 i = thread; i < KW; i += RECURRENT_THREADS) {
        float raw = bf16_low(load_constant(args.f + batch * args.f_row + head * KW + i));
        decays[i] = exp_fast(-rate * softplus(raw + load_constant(args.dt_bias + head * KW + i)));
    }
    float beta = sigmoid(bf16_low(load_constant(args.b + batch * args.b_row + head)));
    float4 v = four_values(x + 2 * keys + head * args.value_width + column);
    block_sync();
    float both = 0.f; // k·q
    UNROLL for (u32 i = 0; i < KW / 32; i++) both += q[i * 32 + lane] * k[i * 32 + lane];
    both = warp_sum(both);
    float4 kept = make_float4(0.f, 0.f, 0.f, 0.f), read = kept;
    UNROLL for (u32 r = 0; r < ROWS; r++) {
        u32 at = group + GROUPS * r;
        float decay = decays[at];
        s[r].x *= decay, s[r].y *= decay, s[r].z *= decay, s[r].w *= decay;
        add_product(kept, s[r], k[at]);
        add_product(read, s[r], q[at]);
    }
    float4* sums = (float4*)(shared + RecurrentShared::sums);
    kept = sum_of_groups(kept), read = sum_of_groups(read);
    if (lane < LANES) sums[(warp * 2) * LANES + lane] = kept, sums[(warp * 2 + 1) * LANES + lane] = read;
    block_sync();
    kept = make_float4(0.f, 0.f, 0.f, 0.f), read = kept;
    UNROLL for (u32 w = 0; w < 4; w++) {
        add_product(kept, sums[(w * 2) * LANES + thread % LANES], 1.f);
        add_product(read, sums[(w * 2 + 1) * LANES + thread % LANES], 1.f);
    }
    float4 u = make_float4(beta * (v.x - kept.x), beta * (v.y - kept.y), beta * (v.z - kept.z), beta * (v.w - kept.w));
    UNROLL for (u32 r = 0; r < ROWS; r++) {
        add_product(s[r], u, k[group + GROUPS * r]);
        *(float4*)(state + (u64)(group + GROUPS * r) * args.value_width) = s[r];
    }
    if (group == 0) {
        add_product(read, u, both);
        *(uint2*)(args.out + (u64)block_index_y() * args.value_width + column) = make_uint2(bf16_pair(read.x, read.y), bf16_pair(read.z, read.w));
    }
}
#endif // CHANNEL_DECAY
