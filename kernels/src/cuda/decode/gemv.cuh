// y = W · norm(x), a share of the rows in each block.

DEVICE u64 best_key(float value, u32 token)
{
    u32 bits = as_bits(value);
    u32 ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (u64)ordered << 32 | (0xffffffffu - token);
}
DEVICE u32 token_of(u64 key) { return 0xffffffffu - (u32)key; }

// Element `column` of the embedding of a token; both are even or follow each other by 8.
DEVICE const u16* embedding(const Phase& p, u32 token, u32 column)
{
    // the head's layout (see `program.rs`): units of two rows × chunks · 256 columns
    u32 piece_columns = p.chunks * 256, unit = token / 2 * p.units_per_group + column / piece_columns;
    return (const u16*)p.x + (u64)unit * 2 * piece_columns + token % 2 * piece_columns + column % piece_columns;
}

// The rows of the residual stream that this block owns: those of its share of every
// matrix that writes there (`RESIDUAL`, all dealt alike).
DEVICE void own_embedding(Shared& shared, const Phase& p, const DecodeArgs& args, u32 token, u32 thread)
{
    u32 pairs = (args.d_model + 1) / 2, blocks = block_count(), me = block_index();
    u32 begin = pairs * me / blocks * 2, end = pairs * (me + 1) / blocks * 2;
    for (u32 row = begin + thread; row < end && row < args.d_model; row += CONSUMERS)
        shared.own[row - begin] = bf16_low(load_constant(embedding(p, token, row)));
}

// Eight neighbouring columns of the input.
struct Eight { float at[8]; };
DEVICE void take(Eight& e, uint4 a, uint4 b)
{
    e.at[0] = untagged(a.x), e.at[1] = untagged(a.y), e.at[2] = untagged(a.z), e.at[3] = untagged(a.w);
    e.at[4] = untagged(b.x), e.at[5] = untagged(b.y), e.at[6] = untagged(b.z), e.at[7] = untagged(b.w);
}

