// Softmax attention over the cache.
//
// A unit of the cache holds 16 positions: keys [16, K], then values [16, K], bf16; within the row of position r the
// pieces of 16 bytes are permuted, piece c standing at c ^ (r & 7), so that eight rows of one piece lie in all banks.

const u32 PIECE = 8; // bf16 of 16 bytes

// Where column c of row r stands in a unit, in bf16.
template <u32 K> DEVICE u32 cached_at(u32 r, u32 c) { return r * K + ((c / PIECE) ^ (r & 7)) * PIECE + c % PIECE; }

// One row of K = 32 · N elements, lane i holding elements i · N/2 … of both halves:
// norm (unless `norm` is 0), then rotation by the angles of this position.
template <int N> struct Turn {
    float2 angle[N / 2]; // cosine, sine
    float gain[N];
    bool normed;
#if GENES & FORMS
    float whole; // one over the size of all heads together, or 0: this row is normed by itself
#endif
};
template <int N> DEVICE void read_turn(Turn<N>& w, u64 norm, u64 rope, u32 position, u32 lane)
{
    const u32 K = 32 * N;
    w.normed = norm != 0;
    UNROLL for (u32 e = 0; e < N / 2; e++) {
        w.angle[e] = load_constant((const float2*)rope + (u64)position * (K / 2) + lane * (N / 2) + e);
        w.gain[e] = w.normed ? load_constant((const float*)norm + lane * (N / 2) + e) : 1.f;
        w.gain[N / 2 + e] = w.normed ? load_constant((const float*)norm + K / 2 + lane * (N / 2) + e) : 1.f;
    }
}
template <int N> DEVICE void norm_and_rotate(float (&a)[N / 2], float (&b)[N / 2], const Turn<N>& w)
{
    const u32 K = 32 * N;
    float r = 1.f;
    if (w.normed) {
        float squares = 0.f;
        UNROLL for (u32 e = 0; e < N / 2; e++) squares += a[e] * a[e] + b[e] * b[e];
        r = square_root_reciprocal(warp_sum(squares) / (float)K + NORM_EPS);
#if GENES & FORMS
        if (w.whole != 0.f) r = w.whole;
#endif
    }
    UNROLL for (u32 e = 0; e < N / 2; e++) {
        float x = a[e] * r * w.gain[e], y = b[e] * r * w.gain[N / 2 + e];
        a[e] = x * w.angle[e].x - y * w.angle[e].y, b[e] = y * w.angle[e].x + x * w.angle[e].y;
    }
}

// The score where there is no position: −2^99, which a tagged float holds exactly.
const float EMPTY = -633825300114114700748351602688.f;

const u32 MERGED = 4; // heads of which the warps are put together at a time

// In scratch: the queries of a tile, rows padded so that eight of them lie in all banks; the unit of the newest position.
template <u32 K> struct Staged {
    static const u32 ROW = K + PIECE;
    u16 high[TILE_HEADS * ROW], low[TILE_HEADS * ROW];
    u16 newest[2 * BLOCK_POSITIONS * K]; // of it only row 0 of keys and values is written
    float merge[WARPS * MERGED * ROW];   // what each warp leaves of four heads
};

#if GENES & FORMS
// One over the size of q and of k, all heads of each together. All consumers come here.
APART float2 whole_norms(Shared& shared, const Phase& p, const Step& step, u32 thread)
{
    static_assert(2 * WARPS <= 32, "two sums of each warp");
    u32 lane = thread % 32, warp = thread / 32, queries = p.heads * p.width, all = queries + p.key_heads * p.width;
    float squares[2] = {0.f, 0.f};
    for (u32 c = thread * 4; c < all; c += CONSUMERS * 4) {
        Lanes<4> x;
        for (u32 looks = 0; !look_lanes(x, p.z, c, step.tag);) look_again(looks);
        float square = dot(x, x);
        squares[0] += c < queries ? square : 0.f, squares[1] += c < queries ? 0.f : square;
    }
    warp_sync();
    warp_sums(squares);
    if (lane == 0) shared.sums[warp] = squares[0], shared.sums[WARPS + warp] = squares[1];
    consumers_sync();
    squares[0] = squares[1] = 0.f;
    UNROLL for (u32 w = 0; w < WARPS; w++) squares[0] += shared.sums[w], squares[1] += shared.sums[WARPS + w];
    return make_float2(square_root_reciprocal(squares[0] / (float)queries + NORM_EPS),
                       square_root_reciprocal(squares[1] / (float)(all - queries) + NORM_EPS));
}
#endif

