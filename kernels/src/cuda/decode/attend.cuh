// Softmax attention over the cache.

// One row of K = 32 · N elements, lane i holding elements i · N/2 … of both halves:
// norm (unless `norm` is 0), then rotation by the angles of this position.
template <int N> DEVICE void norm_and_rotate(float (&a)[N / 2], float (&b)[N / 2], u64 norm, const float2* rope, u32 lane)
{
    const u32 K = 32 * N;
    if (norm != 0) {
        float squares = 0.f;
        UNROLL for (u32 e = 0; e < N / 2; e++) squares += a[e] * a[e] + b[e] * b[e];
        float r = square_root_reciprocal(warp_sum(squares) / (float)K + NORM_EPS);
        UNROLL for (u32 e = 0; e < N / 2; e++) {
            a[e] *= r * load_constant((const float*)norm + lane * (N / 2) + e);
            b[e] *= r * load_constant((const float*)norm + K / 2 + lane * (N / 2) + e);
        }
    }
    UNROLL for (u32 e = 0; e < N / 2; e++) {
        float2 turn = load_constant(rope + lane * (N / 2) + e); // cosine, sine
        float x = a[e] * turn.x - b[e] * turn.y, y = b[e] * turn.x + a[e] * turn.y;
        a[e] = x, b[e] = y;
    }
}

DEVICE void values_of(float (&v)[4], const u8* row, u32 lane)
{
    uint2 bits = ((const uint2*)row)[lane];
    v[0] = bf16_low(bits.x), v[1] = bf16_high(bits.x), v[2] = bf16_low(bits.y), v[3] = bf16_high(bits.y);
}
DEVICE void values_of(float (&v)[2], const u8* row, u32 lane)
{
    u32 bits = ((const u32*)row)[lane];
    v[0] = bf16_low(bits), v[1] = bf16_high(bits);
}

// The score where there is no position: −2^99, which a tagged float holds exactly.
const float EMPTY = -633825300114114700748351602688.f;