// Brings the input, weighed by the norm's weights and the gate but not yet divided by its
// size, into scratch as two bf16 vectors: high parts [padded], then low parts. Returns the
// sum of this thread's squares. `padded` is a multiple of 256.
// A thread asks for ASKED times 8 columns at once, as many as there are registers for.
template <Input INPUT, u32 ASKED>
DEVICE float stage_input(Shared& shared, const Phase& p, const Step& step, u32 padded, u32 phase, u32 thread)
{
    uint4* high = (uint4*)shared.scratch;
    uint4* low = high + padded / 8;
    const bool OF_HEADS = INPUT == HEAD_NORM || INPUT == HEAD_NORM_SIGMOID, UNNORMED = INPUT == PLAIN || INPUT == GATED || INPUT == RAW_EMBEDDING;
    float squares = 0.f;
    bool is_gated = (OF_HEADS || INPUT == GATED) && p.gate != 0;
    for (u32 first = 0; first < padded; first += ASKED * CONSUMERS * 8) {
        float4 gain[ASKED][2];
        UNROLL for (u32 s = 0; s < ASKED; s++) {
            u32 c = first + (s * CONSUMERS + thread) * 8;
            gain[s][0] = make_float4(1.f, 1.f, 1.f, 1.f), gain[s][1] = gain[s][0];
            if (UNNORMED || c >= p.columns) continue;
            const float4* from = (const float4*)p.norm + (OF_HEADS ? c % p.value_width : c) / 4;
            gain[s][0] = load_constant(from);
            if (c + 4 < p.columns) gain[s][1] = load_constant(from + 1);
        }
        Eight x[ASKED], gate[ASKED];
        if (INPUT == EMBEDDING || INPUT == RAW_EMBEDDING) {
            UNROLL for (u32 s = 0; s < ASKED; s++) {
                u32 c = first + (s * CONSUMERS + thread) * 8;
                uint4 bits = make_uint4(0, 0, 0, 0);
                if (c < p.columns) bits = load_constant((const uint4*)embedding(p, step.token, c));
                x[s].at[0] = bf16_low(bits.x), x[s].at[1] = bf16_high(bits.x), x[s].at[2] = bf16_low(bits.y), x[s].at[3] = bf16_high(bits.y);
                x[s].at[4] = bf16_low(bits.z), x[s].at[5] = bf16_high(bits.z), x[s].at[6] = bf16_low(bits.w), x[s].at[7] = bf16_high(bits.w);
            }
        } else {
            uint4 words[ASKED][2], gates[ASKED][2];
            const uint4 none = make_uint4(step.tag, step.tag, step.tag, step.tag);
            for (u32 looks = 0;;) {
                bool here = true;
                UNROLL for (u32 s = 0; s < ASKED; s++) UNROLL for (u32 half = 0; half < 2; half++) {
                    u32 c = first + (s * CONSUMERS + thread) * 8 + half * 4;
                    words[s][half] = c < p.columns ? look((const uint4*)p.x + c / 4) : none;
                    gates[s][half] = none;
                    if (is_gated && c < p.columns) gates[s][half] = look((const uint4*)p.gate + c / 4);
                }
                UNROLL for (u32 s = 0; s < ASKED; s++) UNROLL for (u32 half = 0; half < 2; half++)
                    here = here && is_of(words[s][half], step.tag) && is_of(gates[s][half], step.tag);
                if (here) break;
                look_again(looks);
            }
            UNROLL for (u32 s = 0; s < ASKED; s++) take(x[s], words[s][0], words[s][1]), take(gate[s], gates[s][0], gates[s][1]);
        }
        if (first == 0) {
            stamp(step, phase, HAS_WORDS, thread);
            consumers_sync(); // nobody reads the last phase's input or sums any more
        }
        UNROLL for (u32 s = 0; s < ASKED; s++) {
            u32 at = first + (s * CONSUMERS + thread) * 8;
            float square = 0.f;
            UNROLL for (u32 e = 0; e < 8; e++) square += x[s].at[e] * x[s].at[e];
            float r = 1.f;
            if (OF_HEADS) {
                // value_width / 8 neighbouring threads hold one head
                warp_sync();
                u32 lanes = p.value_width / 8;
                UNROLL for (u32 mask = 16; mask > 0; mask >>= 1) {
                    float other = shuffle_xor(square, mask);
                    if (mask < lanes) square += other;
                }
                r = square_root_reciprocal(square / (float)p.value_width + NORM_EPS);
            } else {
                squares += square;
            }
            if (at >= padded) continue;
            float v[8];
            UNROLL for (u32 e = 0; e < 8; e++) v[e] = x[s].at[e] * r;
            v[0] *= gain[s][0].x, v[1] *= gain[s][0].y, v[2] *= gain[s][0].z, v[3] *= gain[s][0].w;
            v[4] *= gain[s][1].x, v[5] *= gain[s][1].y, v[6] *= gain[s][1].z, v[7] *= gain[s][1].w;
            if (is_gated) UNROLL for (u32 e = 0; e < 8; e++) v[e] *= INPUT == HEAD_NORM ? silu(gate[s].at[e]) : sigmoid(gate[s].at[e]);
            uint4 h = make_uint4(bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3]), bf16_pair(v[4], v[5]), bf16_pair(v[6], v[7]));
            high[at / 8] = h;
            low[at / 8] = make_uint4(bf16_pair(v[0] - bf16_low(h.x), v[1] - bf16_high(h.x)), bf16_pair(v[2] - bf16_low(h.y), v[3] - bf16_high(h.y)),
                                     bf16_pair(v[4] - bf16_low(h.z), v[5] - bf16_high(h.z)), bf16_pair(v[6] - bf16_low(h.w), v[7] - bf16_high(h.w)));
        }
    }
    return squares;
}

// A warp's part of the input: the columns that lane i multiplies, 8 of each chunk. A warp
// meets only one piece of the columns, as the pieces of a row divide WARPS. High parts stay
// in registers through the phase; for the low parts there is no room.
struct Columns {
    uint4 high[UNIT_CHUNKS];
    const uint4* low;
};

