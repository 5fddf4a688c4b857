// Mixers with a state: convolution, gates, update of the state and read, four rows of the
// state to a warp.

template <int N> struct Lanes { float at[N]; }; // N neighbouring elements of a row of 32 · N

DEVICE void load_lanes(Lanes<4>& v, const float* p) { float4 x = load_constant((const float4*)p); v.at[0] = x.x, v.at[1] = x.y, v.at[2] = x.z, v.at[3] = x.w; }
DEVICE void load_lanes(Lanes<2>& v, const float* p) { float2 x = load_constant((const float2*)p); v.at[0] = x.x, v.at[1] = x.y; }
DEVICE void load_lanes(Lanes<1>& v, const float* p) { v.at[0] = load_constant(p); }

// Looks at N neighbouring words; says whether they are there.
DEVICE bool look_lanes(Lanes<4>& v, u64 base, u32 at, u32 tag)
{
    uint4 x = look((const uint4*)((const u32*)base + at));
    v.at[0] = untagged(x.x), v.at[1] = untagged(x.y), v.at[2] = untagged(x.z), v.at[3] = untagged(x.w);
    return is_of(x, tag);
}
DEVICE bool look_lanes(Lanes<2>& v, u64 base, u32 at, u32 tag)
{
    uint2 x = look((const uint2*)((const u32*)base + at));
    v.at[0] = untagged(x.x), v.at[1] = untagged(x.y);
    return is_of(x, tag);
}
DEVICE bool look_lanes(Lanes<1>& v, u64 base, u32 at, u32 tag)
{
    u32 x = look((const u32*)base + at);
    v.at[0] = untagged(x);
    return is_of(x, tag);
}

// What the causal convolution of width 4 reads for N neighbouring channels besides the
// current position. The ring holds the last four inputs of each channel, that of position s
// in row s % 4. It is all asked for before the wait for the current position.
template <int N> struct Past {
    Lanes<N> tap[3], bias;
    float4 weight[N];
};
template <int N> DEVICE void read_past(Past<N>& w, const Phase& p, u32 channel, u32 position)
{
    UNROLL for (u32 e = 0; e < N; e++) w.bias.at[e] = 0.f, w.weight[e] = make_float4(0.f, 0.f, 0.f, 1.f);
    UNROLL for (u32 j = 0; j < 3; j++) UNROLL for (u32 e = 0; e < N; e++) w.tap[j].at[e] = 0.f;
    if (!p.convolved) return;
    const float* ring = (const float*)p.ring + channel;
    u32 rows = p.ring_rows;
    UNROLL for (u32 j = 0; j < 3; j++) load_lanes(w.tap[j], ring + ((position + 1 + j) & 3) * rows);
    UNROLL for (u32 e = 0; e < N; e++) w.weight[e] = load_constant((const float4*)p.conv_weight + channel + e);
    if (p.conv_bias != 0) UNROLL for (u32 e = 0; e < N; e++) w.bias.at[e] = load_constant((const float*)p.conv_bias + channel + e);
}
// SiLU of the convolution with the current inputs.
template <int N> DEVICE Lanes<N> convolved(const Past<N>& w, const Lanes<N>& now)
{
    Lanes<N> y;
    UNROLL for (u32 e = 0; e < N; e++)
        y.at[e] = silu(w.bias.at[e] + w.weight[e].x * w.tap[0].at[e] + w.weight[e].y * w.tap[1].at[e]
                       + w.weight[e].z * w.tap[2].at[e] + w.weight[e].w * now.at[e]);
    return y;
}

// The sums of several values over a warp, one latency for all.
template <int COUNT> DEVICE void warp_sums(float (&x)[COUNT])
{
    UNROLL for (u32 mask = 16; mask > 0; mask >>= 1) UNROLL for (u32 i = 0; i < COUNT; i++) x[i] += shuffle_xor(x[i], mask);
}

template <int N> DEVICE float dot(const Lanes<N>& a, const Lanes<N>& b)
{
    float sum = 0.f;
    UNROLL for (u32 e = 0; e < N; e++) sum += a.at[e] * b.at[e];
    return sum;
}

template <int N> DEVICE void take_row(Lanes<N>& v, const u8* unit, u32 row, u32 lane)
{
    const float* from = (const float*)unit + row * 32 * N + lane * N;
    UNROLL for (u32 e = 0; e < N; e++) v.at[e] = from[e];
}
template <int N> DEVICE void store_row(const Lanes<N>& v, float* to, u32 lane)
{
    if (N == 4) ((float4*)to)[lane] = make_float4(v.at[0], v.at[1 % N], v.at[2 % N], v.at[3 % N]);
    else UNROLL for (u32 e = 0; e < N; e++) to[lane * N + e] = v.at[e];
}

