// The angles of Selective RoPE (arXiv 2511.17388): φ = (conv4(W u) + e^b) · σ(W_g u + b_g), angle ← angle + τ φ, u the normed
// input of the mixer with each share of `shares` brought to unit length. What is linear in the input comes from the in-projection,
// a row for each share; here the shares are weighed by their lengths and put together. A thread owns an angle.
// now: of low rank `tiles` rows of W_down by shares, else W [heads, width] of the head's own share; then W_g [heads] by shares.

#if GENES & TURNING
const float TAU = 6.2831853071795865f;

APART void turns(Shared& shared, const Phase& p, const Step& step, u32 reciprocal, u32 thread)
{
    u32 lane = thread % 32, warp = thread / 32, tag = step.tag, position = step.position;
    u32 shares = p.key_heads, share = p.columns / shares, rank = p.tiles, gate_at = rank != 0 ? rank * shares : p.rows;
    float *weights = (float*)shared.scratch, *low = weights + shares, *open = low + rank; // of the shares; [rank]; [heads]
    float all = 0.f;
    for (u32 h = warp; h < shares; h += WARPS) {
        float squares[2] = {0.f, 0.f}; // of the input; of the input times the norm's weights
        for (u32 c = h * share + lane; c < (h + 1) * share; c += 32) {
            float w = load_constant((const float*)p.norm + c);
            float x = p.input == EMBEDDING ? embedded(p, step.token, c) : await(p.x, c, tag);
            squares[0] += x * x, squares[1] += x * w * x * w;
        }
        warp_sync();
        warp_sums(squares);
        all += squares[0];
        if (lane == 0) weights[h] = squares[1];
    }
    if (lane == 0) shared.sums[warp] = all;
    consumers_sync();
    all = 0.f;
    UNROLL for (u32 w = 0; w < WARPS; w++) all += shared.sums[w];
    float r = square_root_reciprocal(all / (float)p.columns + NORM_EPS);
    for (u32 h = thread; h < shares; h += CONSUMERS) weights[h] = square_root_reciprocal(r * r * weights[h] + L2_EPS);
    consumers_sync();
    for (u32 i = thread; i < rank + p.heads; i += CONSUMERS) { // low, then open
        float sum = 0.f;
        if (i < rank || p.gated) {
            u32 at = i < rank ? i * shares : gate_at + (i - rank) * shares;
            for (u32 h = 0; h < shares; h++) sum += await(p.now, at + h, tag) * weights[h];
        }
        low[i] = i < rank ? sum : p.gated ? sigmoid(sum + load_constant((const float*)p.dt_bias + i - rank)) : 1.f;
    }
    consumers_sync();
    u32 blocks = block_count(), me = block_index() + p.rotation;
    if (me >= blocks) me -= blocks;
    u32 end = over_blocks(p.rows * (me + 1), blocks, reciprocal); // the host checks the range
    for (u32 c = over_blocks(p.rows * me, blocks, reciprocal) + thread; c < end; c += CONSUMERS) {
        u32 head = c / p.width;
        float* ring = (float*)p.ring + c;
        float past[3];
        UNROLL for (u32 j = 0; j < 3; j++) past[j] = load_fresh(ring + ((position + 1 + j) & 3) * p.rows);
        float4 taps = load_constant((const float4*)p.conv_weight + c);
        float bias = p.conv_bias != 0 ? load_constant((const float*)p.conv_bias + c) : 0.f, tau = load_constant((const float*)p.skip + c % p.width);
        float angle = load_fresh((const float*)p.a_log + c), phi = 0.f;
        if (rank != 0) for (u32 i = 0; i < rank; i++) phi += load_constant((const float*)p.z + c * rank + i) * low[i];
        else phi = await(p.now, c, tag) * weights[shares == 1 ? 0 : head];
        float turn = (taps.x * past[0] + taps.y * past[1] + taps.z * past[2] + taps.w * phi + bias) * open[head];
        angle += turn * tau;
        angle -= TAU * rintf(angle / TAU);
        ((float*)p.a_log)[c] = angle, ring[(position & 3) * p.rows] = phi;
        show((u32*)p.out + c, tagged(cosine_fast(angle), tag)), show((u32*)p.out + p.rows + c, tagged(sine_fast(angle), tag));
    }
}
#endif // GENES