// Brings the queries of the tile, and in the last split the newest key and value, into scratch.
template <int N>
DEVICE void stage_heads(Shared& shared, Staged<32 * N>& staged, const Phase& p, const Step& step, u32 first_head, u32 tile_heads,
                        u32 key_head, bool newest, bool writes, u32 phase, u32 thread)
{
#if GENES & FORMS
    float2 whole = make_float2(0.f, 0.f);
    if (p.gated) whole = whole_norms(shared, p, step, thread);
#endif
    const u32 K = 32 * N, ROW = Staged<K>::ROW;
    u32 lane = thread % 32, warp = thread / 32, tag = step.tag, rows = tile_heads + (newest ? 2 : 0);
    u32 keys_at = (p.heads + key_head) * K, values_at = keys_at + p.key_heads * K;
    u16* cache = (u16*)p.stream + (u64)(key_head * p.cache_blocks + step.position / BLOCK_POSITIONS) * (2 * BLOCK_POSITIONS * K);
    for (u32 row = warp; row < rows; row += WARPS) {
        bool is_query = row < tile_heads, is_key = row == tile_heads;
        Turn<N> turn;
#if GENES & FORMS
        u64 own = !p.gated ? 0 : (u64)(is_query ? first_head + row : key_head) * K * 4;
        read_turn(turn, (is_query ? p.norm : p.k_norm) + own, p.rope, step.position, lane);
        turn.whole = is_query ? whole.x : whole.y;
#else
        read_turn(turn, is_query ? p.norm : p.k_norm, p.rope, step.position, lane);
#endif
        u32 from = (is_query ? (first_head + row) * K : is_key ? keys_at : values_at) + lane * (N / 2);
        Lanes<N / 2> first, second;
#if GENES & TURNING
        Lanes<N / 2> cosine, sine;
#endif
        for (u32 looks = 0;;) {
            bool here = look_lanes(first, p.z, from, tag);
            here = look_lanes(second, p.z, from + K / 2, tag) && here;
#if GENES & TURNING
            if (p.skip != 0) { // angles that are learnt
                u32 at = key_head * (K / 2) + lane * (N / 2);
                here = look_lanes(cosine, p.skip, at, tag) && here;
                here = look_lanes(sine, p.skip, p.key_heads * (K / 2) + at, tag) && here;
            }
#endif
            if (here) break;
            look_again(looks);
        }
        if (row == warp) stamp(step, phase, HAS_WORDS, thread);
        warp_sync();
        float a[N / 2], b[N / 2];
        UNROLL for (u32 e = 0; e < N / 2; e++) a[e] = first.at[e], b[e] = second.at[e];
#if GENES & TURNING
        if (p.skip != 0 && (is_query || is_key)) UNROLL for (u32 e = 0; e < N / 2; e++) {
            a[e] = first.at[e] * cosine.at[e] - second.at[e] * sine.at[e];
            b[e] = second.at[e] * cosine.at[e] + first.at[e] * sine.at[e];
        }
#endif
        if (is_query || is_key) norm_and_rotate<N>(a, b, turn);
        UNROLL for (u32 e = 0; e < N; e++) {
            u32 c = (e < N / 2 ? 0 : K / 2 - N / 2) + lane * (N / 2) + e;
            float x = e < N / 2 ? a[e] : b[e - N / 2];
            if (is_query) {
                x *= p.scale * LOG2_E;
                u32 rounded = bf16_pair(x, 0.f);
                staged.high[row * ROW + c] = (u16)rounded;
                staged.low[row * ROW + c] = (u16)bf16_pair(x - bf16_low(rounded), 0.f);
            } else {
                u16 rounded = (u16)bf16_pair(x, 0.f);
                u32 part = is_key ? 0 : BLOCK_POSITIONS * K;
                staged.newest[part + c] = rounded;
                if (writes) cache[part + cached_at<K>(step.position % BLOCK_POSITIONS, c)] = rounded; // for the steps to come
            }
        }
    }
}

