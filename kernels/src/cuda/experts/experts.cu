// A mixture of experts over rows of tokens: each goes through the experts that it chose, no other weight is read, and none is
// ever full. Choices are put in the order of their experts, each expert's in tiles of ROWS rows (`slots`), which products of
// tensor cores then go through; what a token's experts say is added up at the end.

const u32 EXPERTS_THREADS = 128, ROWS = 64, COLUMNS = 64, DEEP = 64; // of a tile: rows, columns of a result, what is summed over
const u32 NOTHING = 0xffffffffu;

struct RouteArguments {
    const float* logits;      // [rows, experts], rows `logits_row` apart
    u32* chosen;              // [rows, per token]
    float* weights;           // [rows, per token]
    u64 logits_row;
    u32 rows, experts, per_token;
};

// A warp to a token: the k largest logits, of equal ones the first, and their softmax; of a single one that over all.
KERNEL(experts_route, RouteArguments, EXPERTS_THREADS)
{
    const u32 MOST = 32; // times 32 experts
    u32 row = block_index() * (EXPERTS_THREADS / 32) + thread_index() / 32, lane = thread_index() % 32;
    if (row >= args.rows) return;
    const float LEAST = as_float(0xff800000u); // −∞
    float logits[MOST], value = LEAST, largest = 0.f, total = 0.f;
    UNROLL for (u32 i = 0; i < MOST; i++)
        logits[i] = i * 32 + lane < args.experts ? load_constant(args.logits + row * args.logits_row + i * 32 + lane) : LEAST;
    for (u32 j = 0; j < args.per_token; j++) {
        float best = LEAST;
        u32 at = NOTHING;
        UNROLL for (u32 i = 0; i < MOST; i++) if (logits[i] > best) best = logits[i], at = i * 32 + lane;
        UNROLL for (u32 mask = 16; mask > 0; mask >>= 1) {
            float other = shuffle_xor(best, mask);
            u32 its = as_bits(shuffle_xor(as_float(at), mask));
            if (other > best || (other == best && its < at)) best = other, at = its;
        }
        if (j == 0) largest = best;
        if (lane == j) args.chosen[row * args.per_token + j] = at, value = best;
        UNROLL for (u32 i = 0; i < MOST; i++) if (i * 32 + lane == at) logits[i] = LEAST;
    }
    if (args.per_token == 1) {
        UNROLL for (u32 i = 0; i < MOST; i++) total += exp_fast(logits[i] - largest);
        total = warp_sum(total) + 1.f;
    } else {
        total = warp_sum(exp_fast(value - largest));
    }
    if (lane < args.per_token) args.weights[row * args.per_token + lane] = exp_fast(value - largest) / total;
}

struct OrderArguments {
    const u32* chosen;        // [choices]
    u32* counts;              // [experts]
    u32* slots;               // [tiles · ROWS]: the choice that stands there, or NOTHING
    u32* places;              // [choices]: its slot
    u32* tiles;               // [tiles]: its expert, or NOTHING
    u32 choices, experts, tile_count;
};

// The sum of `mine` over the threads before this one, and over all. All threads of the block come here.
DEVICE u32 sum_before(u32 mine, u32* shared, u32& all)
{
    u32 lane = thread_index() % 32, warp = thread_index() / 32;
    float sum = (float)mine; // at most 128: exact
    for (u32 distance = 1; distance < 32; distance *= 2) {
        float before = shuffle_from(sum, lane >= distance ? lane - distance : lane);
        if (lane >= distance) sum += before;
    }
    block_sync(); // the sums before are read
    if (lane == 31) shared[warp] = (u32)sum;
    block_sync();
    u32 before = (u32)sum - mine;
    all = 0;
    UNROLL for (u32 w = 0; w < EXPERTS_THREADS / 32; w++) before += w < warp ? shared[w] : 0, all += shared[w];
    return before;
}

