// The same attention where four warps multiply as one (compute capability 9.0), after FlashAttention-3 (arXiv 2407.08608,
// section 3): one warp has the copy engine bring tiles, GROUPS groups of four warps own 64 rows of queries each.
//
// A group starts the scores of a tile, then the product of the weights before with their values, and softens the scores
// while that runs. The groups take turns: one softens while the tensor cores are the other's. A block goes through
// several tiles of queries, of the longest first, and fetches for the next while it ends one.

#ifdef WIDE_PREFILL
struct WideArguments {
    TensorMap q, k, v, out; // [B, H, T, KW] each, in boxes of 64 columns
    u32 tokens, heads, group, window; // heads of a key head; positions seen, 0: all
    u32 pieces, tiles;                // tiles of queries of a head, and of all
    u32 section, all_heads;           // neighbouring heads that are gone through together; batch times heads
    float scale;                      // times log2 e
    u32 unused[7];
};

const u32 WIDE_THREADS = 128 * (GROUPS + 1), QUERIES = 64 * GROUPS, STAGES = 2;
const u32 SLABS = (KW + 63) / 64, ROW = 128;                               // a slab is 64 columns, its rows ROW bytes
const u32 Q_BYTES = SLABS * 64 * ROW, TILE_BYTES = SLABS * KEYS * ROW;     // of a group; of a stage of keys or of values

struct WideShared {
    static const u32 q = 0, out = GROUPS * Q_BYTES, keys = 2 * GROUPS * Q_BYTES, values = keys + STAGES * TILE_BYTES,
                     gates = values + STAGES * TILE_BYTES, end = gates + (2 + 4 * STAGES) * 8;
};

// A tile of queries, and the tiles of keys that some of them see.
struct Place {
    u32 first, head, batch, key_head, begin, end;
};
DEVICE Place place_of(const WideArguments& args, u32 tile)
{
    u32 section = tile / (args.section * args.pieces), within = tile % (args.section * args.pieces);
    u32 heads = smaller(args.section, args.all_heads - section * args.section); // the last section may have fewer
    u32 head = section * args.section + within % heads;
    Place place;
    place.first = (args.pieces - 1 - within / heads) * QUERIES; // those with most keys begin first
    place.batch = head / args.heads;
    place.head = head % args.heads;
    place.key_head = place.head / args.group;
    place.begin = args.window != 0 && place.first + 1 > args.window ? (place.first + 1 - args.window) / KEYS : 0;
    place.end = (smaller(args.tokens, place.first + QUERIES) + KEYS - 1) / KEYS;
    return place;
}
// The tiles of this block: back and forth over the blocks, so that each has as many keys.
DEVICE u32 tile_of_turn(u32 turn)
{
    return turn * block_count() + (turn % 2 == 0 ? block_index() : block_count() - 1 - block_index());
}

// Stages of a ring, in use one after another.
struct Ring {
    Gate *there, *free;
    u8* tiles;
    u32 turn;
    DEVICE_MEMBER u32 stage() const { return turn % STAGES; }
    DEVICE_MEMBER u32 parity() const { return turn / STAGES & 1; }
};
DEVICE Ring ring_of(u8* shared, Gate* gates, u32 tiles)
{
    Ring ring = {gates, gates + STAGES, shared + tiles, 0};
    return ring;
}

// By one thread: tile `i` of keys or values to the ring's next stage.
DEVICE void fetch(Ring& ring, const TensorMap* map, const Place& place, u32 i)
{
    u32 stage = ring.stage();
    if (ring.turn >= STAGES) gate_wait(ring.free + stage, ring.parity() ^ 1);
    gate_expect(ring.there + stage, TILE_BYTES);
    UNROLL for (u32 slab = 0; slab < SLABS; slab++)
        fill_box(ring.tiles + stage * TILE_BYTES + slab * KEYS * ROW, map, slab * 64, i * KEYS, place.key_head, place.batch, ring.there + stage);
    ring.turn++;
}

DEVICE void fetch_all(const WideArguments& args, u8* shared, Gate* q_there, Gate* q_free, Ring keys, Ring values)
{
    u32 turn = 0;
    for (u32 tile; (tile = tile_of_turn(turn)) < args.tiles; turn++) {
        Place place = place_of(args, tile);
        fetch(keys, &args.k, place, place.end - 1);
        if (turn > 0) gate_wait(q_free, (turn + 1) & 1);
        gate_expect(q_there, GROUPS * Q_BYTES);
        UNROLL for (u32 group = 0; group < GROUPS; group++) UNROLL for (u32 slab = 0; slab < SLABS; slab++)
            fill_box(shared + WideShared::q + group * Q_BYTES + slab * 64 * ROW, &args.q, slab * 64, place.first + group * 64, place.head,
                     place.batch, q_there);
        for (u32 i = place.end - 1; i-- > place.begin;) {
            fetch(keys, &args.k, place, i);
            fetch(values, &args.v, place, i + 1);
        }
        fetch(values, &args.v, place, place.begin);
    }
}