// Attention of one tile of heads over this block's split of the positions. The newest is not in the cache yet: it is a
// unit of its own, the last of the last split.
//
// Scores are keys · queries, [16 positions, 8 heads]; the output is values^T · weights, [K, 8 heads]: both leave
// heads 2t and 2t + 1 to lane (g, t), and so do the largest score and the sum of weights.
template <int N>
DEVICE void attend(Shared& shared, const Phase& described, const Step& step, const Units& units, u32 sequence, u32 phase, u32 thread)
{
    const Phase p = described; // in registers: read before the wait for the queries
    const u32 K = 32 * N, STEPS = K / 16;
    u32 lane = thread % 32, warp = thread / 32, g = lane / 4, t = lane % 4, position = step.position, tag = step.tag;
    u32 item = block_index() + p.rotation;
    if (item >= block_count()) item -= block_count();
    if (item >= p.key_heads * p.tiles * p.splits) return;
    u32 split = item % p.splits, tile = item / p.splits % p.tiles, key_head = item / p.splits / p.tiles;
    u32 group = p.heads / p.key_heads, first_head = key_head * group + tile * TILE_HEADS;
    u32 tile_heads = group - tile * TILE_HEADS < TILE_HEADS ? group - tile * TILE_HEADS : TILE_HEADS;
    bool newest = split + 1 == p.splits;
    u32 oldest = p.window != 0 && position + 1 > p.window ? position + 1 - p.window : 0;
    Staged<K>& staged = *(Staged<K>*)shared.scratch;
    static_assert(sizeof(Staged<K>) <= SCRATCH_BYTES, "queries fit scratch");
    stage_heads<N>(shared, staged, p, step, first_head, tile_heads, key_head, newest, newest && tile == 0, phase, thread);
    consumers_sync();
    stamp(step, phase, HAS_INPUT, thread);

    float largest[2] = {EMPTY, EMPTY}, total[2] = {0.f, 0.f}; // `total` of the positions of this lane
    float out[STEPS][4];                                      // columns 16 m + g, heads 2t and 2t + 1; columns 16 m + g + 8
    UNROLL for (u32 m = 0; m < STEPS; m++) UNROLL for (u32 e = 0; e < 4; e++) out[m][e] = 0.f;
    u32 high[STEPS][2], low[STEPS][2];
    UNROLL for (u32 m = 0; m < STEPS; m += 2) {
        u32 at = lane % 8 * Staged<K>::ROW + (m * 2 + lane / 8) * PIECE, r[4];
        load_matrices(r, staged.high + at);
        high[m][0] = r[0], high[m][1] = r[1], high[m + 1][0] = r[2], high[m + 1][1] = r[3];
        load_matrices(r, staged.low + at);
        low[m][0] = r[0], low[m][1] = r[1], low[m + 1][0] = r[2], low[m + 1][1] = r[3];
    }
    // of the rows that this lane names to `load_matrices`: where they begin, and their permutation of pieces, in bf16
    u32 key_row = lane % 16 * K, key_piece = ((lane / 16) ^ (lane % 8)) * PIECE;
    u32 value_row = (BLOCK_POSITIONS + lane % 8 + lane / 16 * 8) * K, value_piece = ((lane / 8 % 2) ^ (lane % 8)) * PIECE;

    u32 count = units.count + (newest ? 1 : 0);
    for (u32 i = first_unit(sequence, warp); i < count; i += WARPS) {
        bool cached = i < units.count;
        const u16* unit = cached ? (const u16*)wait_slot(shared, sequence + i) : staged.newest;
        if (i < WARPS) stamp(step, phase, HAS_STREAM, thread);
        u32 base = (units.begin + i) * BLOCK_POSITIONS;
        // positions outside the window or not yet written may hold anything: their scores and values are left out
        u32 from = cached && oldest > base ? oldest - base : 0;
        u32 to = !cached ? 1 : position - base < BLOCK_POSITIONS ? position - base : BLOCK_POSITIONS;
        float s0[4] = {0.f, 0.f, 0.f, 0.f}, s1[4] = {0.f, 0.f, 0.f, 0.f}, s2[4] = {0.f, 0.f, 0.f, 0.f}, s3[4] = {0.f, 0.f, 0.f, 0.f};
        UNROLL for (u32 m = 0; m < STEPS; m += 2) {
            u32 a[4], b[4];
            load_matrices(a, unit + key_row + (key_piece ^ (m * 2 * PIECE)));
            load_matrices(b, unit + key_row + (key_piece ^ ((m + 1) * 2 * PIECE)));
            mma(s0, a[0], a[1], a[2], a[3], high[m][0], high[m][1]);
            mma(s1, b[0], b[1], b[2], b[3], high[m + 1][0], high[m + 1][1]);
            mma(s2, a[0], a[1], a[2], a[3], low[m][0], low[m][1]);
            mma(s3, b[0], b[1], b[2], b[3], low[m + 1][0], low[m + 1][1]);
        }
        bool valid0 = g >= from && g < to, valid1 = g + 8 >= from && g + 8 < to;
        float w0[2], w1[2], keep[2];
        UNROLL for (u32 h = 0; h < 2; h++) {
            w0[h] = valid0 ? s0[h] + s1[h] + (s2[h] + s3[h]) : EMPTY;
            w1[h] = valid1 ? s0[2 + h] + s1[2 + h] + (s2[2 + h] + s3[2 + h]) : EMPTY;
        }
        float top[2] = {fmaxf(w0[0], w1[0]), fmaxf(w0[1], w1[1])};
        UNROLL for (u32 mask = 4; mask < 32; mask <<= 1) UNROLL for (u32 h = 0; h < 2; h++) top[h] = fmaxf(top[h], shuffle_xor(top[h], mask));
        UNROLL for (u32 h = 0; h < 2; h++) {
            top[h] = fmaxf(top[h], largest[h]);
            keep[h] = exp2_fast(largest[h] - top[h]);
            w0[h] = valid0 ? exp2_fast(w0[h] - top[h]) : 0.f, w1[h] = valid1 ? exp2_fast(w1[h] - top[h]) : 0.f;
            largest[h] = top[h], total[h] = total[h] * keep[h] + w0[h] + w1[h];
        }
        // weights as a sum of two bf16, positions 2t … of head g
        u32 p0 = bf16_pair(w0[0], w0[1]), p1 = bf16_pair(w1[0], w1[1]);
        u32 rest0 = bf16_pair(w0[0] - bf16_low(p0), w0[1] - bf16_high(p0)), rest1 = bf16_pair(w1[0] - bf16_low(p1), w1[1] - bf16_high(p1));
        p0 = transpose_matrix(p0), p1 = transpose_matrix(p1), rest0 = transpose_matrix(rest0), rest1 = transpose_matrix(rest1);
        u32 mask[2];
        UNROLL for (u32 half = 0; half < 2; half++) {
            u32 r = half * 8 + 2 * t;
            mask[half] = (r >= from && r < to ? 0xffffu : 0u) | (r + 1 >= from && r + 1 < to ? 0xffff0000u : 0u);
        }
        UNROLL for (u32 m = 0; m < STEPS; m++) {
            u32 v[4];
            load_matrices_transposed(v, unit + value_row + (value_piece ^ (m * 2 * PIECE)));
            v[0] &= mask[0], v[1] &= mask[0], v[2] &= mask[1], v[3] &= mask[1];
            out[m][0] *= keep[0], out[m][1] *= keep[1], out[m][2] *= keep[0], out[m][3] *= keep[1];
            mma(out[m], v[0], v[1], v[2], v[3], p0, p1);
            mma(out[m], v[0], v[1], v[2], v[3], rest0, rest1);
        }
        if (cached) release_slot(shared, sequence + i, lane);
    }
    stamp(step, phase, COMPUTED, thread);

    // The warps of the block put together, four heads at a time. What a warp without a unit leaves is not touched.
    UNROLL for (u32 mask = 4; mask < 32; mask <<= 1) UNROLL for (u32 h = 0; h < 2; h++) total[h] += shuffle_xor(total[h], mask);
    if (g == 0) UNROLL for (u32 h = 0; h < 2; h++) ((float2*)shared.softmax)[warp * TILE_HEADS + 2 * t + h] = make_float2(largest[h], total[h]);
    u32* partial = (u32*)p.out + (u64)item * TILE_HEADS * K;
    u32* sums = (u32*)p.gate + (u64)item * TILE_HEADS * 2;
    UNROLL for (u32 round = 0; round < TILE_HEADS; round += MERGED) {
        if (round >= tile_heads) break;
        if (round > 0) consumers_sync();
        if (t / 2 == round / MERGED) UNROLL for (u32 m = 0; m < STEPS; m++) UNROLL for (u32 e = 0; e < 4; e++)
            staged.merge[(warp * MERGED + t % 2 * 2 + e % 2) * Staged<K>::ROW + m * 16 + g + e / 2 * 8] = out[m][e];
        consumers_sync();
        u32 heads = tile_heads - round < MERGED ? tile_heads - round : MERGED;
        for (u32 at = thread; at < heads * K; at += CONSUMERS) {
            u32 h = at / K, column = at % K;
            float2 softmax[WARPS];
            float values[WARPS], top = EMPTY, sum = 0.f, value = 0.f;
            UNROLL for (u32 w = 0; w < WARPS; w++) {
                softmax[w] = ((const float2*)shared.softmax)[w * TILE_HEADS + round + h];
                values[w] = staged.merge[(w * MERGED + h) * Staged<K>::ROW + column];
            }
            UNROLL for (u32 w = 0; w < WARPS; w++) top = fmaxf(top, softmax[w].x);
            top = rounded_to_tagged(top); // any number near the largest serves, if all agree on it
            UNROLL for (u32 w = 0; w < WARPS; w++) {
                float keep = exp2_fast(softmax[w].x - top);
                sum += keep * softmax[w].y;
                value += softmax[w].y > 0.f ? keep * values[w] : 0.f;
            }
            show(partial + (round + h) * K + column, tagged(value, tag));
            if (column == 0) show(sums + (round + h) * 2, tagged(top, tag)), show(sums + (round + h) * 2 + 1, tagged(sum, tag));
        }
    }
}