// Block e counts the choices of expert e.
KERNEL(experts_count, OrderArguments, EXPERTS_THREADS)
{
    u32* shared = (u32*)shared_memory();
    u32 expert = block_index(), mine = 0, all;
    for (u32 i = thread_index(); i < args.choices; i += EXPERTS_THREADS) mine += load_constant(args.chosen + i) == expert ? 1 : 0;
    u32 lane = thread_index() % 32;
    float sum = warp_sum((float)mine); // fewer than 2^24 choices: exact
    if (lane == 0) shared[thread_index() / 32] = (u32)sum;
    block_sync();
    all = 0;
    UNROLL for (u32 w = 0; w < EXPERTS_THREADS / 32; w++) all += shared[w];
    if (thread_index() == 0) args.counts[expert] = all;
}

// Block e puts them in their slots, in their order; the last one says of which tiles there is no expert.
KERNEL(experts_place, OrderArguments, EXPERTS_THREADS)
{
    u32* shared = (u32*)shared_memory();
    u32 expert = block_index(), thread = thread_index(), first = 0, all;
    for (u32 e = 0; e < expert; e++) first += (load_constant(args.counts + e) + ROWS - 1) / ROWS;
    u32 count = load_constant(args.counts + expert), own = (count + ROWS - 1) / ROWS, slot = first * ROWS;
    for (u32 tile = thread; tile < own; tile += EXPERTS_THREADS) args.tiles[first + tile] = expert;
    if (expert + 1 == args.experts)
        for (u32 tile = first + own + thread; tile < args.tile_count; tile += EXPERTS_THREADS) args.tiles[tile] = NOTHING;
    for (u32 at = slot + count + thread; at < (first + own) * ROWS; at += EXPERTS_THREADS) args.slots[at] = NOTHING;
    for (u32 base = 0; base < args.choices; base += EXPERTS_THREADS) {
        u32 choice = base + thread;
        bool mine = choice < args.choices && load_constant(args.chosen + choice) == expert;
        u32 to = slot + sum_before(mine ? 1 : 0, shared, all);
        if (mine) args.slots[to] = choice, args.places[choice] = to;
        slot += all;
    }
}

struct ProductArguments {
    const u16* x;             // rows of tokens `x_row` apart, or [slots, inputs]
    const u16 *weight, *up;   // [experts, outputs, inputs]; up: the second matrix of a SwiGLU, or null
    const u32 *slots, *tiles;
    const float* weights;     // [choices], that multiply the result, or null
    u16* y;                   // [slots, outputs]
    u64 x_row;
    u32 inputs, outputs, per_token; // per token 0: x is by slots
};

struct ProductShared {
    static const u32 x = 0, weight = tile_bytes(ROWS, DEEP), up = weight + tile_bytes(COLUMNS, DEEP), stage = up + tile_bytes(COLUMNS, DEEP),
                     end = 2 * stage;
};

