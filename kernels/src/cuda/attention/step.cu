// Attention of one token of each sequence over its cache, bound by the bytes of the cache.
//
// A block takes a share of one key head's positions for up to 16 of its query heads, which are the rows of the products. A
// warp goes over units of 16 positions by itself, with its own softmax and its own ring of STAGES units in shared memory;
// the four warps of a block meet at the end. Where blocks are few, SPLITS of them share a key head and `attention_combine`
// weighs what they found.

#ifdef ONE_TOKEN
struct StepArguments {
    const u16* q;             // [B, heads, KW], rows `q_row` apart
    const u16 *keys, *values; // [B, key heads, capacity, KW]; position p at p % capacity
    const u32* positions;     // [B], of the newest key
    u16* out;                 // [B, heads, KW]
    float *partial, *sums;    // [B, heads, splits, KW], [B, heads, splits, 2]: where there is more than one split
    u64 q_row;
    u32 heads, key_heads, tiles, splits, capacity, window;
    float scale;              // times log2 e
};

const u32 STEP_WARPS = 4, STEP_THREADS = 32 * STEP_WARPS, TILE_HEADS = 16, UNIT = 16;

struct StepShared {
    static const u32 q = 0, units = tile_bytes(TILE_HEADS, KW), unit_bytes = 2 * tile_bytes(UNIT, KW),
                     softmax = units + STEP_WARPS * STAGES * unit_bytes, end = softmax + STEP_WARPS * TILE_HEADS * 2 * 4;
};

