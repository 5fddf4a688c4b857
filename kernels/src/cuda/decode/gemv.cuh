// y = W · norm(x), a share of the rows in each block.

DEVICE u64 best_key(float value, u32 token)
{
    u32 bits = as_bits(value);
    u32 ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (u64)ordered << 32 | (0xffffffffu - token);
}
DEVICE u32 token_of(u64 key) { return 0xffffffffu - (u32)key; }

// The rows of the residual stream that this block owns: those of its share of every
// matrix that writes there (`RESIDUAL`, all dealt alike).
struct Rows { u32 begin, end; };
DEVICE Rows own_rows(u32 d)
{
    u32 groups = (d + ROWS - 1) / ROWS, blocks = block_count(), me = block_index();
    Rows rows = {groups * me / blocks * ROWS, groups * (me + 1) / blocks * ROWS};
    if (rows.end > d) rows.end = d;
    return rows;
}
DEVICE void own_embedding(Shared& shared, const Phase& p, const DecodeArgs& args, u32 token, u32 thread)
{
    Rows rows = own_rows(args.d_model);
    for (u32 row = rows.begin + thread; row < rows.end; row += CONSUMERS) shared.own[row - rows.begin] = embedded(p, token, row);
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
                if (c < p.columns) take_embedded(x[s], p, step.token, c);
                else take(x[s], make_uint4(0, 0, 0, 0));
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

// What is done with the sum of a row; `first_row` is the first of this block.
DEVICE void put_row(Shared& shared, const Phase& p, const Step& step, u32 row, u32 first_row, float value, u64& best)
{
    if (row >= p.rows) return;
    if (p.output == RESIDUAL) {
        float& own = shared.own[row - first_row];
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

// Of two rows next to each other, the gate's and that of the value it opens.
DEVICE void put_pair(const Phase& p, const Step& step, u32 pair, bool mine, float gate, float up)
{
    if (ROWS > 2) mine = mine && pair < p.rows / 2; // there are as many rows as units hold
    if (mine) show((u32*)p.out + pair, tagged(silu(gate) * up, step.tag));
}

DEVICE void gemv(Shared& shared, const Phase& p, const DecodeArgs& args, Control* control, const Step& step,
                 const Units& units, u32 sequence, u32 phase, u32 thread)
{
    u32 lane = thread % 32, warp = thread / 32;
    u32 pieces = p.units_per_group, piece_columns = p.chunks * 256;
    u32 first = first_unit(sequence, warp), piece = pieces == 1 ? 0 : first % pieces; // a block's share begins at the beginning of a group
    u32 padded = pieces * piece_columns, first_group = pieces == 1 ? units.begin : units.begin / pieces, first_row = first_group * ROWS;
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
    float* sums = units.count * ROWS <= PARTIALS ? shared.partial : (float*)shared.scratch + padded; // [units, ROWS]
    for (u32 i = first; i < units.count; i += WARPS) {
        float value;
        const u8* unit = wait_slot(shared, sequence + i);
        if (i == first) stamp(step, phase, HAS_STREAM, thread);
        if (p.chunks == 8) value = rows_times<8>(unit, x, 8, lane);
        else if (p.chunks == 6) value = rows_times<6>(unit, x, 6, lane);
        else value = rows_times<0>(unit, x, p.chunks, lane);
#if WEIGHTS != BF16
        value *= factor_of(unit, p.chunks, row_of(lane));
#endif
        release_slot(shared, sequence + i, lane);
        if (pieces > 1) {
            if (lane % ROW_LANES == 0) sums[i * ROWS + row_of(lane)] = value;
        } else if (p.output == SWIGLU) {
            float up = shuffle_xor(value, 16);
#if GENES & CHOOSING
            if (p.key_heads == BY_GROUP) up *= shared.softmax[(first_group + i) / p.tiles];
#endif
            put_pair(p, step, (first_row + i * ROWS + row_of(lane)) / 2, lane % ROW_LANES == 0 && row_of(lane) % 2 == 0, value * r, up * r);
        } else if (lane % ROW_LANES == 0) {
            put_row(shared, p, step, first_row + i * ROWS + row_of(lane), first_row, value * r, best);
        }
    }
    stamp(step, phase, COMPUTED, thread);
    if (pieces > 1) {
        consumers_sync();
        u32 groups = units.count / pieces;
        for (u32 at = thread; at < groups * ROWS; at += CONSUMERS) {
            u32 j = at / ROWS, pair = at % ROWS / 2 * 2;
            float value[2] = {0.f, 0.f};
            for (u32 q = 0; q < pieces; q++) {
                value[0] += sums[(j * pieces + q) * ROWS + pair];
                value[1] += sums[(j * pieces + q) * ROWS + pair + 1];
            }
#if GENES & CHOOSING
            if (p.key_heads == BY_GROUP) value[1] *= shared.softmax[(first_group + j) / p.tiles];
#endif
            if (p.output != SWIGLU) put_row(shared, p, step, first_row + at, first_row, (at % 2 ? value[1] : value[0]) * r, best);
            else put_pair(p, step, (first_row + at) / 2, at % 2 == 0, value[0] * r, value[1] * r);
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