// Of a tile of slots: y = x Wᵀ, or SiLU(x Wᵀ) ⊙ x W'ᵀ (GATED 1), W those of its expert.
KERNEL_BESIDE(experts_product, ProductArguments, EXPERTS_THREADS, 3)
{
    u8* shared = shared_memory();
    u32 thread = thread_index(), warp = thread / 32, lane = thread % 32, group = lane / 4, pair = lane % 4;
    u32 column = block_index() * COLUMNS, tile = block_index_y(), expert = load_constant(args.tiles + tile);
    if (expert == NOTHING) return;
    const u32 PIECES = DEEP / 8, STEP = EXPERTS_THREADS / PIECES; // rows that all threads copy at once
    u32 row = thread / PIECES, piece = thread % PIECES * 8;
    const u16* from[ROWS / STEP];
    UNROLL for (u32 i = 0; i < ROWS / STEP; i++) {
        u32 slot = tile * ROWS + row + i * STEP, choice = load_constant(args.slots + slot);
        from[i] = choice == NOTHING ? nullptr : args.x + (args.per_token != 0 ? choice / args.per_token : slot) * args.x_row + piece;
    }
    u64 matrix = (u64)expert * args.outputs * args.inputs;
    auto copy = [&](u32 i) {
        u8* to = shared + i % 2 * ProductShared::stage;
        u32 at = i * DEEP;
        bool there = at + piece < args.inputs;
        UNROLL for (u32 r = 0; r < ROWS / STEP; r++) {
            bool has = there && from[r] != nullptr;
            copy16_or_zero(to + ProductShared::x + (row + r * STEP) * row_bytes(DEEP) + piece * 2, has ? from[r] + at : args.x, has);
        }
        UNROLL for (u32 r = 0; r < COLUMNS / STEP; r++) {
            u32 output = column + row + r * STEP;
            bool has = there && output < args.outputs;
            u64 offset = has ? matrix + (u64)output * args.inputs + at + piece : 0;
            u8* place = to + (row + r * STEP) * row_bytes(DEEP) + piece * 2;
            copy16_or_zero(place + ProductShared::weight, args.weight + offset, has);
            if (GATED) copy16_or_zero(place + ProductShared::up, args.up + offset, has);
        }
        copies_commit();
    };
    u32 steps = (args.inputs + DEEP - 1) / DEEP;
    float y[COLUMNS / 8][4], z[GATED ? COLUMNS / 8 : 1][4];
    set_zero(y), set_zero(z);
    copy(0);
    for (u32 i = 0; i < steps; i++) {
        copies_wait<0>();
        block_sync(); // what step i reads is there, and nobody reads what step i − 1 did
        if (i + 1 < steps) copy(i + 1);
        const u8* here = shared + i % 2 * ProductShared::stage;
        UNROLL for (u32 step = 0; step < DEEP / 16; step++) {
            u32 a[4], b[4];
            load_a<DEEP>(a, here + ProductShared::x, warp * 16, step * 16, lane);
            UNROLL for (u32 n = 0; n < COLUMNS / 16; n++) {
                load_b<DEEP>(b, here + ProductShared::weight, n * 16, step * 16, lane);
                product(y[2 * n], y[2 * n + 1], a, b);
                if (GATED) {
                    load_b<DEEP>(b, here + ProductShared::up, n * 16, step * 16, lane);
                    product(z[2 * n % (COLUMNS / 8)], z[(2 * n + 1) % (COLUMNS / 8)], a, b);
                }
            }
        }
    }
    UNROLL for (u32 half = 0; half < 2; half++) {
        u32 slot = tile * ROWS + warp * 16 + half * 8 + group, choice = load_constant(args.slots + slot);
        float by = args.weights != nullptr && choice != NOTHING ? load_constant(args.weights + choice) : 1.f;
        UNROLL for (u32 n = 0; n < COLUMNS / 8; n++) {
            u32 output = column + n * 8 + 2 * pair;
            if (output >= args.outputs) continue;
            float low = y[n][2 * half], high = y[n][2 * half + 1];
#if GATED
            low = silu(low) * z[n][2 * half], high = silu(high) * z[n][2 * half + 1];
#endif
            *(u32*)(args.y + (u64)slot * args.outputs + output) = bf16_pair(low * by, high * by);
        }
    }
}

struct CombineArguments {
    const u16* y;             // [slots, width]
    const u32* places;        // [rows, per token]
    u16* to;                  // [rows, width]
    u32 rows, width, per_token, adds; // whether to what is there
};
KERNEL(experts_combine, CombineArguments, EXPERTS_THREADS)
{
    u32 pieces = args.width / 8;
    u64 item = (u64)block_index() * EXPERTS_THREADS + thread_index();
    u32 row = (u32)(item / pieces), column = (u32)(item % pieces) * 8;
    if (row >= args.rows) return;
    u16* to = args.to + (u64)row * args.width + column;
    Eight sum = args.adds ? load_eight_changing(to) : filled(0.f);
    for (u32 j = 0; j < args.per_token; j++) {
        Eight y = load_eight(args.y + (u64)load_constant(args.places + row * args.per_token + j) * args.width + column);
        UNROLL for (u32 i = 0; i < 8; i++) sum.x[i] += y.x[i];
    }
    store_eight(to, sum);
}