#if GENES & TURNING
// Cosines and sines of the angles by which a head turns, for N neighbours of its row; `base` is 0 where nothing turns. Channel i
// turns with channel i + K/2, which another lane has.
template <int N> struct Turned {
    Lanes<N> cosine, sine;
};
// Waited for when the convolutions need their registers no more.
template <int N> APART Turned<N> await_turned(u64 base, u32 heads, u32 head, u32 lane, u32 tag)
{
    const u32 HALF = 16 * N;
    u32 at = head * HALF + lane % 16 * N;
    Turned<N> w;
    if (base == 0) return w;
    for (u32 looks = 0;;) {
        bool here = look_lanes(w.cosine, base, at, tag);
        here = look_lanes(w.sine, base, heads * HALF + at, tag) && here;
        if (here) break;
        look_again(looks);
    }
    warp_sync();
    return w;
}
template <int N> DEVICE void turn_lanes(Lanes<N>& x, const Turned<N>& w, u64 base, u32 lane)
{
    if (base == 0) return;
    UNROLL for (u32 e = 0; e < N; e++) {
        float other = shuffle_xor(x.at[e], 16) * w.sine.at[e];
        x.at[e] = x.at[e] * w.cosine.at[e] + (lane < 16 ? -other : other);
    }
}
#endif

// Delta rule on the transposed state Sᵀ [heads · V, K], K = 32 · N (arXiv 2412.06464, eq. 10):
// S ← e^g S; S += β k (v − Sᵀk)ᵀ for each step of the token (arXiv 2502.10297); o = Sᵀq · K^−½.
// now: q, then k of each step, then v of each step; z: b of each step, a.
template <int N>
DEVICE void delta(Shared& shared, const Phase& p, const Step& step, const Units& units, u32 sequence, u32 thread)
{
    const u32 K = 32 * N;
    u32 lane = thread % 32, warp = thread / 32, tag = step.tag;
    for (u32 i = first_unit(sequence, warp); i < units.count; i += WARPS) {
        u32 row = (units.begin + i) * STATE_ROWS, head = row / p.value_width;
        u32 key_head = head * p.key_heads / p.heads, keys = p.key_heads * K, values = p.heads * p.value_width;
        u32 q_at = key_head * K + lane * N, k_at = keys + q_at, v_at = (1 + p.steps) * keys + row + lane % STATE_ROWS;
        Past<N> q_past, k_past;
        Past<1> v_past;
        read_past(q_past, p, q_at, step.position);
        read_past(k_past, p, k_at, step.position);
        read_past(v_past, p, v_at, step.position);
        float rate = 0.f, dt_bias = 0.f;
        if (p.gated) rate = exp_fast(load_constant((const float*)p.a_log + head)), dt_bias = load_constant((const float*)p.dt_bias + head);
        Lanes<N> q_now, k_now;
        Lanes<1> v_now, b_now, a_now;
        a_now.at[0] = 0.f;
        for (u32 looks = 0;;) {
            bool here = look_lanes(q_now, p.now, q_at, tag);
            here = look_lanes(k_now, p.now, k_at, tag) && here;
            here = look_lanes(v_now, p.now, v_at, tag) && here;
            here = look_lanes(b_now, p.z, head, tag) && here;
            if (p.gated) here = look_lanes(a_now, p.z, p.steps * p.heads + head, tag) && here;
            if (here) break;
            look_again(looks);
        }
        warp_sync();
        float decay = p.gated ? exp_fast(-rate * softplus(a_now.at[0] + dt_bias)) : 1.f;
        Lanes<N> q = convolved(q_past, q_now), k = convolved(k_past, k_now);
#if GENES & TURNING
        Turned<N> turned = await_turned<N>(p.skip, p.key_heads, key_head, lane, tag);
        turn_lanes(q, turned, p.skip, lane), turn_lanes(k, turned, p.skip, lane);
#endif
        float v_lane = convolved(v_past, v_now).at[0], beta = p.largest_beta * sigmoid(b_now.at[0]);
        float squares[2] = {dot(q, q), dot(k, k)};
        warp_sums(squares);
        float q_norm = square_root_reciprocal(squares[0] + L2_EPS) * p.scale;
        float k_norm = square_root_reciprocal(squares[1] + L2_EPS);
        UNROLL for (u32 e = 0; e < N; e++) q.at[e] *= q_norm, k.at[e] *= k_norm;

        const u8* unit = wait_slot(shared, sequence + i);
        Lanes<N> s[STATE_ROWS];
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) take_row(s[r], unit, r, lane);
        release_slot(shared, sequence + i, lane);
        for (u32 j = 0;; j++) {
            float kept[STATE_ROWS];
            UNROLL for (u32 r = 0; r < STATE_ROWS; r++) kept[r] = dot(s[r], k);
            warp_sums(kept);
            UNROLL for (u32 r = 0; r < STATE_ROWS; r++) {
                float u = beta * (shuffle_from(v_lane, r) - kept[r] * decay);
                UNROLL for (u32 e = 0; e < N; e++) s[r].at[e] = decay * s[r].at[e] + k.at[e] * u;
            }
            if (j + 1 == p.steps) break;
            decay = 1.f; // once a token
            k_at += keys, v_at += values;
            read_past(k_past, p, k_at, step.position);
            read_past(v_past, p, v_at, step.position);
            for (u32 looks = 0;;) {
                bool here = look_lanes(k_now, p.now, k_at, tag);
                here = look_lanes(v_now, p.now, v_at, tag) && here;
                here = look_lanes(b_now, p.z, (j + 1) * p.heads + head, tag) && here;
                if (here) break;
                look_again(looks);
            }
            warp_sync();
            k = convolved(k_past, k_now), v_lane = convolved(v_past, v_now).at[0];
#if GENES & TURNING
            turn_lanes(k, turned, p.skip, lane);
#endif
            beta = p.largest_beta * sigmoid(b_now.at[0]);
            k_norm = square_root_reciprocal(warp_sum(dot(k, k)) + L2_EPS);
            UNROLL for (u32 e = 0; e < N; e++) k.at[e] *= k_norm;
        }
        float o[STATE_ROWS], o_lane = 0.f;
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) o[r] = dot(s[r], q);
        warp_sums(o);
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) o_lane = lane == r ? o[r] : o_lane;
        if (lane < STATE_ROWS) show((u32*)p.out + row + lane, tagged(o_lane, tag));
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) store_row(s[r], (float*)p.stream + (u64)(row + r) * K, lane);
    }
}