// Turns of the groups at the tensor cores: barrier 1 + group lets the group go on, whom the one before it passes the turn.
DEVICE void turn_wait(u32 group) { part_sync(1 + group, 256); }
DEVICE void turn_pass(u32 group) { part_arrive(1 + (group + 1) % GROUPS, 256); }
DEVICE void group_sync(u32 group) { part_sync(1 + GROUPS + group, 128); }

// A group's 64 rows on their way through the keys; a lane has rows `quad` and `quad` + 8 of its warp's 16.
struct Rows {
    float o[KW / 8][4];
    u32 weights[KEYS / 16][4];
    float largest[2], sum[2]; // as in `Softmax`
    float keep[2];            // what is left of earlier weights, if the scores have grown
    bool grew;
};

// As `soften`, but what was summed so far is still being added to: it shrinks later, by `keep`.
DEVICE void soften_ahead(Rows& rows, float (&s)[KEYS / 8][4], float scale)
{
    float high[2];
    bool grows = false;
    UNROLL for (u32 half = 0; half < 2; half++) {
        high[half] = rows.largest[half];
        UNROLL for (u32 n = 0; n < KEYS / 8; n++) high[half] = fmaxf(high[half], fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        high[half] = fmaxf(high[half], shuffle_xor(high[half], 1));
        high[half] = fmaxf(high[half], shuffle_xor(high[half], 2));
        grows = grows || (high[half] - rows.largest[half]) * scale > 8.f; // −∞ from −∞ is no number, and does not grow
    }
    rows.grew = warp_any(grows);
    if (rows.grew) UNROLL for (u32 half = 0; half < 2; half++) {
        rows.keep[half] = high[half] == rows.largest[half] ? 1.f : exp2_fast((rows.largest[half] - high[half]) * scale);
        rows.largest[half] = high[half];
        rows.sum[half] *= rows.keep[half];
    }
    UNROLL for (u32 half = 0; half < 2; half++) {
        float base = rows.largest[half] == nothing() ? 0.f : rows.largest[half] * scale; // a row that has seen no key yet
        UNROLL for (u32 n = 0; n < KEYS / 8; n++) UNROLL for (u32 i = 2 * half; i < 2 * half + 2; i++) {
            s[n][i] = exp2_fast(s[n][i] * scale - base);
            rows.sum[half] += s[n][i];
        }
    }
}

DEVICE void start_scores(float (&s)[KEYS / 8][4], u64 q, u64 keys, u32 stage)
{
    u64 k = keys + stage * (TILE_BYTES / 16);
    UNROLL for (u32 step = 0; step < KW / 16; step++)
        wide_product<KEYS>(s, q + step / 4 * (64 * ROW / 16) + step % 4 * 2, k + step / 4 * (KEYS * ROW / 16) + step % 4 * 2, step != 0);
}
DEVICE void start_outputs(Rows& rows, u64 values, u32 stage)
{
    u64 v = values + stage * (TILE_BYTES / 16);
    UNROLL for (u32 step = 0; step < KEYS / 16; step++) wide_product<KW>(rows.o, rows.weights[step], v + step * ROW);
}

KERNEL(attention_prefill_wide, WideArguments, WIDE_THREADS)
{
    u8* shared = shared_memory();
    u32 thread = thread_index();
    Gate *q_there = (Gate*)(shared + WideShared::gates), *q_free = q_there + 1;
    Ring keys = ring_of(shared, q_there + 2, WideShared::keys), values = ring_of(shared, q_there + 2 + 2 * STAGES, WideShared::values);
    if (thread == 0) {
        gate_init(q_there, 1);
        gate_init(q_free, GROUPS);
        UNROLL for (u32 stage = 0; stage < STAGES; stage++) {
            gate_init(keys.there + stage, 1);
            gate_init(values.there + stage, 1);
            gate_init(keys.free + stage, 4 * GROUPS);
            gate_init(values.free + stage, 4 * GROUPS);
        }
        gates_ready();
    }
    block_sync();
    if (thread < 128) {
        registers_give<GROUPS == 3 ? 32 : 24>();
        if (thread == 0) fetch_all(args, shared, q_there, q_free, keys, values);
        return;
    }
    registers_take<GROUPS == 3 ? 160 : 240>();
    u32 group = thread / 128 - 1, warp = thread / 32 % 4, lane = thread % 32, quad = lane / 4, pair = lane % 4;
    u64 q = operand(shared + WideShared::q + group * Q_BYTES, 16, 8 * ROW);
    u64 k = operand(keys.tiles, 16, 8 * ROW), v = operand(values.tiles, KEYS * ROW, 8 * ROW);
    if (group == GROUPS - 1) turn_pass(group);
    u32 turn = 0;
    for (u32 tile; (tile = tile_of_turn(turn)) < args.tiles; turn++) {
        Place place = place_of(args, tile);
        u32 group_first = place.first + group * 64, row = group_first + warp * 16 + quad;
        Rows rows;
        set_zero(rows.o);
        UNROLL for (u32 half = 0; half < 2; half++) rows.largest[half] = nothing(), rows.sum[half] = 0.f;
        auto mask = [&](float (&s)[KEYS / 8][4], u32 i) {
            u32 base = i * KEYS;
            if (base + KEYS - 1 > group_first || (args.window != 0 && base + args.window <= group_first + 63)) // some of these pairs are not seen
                UNROLL for (u32 n = 0; n < KEYS / 8; n++) UNROLL for (u32 j = 0; j < 4; j++) {
                    u32 key = base + n * 8 + 2 * pair + j % 2, query = row + j / 2 * 8;
                    if (key > query || (args.window != 0 && key + args.window <= query)) s[n][j] = nothing();
                }
        };
        auto as_weights = [&](const float (&s)[KEYS / 8][4]) {
            UNROLL for (u32 step = 0; step < KEYS / 16; step++) as_operand(rows.weights[step], s[2 * step], s[2 * step + 1]);
        };
        auto release = [&](Ring& ring) {
            if (lane == 0) gate_arrive(ring.free + ring.stage());
            ring.turn++;
        };
        gate_wait(q_there, turn & 1);
        u32 i = place.end - 1;
        {
            float s[KEYS / 8][4];
            gate_wait(keys.there + keys.stage(), keys.parity());
            products_begin();
            start_scores(s, q, k, keys.stage());
            products_commit();
            products_wait<0>();
            settle(s);
            release(keys);
            mask(s, i);
            soften_ahead(rows, s, args.scale);
            as_weights(s);
        }
        while (i-- > place.begin) {
            float s[KEYS / 8][4];
            gate_wait(keys.there + keys.stage(), keys.parity());
            turn_wait(group);
            settle(rows.weights);
            settle(rows.o);
            products_begin();
            start_scores(s, q, k, keys.stage());
            products_commit();
            gate_wait(values.there + values.stage(), values.parity());
            start_outputs(rows, v, values.stage());
            products_commit();
            turn_pass(group);
            products_wait<1>();
            settle(s);
            release(keys);
            mask(s, i);
            soften_ahead(rows, s, args.scale);
            settle(s);
            hold_back(rows.sum[0] + rows.sum[1]);
            products_wait<0>();
            settle(rows.o);
            settle(rows.weights);
            release(values);
            as_weights(s);
            if (rows.grew) UNROLL for (u32 n = 0; n < KW / 8; n++) UNROLL for (u32 j = 0; j < 4; j++) rows.o[n][j] *= rows.keep[j / 2];
        }
        if (thread % 128 == 0) stores_read(); // the last tile's outputs have left
        group_sync(group);                    // and nobody reads the queries
        if (thread % 128 == 0) gate_arrive(q_free);
        gate_wait(values.there + values.stage(), values.parity());
        settle(rows.weights);
        settle(rows.o);
        products_begin();
        start_outputs(rows, v, values.stage());
        products_commit();
        float by[2];
        UNROLL for (u32 half = 0; half < 2; half++) {
            by[half] = rows.sum[half] + shuffle_xor(rows.sum[half], 1);
            by[half] = reciprocal_fast(by[half] + shuffle_xor(by[half], 2));
        }
        products_wait<0>();
        settle(rows.o);
        release(values);
        u8* staged = shared + WideShared::out + group * Q_BYTES;
        UNROLL for (u32 half = 0; half < 2; half++) {
            u8* to = staged + (warp * 16 + half * 8 + quad) * ROW + pair * 4;
            UNROLL for (u32 n = 0; n < KW / 8; n++)
                *(u32*)(to + n / 8 * (64 * ROW) + (n % 8 ^ quad) * 16) = bf16_pair(rows.o[n][2 * half] * by[half], rows.o[n][2 * half + 1] * by[half]);
        }
        show_to_engine();
        group_sync(group);
        if (thread % 128 == 0) {
            UNROLL for (u32 slab = 0; slab < SLABS; slab++)
                store_box(&args.out, staged + slab * 64 * ROW, slab * 64, group_first, place.head, place.batch);
            stores_commit();
        }
    }
    if (thread % 128 == 0) stores_done();
}
#endif // WIDE_PREFILL