// Two rows of W times x over chunks · 256 columns: the lower half of the warp gets the sum of
// the first row, the upper half that of the second.
//
// The tensor core is used sideways. Lane (g, t) holds 8 neighbouring columns of both
// rows; block g of 32 columns of the first row is row g of A, of the second row g + 8;
// the same columns of x are column g of B. The diagonals of the two halves of D are
// then the sums wanted: one product per 256 weights, no conversion to fp32 at all.
template <u32 CHUNKS> // 0: as many as `chunks` says
DEVICE float two_rows(const u8* unit, const Columns& x, u32 chunks, u32 lane)
{
    const uint4* row0 = (const uint4*)unit + lane;
    const uint4* row1 = row0 + (CHUNKS != 0 ? CHUNKS : chunks) * 32;
    float d0[4] = {0.f, 0.f, 0.f, 0.f}, d1[4] = {0.f, 0.f, 0.f, 0.f};
    float d2[4] = {0.f, 0.f, 0.f, 0.f}, d3[4] = {0.f, 0.f, 0.f, 0.f};
    UNROLL for (u32 c = 0; c < (CHUNKS != 0 ? CHUNKS : UNIT_CHUNKS); c++) {
        if (CHUNKS == 0 && c >= chunks) break;
        uint4 a = row0[c * 32], b = row1[c * 32], low = x.low[c * 32];
        mma(d0, a.x, b.x, a.y, b.y, x.high[c].x, x.high[c].y);
        mma(d1, a.z, b.z, a.w, b.w, x.high[c].z, x.high[c].w);
        mma(d2, a.x, b.x, a.y, b.y, low.x, low.y);
        mma(d3, a.z, b.z, a.w, b.w, low.z, low.w);
    }
    u32 g = lane / 4, t = lane % 4, odd = g & 1;
    bool diagonal = t == g / 2;
    float s0 = odd ? d0[1] + d1[1] + d2[1] + d3[1] : d0[0] + d1[0] + d2[0] + d3[0];
    float s1 = odd ? d0[3] + d1[3] + d2[3] + d3[3] : d0[2] + d1[2] + d2[2] + d3[2];
    // the halves of the warp exchange one of the two, then each sums its own
    s0 = diagonal ? s0 : 0.f, s1 = diagonal ? s1 : 0.f;
    bool upper = lane >= 16;
    float sum = upper ? s1 : s0, other = shuffle_xor(upper ? s0 : s1, 16);
    sum += other;
    UNROLL for (u32 mask = 8; mask > 0; mask >>= 1) sum += shuffle_xor(sum, mask);
    return sum;
}

// What is done with the sums of a pair of rows; `r` of the two is this thread's.
DEVICE void put_row(Shared& shared, const Phase& p, const Step& step, u32 pair, u32 first_pair, u32 r, float value, u64& best)
{
    u32 row = pair * 2 + r;
    if (row >= p.rows) return;
    if (p.output == RESIDUAL) {
        float& own = shared.own[row - first_pair * 2];
        own += value;
        show((u32*)p.out + row, tagged(own, step.tag));
    } else if (p.output == LOGITS) {
        ((float*)p.out)[row] = value;
        u64 key = best_key(value, row);
        best = key > best ? key : best;
    } else {
#if GENES & FORMS
        if (p.output == RELU2) value = fmaxf(value, 0.f) * value;
        else if (p.now != 0) value += await(p.now, row, step.tag);
#endif
        show((u32*)p.out + row, tagged(value, step.tag));
        if (row < p.ring_rows) ((float*)p.ring)[(step.position & 3) * p.ring_rows + row] = value; // for the steps to come
    }
}