// Mamba2 on the state [heads · P, N]: S ← e^{dt·A} S + dt · x Bᵀ; y = (S C + D x) · SiLU(z).
// now: x, B, C; z: z, dt.
template <int N>
DEVICE void mamba2(Shared& shared, const Phase& p, const Step& step, const Units& units, u32 sequence, u32 thread)
{
    const u32 STATE = 32 * N;
    u32 lane = thread % 32, warp = thread / 32, inner = p.heads * p.value_width, tag = step.tag;
    for (u32 i = first_unit(sequence, warp); i < units.count; i += WARPS) {
        u32 row = (units.begin + i) * STATE_ROWS, head = row / p.value_width;
        u32 b_at = inner + lane * N, c_at = b_at + STATE, x_at = row + lane % STATE_ROWS;
        Past<N> b_past, c_past;
        Past<1> x_past;
        read_past(b_past, p, b_at, step.position);
        read_past(c_past, p, c_at, step.position);
        read_past(x_past, p, x_at, step.position);
        float rate = exp_fast(load_constant((const float*)p.a_log + head)), dt_bias = load_constant((const float*)p.dt_bias + head);
        float skip = load_constant((const float*)p.skip + head);
        Lanes<N> b_now, c_now;
        Lanes<1> x_now, z_now, dt_now;
        for (u32 looks = 0;;) {
            bool here = look_lanes(b_now, p.now, b_at, tag);
            here = look_lanes(c_now, p.now, c_at, tag) && here;
            here = look_lanes(x_now, p.now, x_at, tag) && here;
            here = look_lanes(z_now, p.z, x_at, tag) && here;
            here = look_lanes(dt_now, p.z, inner + head, tag) && here;
            if (here) break;
            look_again(looks);
        }
        warp_sync();
        float dt = softplus(dt_now.at[0] + dt_bias), decay = exp_fast(-rate * dt);
        Lanes<N> b = convolved(b_past, b_now), c = convolved(c_past, c_now);
        float x_lane = convolved(x_past, x_now).at[0];

        const u8* unit = wait_slot(shared, sequence + i);
        Lanes<N> s[STATE_ROWS];
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) take_row(s[r], unit, r, lane);
        release_slot(shared, sequence + i, lane);
        float y[STATE_ROWS], y_lane = 0.f;
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) {
            float x = shuffle_from(x_lane, r) * dt;
            UNROLL for (u32 e = 0; e < N; e++) s[r].at[e] = decay * s[r].at[e] + x * b.at[e];
            y[r] = dot(s[r], c);
        }
        warp_sums(y);
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) y_lane = lane == r ? y[r] : y_lane;
        if (lane < STATE_ROWS) show((u32*)p.out + row + lane, tagged((y_lane + skip * x_lane) * silu(z_now.at[0]), tag));
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) store_row(s[r], (float*)p.stream + (u64)(row + r) * STATE, lane);
    }
}
