// Kimi Delta Attention (arXiv 2510.26692, eq. 1) on the transposed state Sᵀ [heads · V, K], K = 32 · N:
// S ← Diag(e^g) S; S += β k (v − Sᵀk)ᵀ; o = Sᵀq · K^−½; g = −e^A_log softplus(f + dt_bias), of each channel of the keys.
// now: q, k, v; x: f [heads · K]; z: b.

#if GENES & FORMS
template <int N>
APART void kda(Shared& shared, const Phase& p, const Step& step, const Units& units, u32 sequence, u32 thread)
{
    const u32 K = 32 * N;
    u32 lane = thread % 32, warp = thread / 32, tag = step.tag;
    for (u32 i = first_unit(sequence, warp); i < units.count; i += WARPS) {
        u32 row = (units.begin + i) * STATE_ROWS, head = row / p.value_width, keys = p.heads * K;
        u32 q_at = head * K + lane * N, k_at = keys + q_at, v_at = 2 * keys + row + lane % STATE_ROWS;
        Past<N> q_past, k_past;
        Past<1> v_past;
        read_past(q_past, p, q_at, step.position);
        read_past(k_past, p, k_at, step.position);
        read_past(v_past, p, v_at, step.position);
        UNROLL for (u32 e = 0; e < N; e++) q_past.bias.at[e] = k_past.bias.at[e] = 0.f; // there is none: registers
        float rate = exp_fast(load_constant((const float*)p.a_log + head));
        Lanes<N> dt_bias, q_now, k_now, f_now;
        Lanes<1> v_now, b_now;
        load_lanes(dt_bias, (const float*)p.dt_bias + q_at);
        for (u32 looks = 0;;) {
            bool here = look_lanes(q_now, p.now, q_at, tag);
            here = look_lanes(k_now, p.now, k_at, tag) && here;
            here = look_lanes(v_now, p.now, v_at, tag) && here;
            here = look_lanes(b_now, p.z, head, tag) && here;
            here = look_lanes(f_now, p.x, q_at, tag) && here;
            if (here) break;
            look_again(looks);
        }
        warp_sync();
        Lanes<N> decay, q = convolved(q_past, q_now), k = convolved(k_past, k_now);
        UNROLL for (u32 e = 0; e < N; e++) decay.at[e] = exp_fast(-rate * softplus(f_now.at[e] + dt_bias.at[e]));
        float v_lane = convolved(v_past, v_now).at[0], beta = sigmoid(b_now.at[0]);
        float squares[2] = {dot(q, q), dot(k, k)};
        warp_sums(squares);
        float q_norm = square_root_reciprocal(squares[0] + L2_EPS) * p.scale;
        float k_norm = square_root_reciprocal(squares[1] + L2_EPS);
        UNROLL for (u32 e = 0; e < N; e++) q.at[e] *= q_norm, k.at[e] *= k_norm;

        const u8* unit = wait_slot(shared, sequence + i);
        Lanes<N> s[STATE_ROWS];
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) take_row(s[r], unit, r, lane);
        release_slot(shared, sequence + i, lane);
        float kept[STATE_ROWS], o[STATE_ROWS], o_lane = 0.f;
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) {
            UNROLL for (u32 e = 0; e < N; e++) s[r].at[e] *= decay.at[e];
            kept[r] = dot(s[r], k);
        }
        warp_sums(kept);
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) {
            float u = beta * (shuffle_from(v_lane, r) - kept[r]);
            UNROLL for (u32 e = 0; e < N; e++) s[r].at[e] += k.at[e] * u;
            o[r] = dot(s[r], q);
        }
        warp_sums(o);
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) o_lane = lane == r ? o[r] : o_lane;
        if (lane < STATE_ROWS) show((u32*)p.out + row + lane, tagged(o_lane, tag));
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) store_row(s[r], (float*)p.stream + (u64)(row + r) * K, lane);
    }
}
#endif // GENES