// Attention of one tile of heads over this block's split of the cache. A unit of the
// cache holds 16 positions: keys [16, K], then values [16, K], bf16. The new position is
// not in the cache yet: split 0 adds it, and writes it there for the next step.
template <int N>
DEVICE void attend(Shared& shared, const Phase& p, const Step& step, const Units& units, u32 sequence, u32 thread)
{
    const u32 K = 32 * N;
    u32 lane = thread % 32, warp = thread / 32, g = lane / 4, t = lane % 4, position = step.position, tag = step.tag;
    u32 item = (block_index() + p.rotation) % block_count();
    if (item >= p.key_heads * p.tiles * p.splits) return;
    u32 split = item % p.splits, tile = item / p.splits % p.tiles, key_head = item / p.splits / p.tiles;
    u32 group = p.heads / p.key_heads, first_head = key_head * group + tile * TILE_HEADS;
    u32 tile_heads = group - tile * TILE_HEADS < TILE_HEADS ? group - tile * TILE_HEADS : TILE_HEADS;

    // scratch: q high and low [8, K] bf16; the new key and value [K] fp32; per warp p [16, 8] and rescaling [8]
    u16* q_high = (u16*)shared.scratch;
    u16* q_low = q_high + TILE_HEADS * K;
    float* new_key = (float*)(q_low + TILE_HEADS * K);
    float* new_value = new_key + K;
    float* weights = new_value + K + warp * (BLOCK_POSITIONS + 1) * TILE_HEADS;
    float* rescale = weights + BLOCK_POSITIONS * TILE_HEADS;

    const float2* rope = (const float2*)p.rope + (u64)position * (K / 2);
    u32 keys_at = (p.heads + key_head) * K, values_at = keys_at + p.key_heads * K;
    u8* cache = (u8*)p.stream + (u64)(key_head * p.cache_blocks + position / BLOCK_POSITIONS) * p.unit_bytes
        + position % BLOCK_POSITIONS * K * 2;
    bool writes = split == 0 && tile == 0;
    for (u32 row = warp; row < TILE_HEADS + 2; row += WARPS) {
        bool is_query = row < TILE_HEADS, present = !is_query || row < tile_heads;
        u32 from = (is_query ? (first_head + row) * K : row == TILE_HEADS ? keys_at : values_at) + lane * (N / 2);
        float a[N / 2], b[N / 2];
        UNROLL for (u32 e = 0; e < N / 2; e++) a[e] = 0.f, b[e] = 0.f;
        if (present) {
            Lanes<N / 2> first, second;
            for (u32 looks = 0;;) {
                bool here = look_lanes(first, p.z, from, tag);
                here = look_lanes(second, p.z, from + K / 2, tag) && here;
                if (here) break;
                look_again(looks);
            }
            UNROLL for (u32 e = 0; e < N / 2; e++) a[e] = first.at[e], b[e] = second.at[e];
        }
        warp_sync();
        if (row <= TILE_HEADS) norm_and_rotate<N>(a, b, is_query ? p.norm : p.k_norm, rope, lane);
        UNROLL for (u32 e = 0; e < N / 2; e++) {
            UNROLL for (u32 half = 0; half < 2; half++) {
                u32 c = half * (K / 2) + lane * (N / 2) + e;
                float x = half ? b[e] : a[e];
                if (is_query) {
                    x *= p.scale * LOG2_E;
                    u32 rounded = bf16_pair(x, 0.f);
                    q_high[row * K + c] = (u16)rounded;
                    q_low[row * K + c] = (u16)bf16_pair(x - bf16_low(rounded), 0.f);
                } else {
                    u32 rounded = bf16_pair(x, 0.f);
                    (row == TILE_HEADS ? new_key : new_value)[c] = bf16_low(rounded);
                    u32 part = row == TILE_HEADS ? 0 : BLOCK_POSITIONS * K;
                    if (writes) ((u16*)cache)[part + c] = (u16)rounded;
                }
            }
        }
    }
    consumers_sync();

    // heads 2t and 2t + 1 of this lane: largest score and sum of weights; all heads: N values of the output
    float largest[2] = {EMPTY, EMPTY}, total[2] = {0.f, 0.f}, out[TILE_HEADS][N];
    UNROLL for (u32 h = 0; h < TILE_HEADS; h++) UNROLL for (u32 e = 0; e < N; e++) out[h][e] = 0.f;
    if (split == 0 && warp == 0) {
        UNROLL for (u32 h = 0; h < 2; h++) {
            float score = 0.f;
            for (u32 c = g; c < K; c += 8) {
                u32 at = (2 * t + h) * K + c;
                score += (bf16_low(q_high[at]) + bf16_low(q_low[at])) * new_key[c];
            }
            UNROLL for (u32 mask = 4; mask < 32; mask <<= 1) score += shuffle_xor(score, mask);
            largest[h] = score, total[h] = 1.f;
        }
        UNROLL for (u32 h = 0; h < TILE_HEADS; h++) UNROLL for (u32 e = 0; e < N; e++) out[h][e] = new_value[lane * N + e];
    }
    uint4 q0[N], q1[N];
    UNROLL for (u32 j = 0; j < N; j++) {
        q0[j] = *(const uint4*)(q_high + g * K + j * 32 + t * 8);
        q1[j] = *(const uint4*)(q_low + g * K + j * 32 + t * 8);
    }

    u32 oldest = p.window != 0 && position + 1 > p.window ? position + 1 - p.window : 0;
    for (u32 i = first_unit(sequence, warp); i < units.count; i += WARPS) {
        const u8* unit = wait_slot(shared, sequence + i);
        u32 base = (units.begin + i) * BLOCK_POSITIONS;
        // scores [16 positions, 8 heads]: columns permuted within each 32, alike for keys and queries
        float s[4] = {0.f, 0.f, 0.f, 0.f};
        UNROLL for (u32 j = 0; j < N; j++) {
            uint4 a = *(const uint4*)(unit + (g * K + j * 32 + t * 8) * 2);
            uint4 b = *(const uint4*)(unit + ((g + 8) * K + j * 32 + t * 8) * 2);
            mma(s, a.x, b.x, a.y, b.y, q0[j].x, q0[j].y);
            mma(s, a.z, b.z, a.w, b.w, q0[j].z, q0[j].w);
            mma(s, a.x, b.x, a.y, b.y, q1[j].x, q1[j].y);
            mma(s, a.z, b.z, a.w, b.w, q1[j].z, q1[j].w);
        }
        bool valid0 = base + g >= oldest && base + g < position;
        bool valid1 = base + g + 8 >= oldest && base + g + 8 < position;
        UNROLL for (u32 h = 0; h < 2; h++) {
            float s0 = valid0 ? s[h] : EMPTY, s1 = valid1 ? s[2 + h] : EMPTY;
            float top = fmaxf(largest[h], fmaxf(s0, s1));
            UNROLL for (u32 mask = 4; mask < 32; mask <<= 1) top = fmaxf(top, shuffle_xor(top, mask));
            float w0 = valid0 ? exp2_fast(s0 - top) : 0.f, w1 = valid1 ? exp2_fast(s1 - top) : 0.f;
            float keep = exp2_fast(largest[h] - top), sum = w0 + w1;
            UNROLL for (u32 mask = 4; mask < 32; mask <<= 1) sum += shuffle_xor(sum, mask);
            largest[h] = top, total[h] = total[h] * keep + sum;
            weights[g * TILE_HEADS + 2 * t + h] = w0;
            weights[(g + 8) * TILE_HEADS + 2 * t + h] = w1;
            if (g == 0) rescale[2 * t + h] = keep;
        }
        warp_sync();
        UNROLL for (u32 h = 0; h < TILE_HEADS; h++) {
            float keep = rescale[h];
            UNROLL for (u32 e = 0; e < N; e++) out[h][e] *= keep;
        }
        // positions outside the window or not yet written are not touched: they may hold anything
        u32 from = oldest > base ? oldest - base : 0;
        u32 to = position - base < BLOCK_POSITIONS ? position - base : BLOCK_POSITIONS;
        for (u32 s_at = from; s_at < to; s_at++) {
            float v[N];
            values_of(v, unit + (BLOCK_POSITIONS + s_at) * K * 2, lane);
            const float4* w = (const float4*)(weights + s_at * TILE_HEADS);
            float4 w0 = w[0];
            UNROLL for (u32 e = 0; e < N; e++)
                out[0][e] += w0.x * v[e], out[1][e] += w0.y * v[e], out[2][e] += w0.z * v[e], out[3][e] += w0.w * v[e];
            if (tile_heads > 4) {
                float4 w1 = w[1];
                UNROLL for (u32 e = 0; e < N; e++)
                    out[4][e] += w1.x * v[e], out[5][e] += w1.y * v[e], out[6][e] += w1.z * v[e], out[7][e] += w1.w * v[e];
            }
        }
        release_slot(shared, sequence + i, lane);
    }

    // The warps of the block put together, four heads at a time. [WARPS, 4, K] fits scratch.
    if (g == 0) UNROLL for (u32 h = 0; h < 2; h++) {
        shared.softmax[(warp * TILE_HEADS + 2 * t + h) * 2] = largest[h];
        shared.softmax[(warp * TILE_HEADS + 2 * t + h) * 2 + 1] = total[h];
    }
    u32* partial = (u32*)p.out + (u64)item * TILE_HEADS * K;
    u32* sums = (u32*)p.gate + (u64)item * TILE_HEADS * 2;
    float* merge = (float*)shared.scratch;
    UNROLL for (u32 round = 0; round < TILE_HEADS; round += 4) {
        if (round >= tile_heads) break;
        consumers_sync();
        UNROLL for (u32 h = 0; h < 4; h++) UNROLL for (u32 e = 0; e < N; e++)
            merge[(warp * 4 + h) * K + lane * N + e] = out[round + h][e];
        consumers_sync();
        for (u32 at = thread; at < 4 * K; at += CONSUMERS) {
            u32 h = round + at / K;
            float top = EMPTY, sum = 0.f, value = 0.f;
            for (u32 w = 0; w < WARPS; w++) top = fmaxf(top, shared.softmax[(w * TILE_HEADS + h) * 2]);
            top = rounded_to_tagged(top); // any number near the largest serves, if all agree on it
            for (u32 w = 0; w < WARPS; w++) {
                float keep = exp2_fast(shared.softmax[(w * TILE_HEADS + h) * 2] - top);
                sum += keep * shared.softmax[(w * TILE_HEADS + h) * 2 + 1];
                value += keep * merge[w * 4 * K + at];
            }
            show(partial + round * K + at, tagged(value, tag));
            if (at % K == 0) show(sums + h * 2, tagged(top, tag)), show(sums + h * 2 + 1, tagged(sum, tag));
        }
    }
}