KERNEL(attention_step, StepArguments, STEP_THREADS)
{
    u8* shared = shared_memory();
    u32 thread = thread_index(), warp = thread / 32, lane = thread % 32, group = lane / 4, pair = lane % 4;
    u32 split = block_index() % args.splits, tile = block_index() / args.splits;
    u32 batch = block_index_y() / args.key_heads, key_head = block_index_y() % args.key_heads, heads = args.heads / args.key_heads;
    u32 first_head = key_head * heads + tile * TILE_HEADS, here = smaller(TILE_HEADS, heads - tile * TILE_HEADS);
    u32 position = load_constant(args.positions + batch);
    u32 oldest = args.window != 0 && position + 1 > args.window ? position + 1 - args.window : 0;
    u32 first_unit = oldest / UNIT, units = position / UNIT + 1 - first_unit;
    u32 begin = first_unit + (u32)((u64)units * split / args.splits), end = first_unit + (u32)((u64)units * (split + 1) / args.splits);
    u32 mine = end > begin + warp ? (end - begin - warp + STEP_WARPS - 1) / STEP_WARPS : 0;
    u64 cache = (u64)block_index_y() * args.capacity * KW;
    u8* ring = shared + StepShared::units + warp * STAGES * StepShared::unit_bytes;
    auto copy_unit = [&](u32 i) {
        if (i < mine) {
            u32 base = (begin + warp + i * STEP_WARPS) * UNIT;
            u64 from = cache + (u64)(base % args.capacity) * KW;
            u8* to = ring + i % STAGES * StepShared::unit_bytes;
            copy_tile<UNIT, KW, 32>(to, args.keys + from, KW, position + 1 - base, lane);
            copy_tile<UNIT, KW, 32>(to + tile_bytes(UNIT, KW), args.values + from, KW, position + 1 - base, lane);
        }
        copies_commit();
    };
    copy_tile<TILE_HEADS, KW, STEP_THREADS>(shared, args.q + batch * args.q_row + first_head * KW, KW, here, thread);
    copies_commit();
    UNROLL for (u32 i = 0; i + 1 < STAGES; i++) copy_unit(i);
    copies_wait<STAGES - 1>();
    block_sync();
    u32 q[KW / 16][4];
    UNROLL for (u32 step = 0; step < KW / 16; step++) load_a<KW>(q[step], shared, 0, step * 16, lane);

    float o[KW / 8][4];
    set_zero(o);
    Softmax softmax = {{nothing(), nothing()}, {0.f, 0.f}};
    for (u32 i = 0; i < mine; i++) {
        copies_wait<STAGES - 2>();
        warp_sync(); // unit i is there for all lanes, and none reads the one before
        copy_unit(i + STAGES - 1);
        const u8* keys = ring + i % STAGES * StepShared::unit_bytes;
        const u8* values = keys + tile_bytes(UNIT, KW);
        u32 base = (begin + warp + i * STEP_WARPS) * UNIT;
        float s[2][4], more[2][4]; // even and odd steps, so that products wait less for each other
        set_zero(s), set_zero(more);
        UNROLL for (u32 step = 0; step < KW / 16; step++) {
            u32 b[4];
            load_b<KW>(b, keys, 0, step * 16, lane);
            if (step % 2 == 0)
                product(s[0], s[1], q[step], b);
            else
                product(more[0], more[1], q[step], b);
        }
        UNROLL for (u32 n = 0; n < 2; n++) UNROLL for (u32 j = 0; j < 4; j++) {
            u32 key = base + n * 8 + 2 * pair + j % 2;
            s[n][j] = key >= oldest && key <= position ? s[n][j] + more[n][j] : nothing();
        }
        soften(softmax, s, o, args.scale);
        u32 weights[4];
        as_operand(weights, s[0], s[1]);
        UNROLL for (u32 n = 0; n < KW / 16; n++) {
            u32 b[4];
            load_b_transposed<KW>(b, values, 0, n * 16, lane);
            product(o[2 * n], o[2 * n + 1], weights, b);
        }
    }
    copies_wait<0>();
    block_sync(); // the rings are free: [warps, heads, KW] fits

    float* all = (float*)(shared + StepShared::units);
    float* softmaxes = (float*)(shared + StepShared::softmax); // [warps, heads, 2]
    UNROLL for (u32 half = 0; half < 2; half++) {
        float sum = softmax.sum[half];
        sum += shuffle_xor(sum, 1);
        sum += shuffle_xor(sum, 2);
        u32 row = warp * TILE_HEADS + half * 8 + group;
        if (pair == 0) softmaxes[2 * row] = softmax.largest[half] * args.scale, softmaxes[2 * row + 1] = sum;
        UNROLL for (u32 n = 0; n < KW / 8; n++) {
            all[row * KW + n * 8 + 2 * pair] = o[n][2 * half];
            all[row * KW + n * 8 + 2 * pair + 1] = o[n][2 * half + 1];
        }
    }
    block_sync();
    for (u32 at = thread; at < here * KW; at += STEP_THREADS) {
        u32 h = at / KW, column = at % KW;
        float top = nothing(), total = 0.f, value = 0.f;
        UNROLL for (u32 w = 0; w < STEP_WARPS; w++) top = fmaxf(top, softmaxes[2 * (w * TILE_HEADS + h)]);
        UNROLL for (u32 w = 0; w < STEP_WARPS; w++) {
            u32 row = w * TILE_HEADS + h;
            float weight = top == nothing() ? 0.f : exp2_fast(softmaxes[2 * row] - top);
            total += weight * softmaxes[2 * row + 1];
            value += weight * all[row * KW + column];
        }
        u64 to = (u64)batch * args.heads + first_head + h;
        if (args.splits == 1) {
            args.out[to * KW + column] = (u16)bf16_pair(value / total, 0.f);
        } else {
            to = to * args.splits + split;
            args.partial[to * KW + column] = value;
            if (column == 0) args.sums[2 * to] = top, args.sums[2 * to + 1] = total;
        }
    }
}

struct CombineArguments {
    const float *partial, *sums;
    u16* out;
    u32 rows, splits;         // B · heads
};

const u32 COMBINE_THREADS = 128;

KERNEL(attention_combine, CombineArguments, COMBINE_THREADS)
{
    u32 at = block_index() * COMBINE_THREADS + thread_index(), row = at / KW, column = at % KW;
    if (row >= args.rows) return;
    const float2* sums = (const float2*)args.sums + (u64)row * args.splits;
    const float* partial = args.partial + (u64)row * args.splits * KW + column;
    float top = nothing(), total = 0.f, value = 0.f;
    UNROLL_BY_FOUR for (u32 s = 0; s < args.splits; s++) top = fmaxf(top, load_constant(sums + s).x);
    UNROLL_BY_FOUR for (u32 s = 0; s < args.splits; s++) { // split 0 or a later one has seen a key
        float2 sum = load_constant(sums + s);
        float weight = exp2_fast(sum.x - top);
        total += weight * sum.y;
        value += weight * load_constant(partial + (u64)s * KW);
    }
    args.out[at] = (u16)bf16_pair(value / total, 0.f);
}
#endif // ONE_TOKEN