// out[heads · K]: the splits weighed by their largest scores. A block takes 16 columns of a head at a time, each half
// of a warp other splits.
DEVICE void combine(Shared& shared, const Phase& described, const Step& step, u32 phase, u32 thread)
{
    const Phase p = described; // in registers: read before the wait for the splits
    const u32 COLUMNS = 16, AT_ONCE = 3, STRIDE = 2 * WARPS;
    static_assert(WARPS * COLUMNS <= PARTIALS, "a value of each warp and column");
    u32 tag = step.tag, lane = thread % 32, warp = thread / 32, slices = p.width / COLUMNS, group = p.heads / p.key_heads;
    for (u32 slice = block_index(); slice < p.heads * slices; slice += block_count()) {
        u32 head = slice / slices, column = slice % slices * COLUMNS + lane % COLUMNS;
        u32 key_head = head / group, tile = head % group / TILE_HEADS, h = head % group % TILE_HEADS;
        u32 item = (key_head * p.tiles + tile) * p.splits;
        const uint2* sums = (const uint2*)p.gate + (u64)item * TILE_HEADS + h; // largest score, sum of weights
        const u32* partial = (const u32*)p.x + ((u64)item * TILE_HEADS + h) * p.width + column;
        float top = EMPTY, value = 0.f, total = 0.f;
        for (u32 base = warp * 2; base < p.splits; base += AT_ONCE * STRIDE) {
            u32 first = base + lane / COLUMNS;
            uint2 sum[AT_ONCE];
            u32 values[AT_ONCE];
            for (u32 looks = 0;;) {
                bool here = true;
                UNROLL for (u32 s = 0; s < AT_ONCE; s++) {
                    u32 split = first + s * STRIDE;
                    sum[s] = make_uint2(tagged(EMPTY, tag), tag), values[s] = tag;
                    if (split >= p.splits) continue;
                    sum[s] = look(sums + split * TILE_HEADS);
                    values[s] = look(partial + (u64)split * TILE_HEADS * p.width);
                }
                UNROLL for (u32 s = 0; s < AT_ONCE; s++) here = here && is_of(sum[s], tag) && is_of(values[s], tag);
                if (here) break;
                look_again(looks);
            }
            float higher = top;
            UNROLL for (u32 s = 0; s < AT_ONCE; s++) higher = fmaxf(higher, untagged(sum[s].x));
            float keep = exp2_fast(top - higher);
            total *= keep, value *= keep, top = higher;
            UNROLL for (u32 s = 0; s < AT_ONCE; s++) {
                float weight = exp2_fast(untagged(sum[s].x) - higher);
                total += weight * untagged(sum[s].y), value += weight * untagged(values[s]);
            }
        }
        stamp(step, phase, HAS_WORDS, thread);
        warp_sync();
        float other = shuffle_xor(top, 16), higher = fmaxf(top, other), keep = exp2_fast(top - higher);
        total *= keep, value *= keep;
        total += shuffle_xor(total, 16), value += shuffle_xor(value, 16);
        if (lane < COLUMNS) shared.partial[warp * COLUMNS + lane] = value;
        if (lane == 0) shared.softmax[warp * 2] = higher, shared.softmax[warp * 2 + 1] = total;
        consumers_sync();
        stamp(step, phase, COMPUTED, thread);
        if (thread < COLUMNS) {
            top = EMPTY, value = 0.f, total = 0.f;
            float2 softmax[WARPS];
            float values[WARPS];
            UNROLL for (u32 w = 0; w < WARPS; w++) softmax[w] = ((const float2*)shared.softmax)[w], values[w] = shared.partial[w * COLUMNS + thread];
            UNROLL for (u32 w = 0; w < WARPS; w++) top = fmaxf(top, softmax[w].x);
            UNROLL for (u32 w = 0; w < WARPS; w++) {
                float weight = exp2_fast(softmax[w].x - top);
                total += weight * softmax[w].y, value += weight * values[w];
            }
            show((u32*)p.out + head * p.width + column, tagged(value * reciprocal_fast(total), tag));
        }
        consumers_sync(); // before the next 16 columns
    }
}