DEVICE void gemv(Shared& shared, const Phase& p, const DecodeArgs& args, Control* control, const Step& step,
                 const Units& units, u32 sequence, u32 phase, u32 thread)
{
    u32 lane = thread % 32, warp = thread / 32;
    u32 pieces = p.units_per_group, piece_columns = p.chunks * 256;
    u32 first = first_unit(sequence, warp), piece = pieces == 1 ? 0 : first % pieces; // a block's share begins at the beginning of a group
    u32 padded = pieces * piece_columns, first_pair = pieces == 1 ? units.begin : units.begin / pieces;
    float squares = 0.f;
    if (p.input == RMS_NORM) squares = stage_input<RMS_NORM, 2>(shared, p, step, padded, phase, thread);
    else if (p.input == PLAIN) stage_input<PLAIN, 3>(shared, p, step, padded, phase, thread);
    else if (p.input == HEAD_NORM) stage_input<HEAD_NORM, 1>(shared, p, step, padded, phase, thread);
#if GENES & FORMS
    else if (p.input == GATED) stage_input<GATED, 2>(shared, p, step, padded, phase, thread);
    else if (p.input == HEAD_NORM_SIGMOID) stage_input<HEAD_NORM_SIGMOID, 1>(shared, p, step, padded, phase, thread);
    else if (p.input == RAW_EMBEDDING) stage_input<RAW_EMBEDDING, 1>(shared, p, step, padded, phase, thread);
#endif
    else squares = stage_input<EMBEDDING, 1>(shared, p, step, padded, phase, thread);
    warp_sync();
    squares = warp_sum(squares);
    if (lane == 0) shared.sums[warp] = squares;
#if GENES & CHOOSING
    if (p.key_heads == BY_GROUP && warp == 0) {
        Choice choice = choose(p, step.tag, lane);
        if (lane < p.splits) shared.softmax[lane] = choice.weight;
    }
#endif
    enter(shared, args, phase, thread);
    Columns x;
    const uint4* high = (const uint4*)shared.scratch + piece * p.chunks * 32 + lane;
    x.low = high + padded / 8;
    if (first < units.count) UNROLL for (u32 c = 0; c < UNIT_CHUNKS; c++) {
        if (c >= p.chunks) break;
        x.high[c] = high[c * 32];
    }
    float r = 1.f;
    if (p.input == RMS_NORM || p.input == EMBEDDING) {
        float sum = 0.f;
        UNROLL for (u32 w = 0; w < WARPS; w++) sum += shared.sums[w];
        r = square_root_reciprocal(sum / (float)p.columns + NORM_EPS);
    }
    stamp(step, phase, HAS_INPUT, thread);

    u64 best = 0;
    float* sums = units.count * 2 <= PARTIALS ? shared.partial : (float*)shared.scratch + padded; // [units][2]
    for (u32 i = first; i < units.count; i += WARPS) {
        float value;
        const u8* unit = wait_slot(shared, sequence + i);
        if (i == first) stamp(step, phase, HAS_STREAM, thread);
        if (p.chunks == 8) value = two_rows<8>(unit, x, 8, lane);
        else if (p.chunks == 6) value = two_rows<6>(unit, x, 6, lane);
        else value = two_rows<0>(unit, x, p.chunks, lane);
        release_slot(shared, sequence + i, lane);
        if (pieces > 1) {
            if (lane % 16 == 0) sums[i * 2 + lane / 16] = value;
        } else if (p.output == SWIGLU) {
            float up = shuffle_xor(value, 16);
#if GENES & CHOOSING
            if (p.key_heads == BY_GROUP) up *= shared.softmax[(first_pair + i) / p.tiles];
#endif
            if (lane == 0) show((u32*)p.out + first_pair + i, tagged(silu(value * r) * (up * r), step.tag));
        } else if (lane % 16 == 0) {
            put_row(shared, p, step, first_pair + i, first_pair, lane / 16, value * r, best);
        }
    }
    stamp(step, phase, COMPUTED, thread);
    if (pieces > 1) {
        consumers_sync();
        u32 pairs = units.count / pieces;
        for (u32 at = thread; at < pairs * 2; at += CONSUMERS) {
            u32 j = at / 2;
            float value[2] = {0.f, 0.f};
            for (u32 q = 0; q < pieces; q++) {
                value[0] += sums[(j * pieces + q) * 2];
                value[1] += sums[(j * pieces + q) * 2 + 1];
            }
#if GENES & CHOOSING
            if (p.key_heads == BY_GROUP) value[1] *= shared.softmax[(first_pair + j) / p.tiles];
#endif
            if (p.output != SWIGLU) put_row(shared, p, step, first_pair + j, first_pair, at % 2, (at % 2 ? value[1] : value[0]) * r, best);
            else if (at % 2 == 0) show((u32*)p.out + first_pair + j, tagged(silu(value[0] * r) * (value[1] * r), step.tag));
        }
    }
    if (p.output == LOGITS) {
        // one atomic a block: all blocks meet at one address
        warp_sync();
        UNROLL for (u32 mask = 16; mask > 0; mask >>= 1) {
            u32 high = as_bits(shuffle_xor(as_float((u32)(best >> 32)), mask));
            u32 low = as_bits(shuffle_xor(as_float((u32)best), mask));
            u64 other = (u64)high << 32 | low;
            best = other > best ? other : best;
        }
        u64* keys = (u64*)shared.softmax;
        if (lane == 0) keys[warp] = best;
        consumers_sync();
        if (thread == 0) {
            for (u32 w = 1; w < WARPS; w++) best = keys[w] > best ? keys[w] : best;
            atomic_max(&control->next[(step.position + 1) & 1], best);
        }
    }
}