// out[heads · K]: the splits weighed by their largest scores. One warp for 32 columns of a head.
DEVICE void combine(const Phase& p, const Step& step, u32 thread)
{
    const u32 AT_ONCE = 16;
    u32 tag = step.tag, lane = thread % 32, slices = p.width / 32, group = p.heads / p.key_heads;
    for (u32 slice = thread / 32 * block_count() + block_index(); slice < p.heads * slices; slice += WARPS * block_count()) {
        u32 head = slice / slices, column = slice % slices * 32 + lane;
        u32 key_head = head / group, tile = head % group / TILE_HEADS, h = head % group % TILE_HEADS;
        u32 item = (key_head * p.tiles + tile) * p.splits;
        const uint2* sums = (const uint2*)p.gate + (u64)item * TILE_HEADS + h; // largest score, sum of weights
        const u32* partial = (const u32*)p.x + ((u64)item * TILE_HEADS + h) * p.width + column;
        float top = EMPTY, value = 0.f, total = 0.f;
        for (u32 first = 0; first < p.splits; first += AT_ONCE) {
            // lane s holds the largest score and the sum of split first + s; the values come all at once
            uint2 sum = make_uint2(tagged(EMPTY, tag), tag);
            u32 values[AT_ONCE];
            for (u32 looks = 0;;) {
                if (lane < AT_ONCE && first + lane < p.splits) sum = look(sums + (first + lane) * TILE_HEADS);
                bool here = is_of(sum, tag);
                UNROLL for (u32 s = 0; s < AT_ONCE; s++)
                    values[s] = first + s < p.splits ? look(partial + (u64)(first + s) * TILE_HEADS * p.width) : tag;
                UNROLL for (u32 s = 0; s < AT_ONCE; s++) here = here && is_of(values[s], tag);
                if (here) break;
                look_again(looks);
            }
            warp_sync();
            float largest = untagged(sum.x), higher = fmaxf(top, warp_max(largest)), keep = exp2_fast(top - higher);
            float weight = exp2_fast(largest - higher);
            total = total * keep + warp_sum(weight * untagged(sum.y));
            value *= keep;
            UNROLL for (u32 s = 0; s < AT_ONCE; s++) value += shuffle_from(weight, s) * untagged(values[s]);
            top = higher;
        }
        show((u32*)p.out + head * p.width + column, tagged(value / total, tag));
    }
}
