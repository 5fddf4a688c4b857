// What a block reads of the weights, states and caches, and how it comes to its warps.

struct Units {
    const u8* first;
    u32 begin, count; // in units
};

// n / blocks, by way of the rounded-down 2^32 / blocks, which is up to 2 too small: a division
// takes a hundred cycles, and every phase would wait for three.
DEVICE u32 over_blocks(u32 n, u32 blocks, u32 reciprocal)
{
    u32 q = (u32)((u64)n * reciprocal >> 32), rest = n - q * blocks;
    if (rest >= blocks) q++, rest -= blocks;
    return rest >= blocks ? q + 1 : q;
}

// The share of this block in a phase's stream.
DEVICE Units my_units(const Phase& p, u32 position, u32 reciprocal)
{
    Units units;
    u32 blocks = block_count(), me = block_index() + p.rotation; // the rotation is below the number of blocks
    if (me >= blocks) me -= blocks;
    if (p.kind == ATTEND) {
        if (me >= p.key_heads * p.tiles * p.splits) {
            units.first = 0, units.begin = 0, units.count = 0;
            return units;
        }
        u32 split = me % p.splits, key_head = me / p.splits / p.tiles;
        u32 oldest = p.window != 0 && position + 1 > p.window ? position + 1 - p.window : 0;
        u32 first = oldest / BLOCK_POSITIONS, end = (position + BLOCK_POSITIONS - 1) / BLOCK_POSITIONS;
        u32 n = (end > first ? end - first : 0) + 1; // the last is the newest position, which is not in the cache yet
        units.begin = first + n * split / p.splits;
        units.count = first + n * (split + 1) / p.splits - units.begin - (split + 1 == p.splits ? 1 : 0);
        units.first = (const u8*)p.stream + (u64)(key_head * p.cache_blocks + units.begin) * p.unit_bytes;
        return units;
    }
    u32 begin = over_blocks(p.groups * me, blocks, reciprocal), end = over_blocks(p.groups * (me + 1), blocks, reciprocal); // the host checks the range
    units.begin = begin * p.units_per_group;
    units.count = (end - begin) * p.units_per_group;
    units.first = (const u8*)p.stream + (u64)units.begin * p.unit_bytes;
    return units;
}

// The first of the block's units that this warp computes; unit i of a phase is number
// `sequence + i` of the block's whole stream, and warps take the stream in turn.
DEVICE u32 first_unit(u32 sequence, u32 warp) { return (warp + WARPS - sequence % WARPS) % WARPS; }

DEVICE const u8* wait_slot(Shared& shared, u32 number)
{
    gate_wait(&shared.full[number % SLOTS], (number / SLOTS) & 1);
    return shared.ring + number % SLOTS * SLOT_BYTES;
}
DEVICE void release_slot(Shared& shared, u32 number, u32 lane)
{
    warp_sync();
    if (lane == 0) gate_arrive(&shared.empty[number % SLOTS]);
}

DEVICE void prefetch_floats(u64 address, u32 count, u32 part, u32 parts)
{
    if (address != 0)
        for (u32 at = part * 32; at < count; at += parts * 32) prefetch((const float*)address + at);
}

#if GENES & LEVELED
// The states of a log-linear mixer that this block's warps will ask for.
DEVICE void prefetch_states(const Phase& p, u32 position, u32 lane)
{
    u32 blocks = block_count(), me = block_index() + p.rotation, lines = (p.width + 31) / 32;
    if (me >= blocks) me -= blocks;
    u32 begin = (u32)((u64)p.groups * me / blocks), rows = (u32)((u64)p.groups * (me + 1) / blocks) - begin;
    for (u32 level = 0; level < p.splits; level++)
        if (position > 0 && level_in_use(level, position - 1, p.splits))
            for (u32 at = lane; at < rows * lines; at += 32)
                prefetch((const float*)p.x + ((u64)level * p.groups + begin + at / lines) * p.width + at % lines * 32);
}
#endif

// The small vectors of a phase: they were last read a step ago and 2 GB have passed through
// the cache since. The producers of 16 blocks share the work.
DEVICE void prefetch_vectors(const Phase& p, u32 position, u32 lane)
{
    u32 shares = block_count() < 16 ? block_count() : 16;
    u32 part = lane * shares + block_index() % shares, parts = 32 * shares;
    if (p.kind == GEMV) {
#if GENES & FORMS
        bool of_heads = p.input == HEAD_NORM || p.input == HEAD_NORM_SIGMOID;
#else
        bool of_heads = p.input == HEAD_NORM;
#endif
        prefetch_floats(p.norm, of_heads ? p.value_width : p.columns, part, parts);
    } else if (p.kind == DELTA || p.kind == MAMBA2) {
        prefetch_floats(p.conv_weight, p.ring_rows * 4, part, parts);
        prefetch_floats(p.conv_bias, p.ring_rows, part, parts);
        prefetch_floats(p.ring, p.ring_rows * 4, part, parts);
        prefetch_floats(p.a_log, p.heads, part, parts);
        prefetch_floats(p.dt_bias, p.heads, part, parts);
        prefetch_floats(p.skip, p.heads, part, parts);
#if GENES & FORMS
    } else if (p.kind == KDA) {
        prefetch_floats(p.conv_weight, p.ring_rows * 4, part, parts);
        prefetch_floats(p.ring, p.ring_rows * 4, part, parts);
        prefetch_floats(p.a_log, p.heads, part, parts);
        prefetch_floats(p.dt_bias, p.heads * p.width, part, parts);
#endif
#if GENES & LEVELED
    } else if (p.kind == LOG_DELTA || p.kind == LOG_MAMBA2) {
        prefetch_states(p, position, lane);
        prefetch_floats(p.conv_weight, p.ring_rows * 4, part, parts);
        prefetch_floats(p.conv_bias, p.ring_rows, part, parts);
        prefetch_floats(p.ring, p.ring_rows * 4, part, parts);
        prefetch_floats(p.k_norm, p.heads * p.tiles, part, parts);
#endif
#if GENES & FORMS
    } else if (p.kind == ADD) {
        prefetch_floats(p.norm, p.columns, part, parts);
        prefetch_floats(p.k_norm, p.columns, part, parts);
#endif
    } else if (p.kind == GATED_CONV) {
        prefetch_floats(p.conv_weight, p.groups * p.width, part, parts);
        prefetch_floats(p.ring, p.groups * (p.width - 1), part, parts);
    } else if (p.kind == ATTEND) {
#if GENES & FORMS
        prefetch_floats(p.norm, p.gated ? p.heads * p.width : p.width, part, parts);
        prefetch_floats(p.k_norm, p.gated ? p.key_heads * p.width : p.width, part, parts);
#else
        prefetch_floats(p.norm, p.width, part, parts);
        prefetch_floats(p.k_norm, p.width, part, parts);
#endif
        prefetch_floats(p.rope + (u64)position * p.width * 4, p.width, part, parts);
    }
}

const u32 PHASE_WORDS = sizeof(Phase) / 16;
static_assert(PHASE_WORDS <= 32, "one lane brings 16 bytes of a description");

DEVICE void produce(Shared& shared, const DecodeArgs& args, u32 position, u32 tag, u32 lane)
{
    const Phase* phases = (const Phase*)args.phases;
    u32 number = 0, reciprocal = 0xffffffffu / block_count();
#if GENES & CHOOSING
    u32 chosen = 0; // of lane j the j-th expert
#endif
    uint4 words = make_uint4(0, 0, 0, 0); // of the description of the next phase, asked for in time
    if (lane < PHASE_WORDS) words = load_constant((const uint4*)phases + lane);
    for (u32 i = 0; i < args.phase_count; i++) {
        warp_sync();
        if (lane < PHASE_WORDS) ((uint4*)&shared.streamed)[lane] = words;
        warp_sync();
        const Phase& p = shared.streamed;
        if (i + 1 < args.phase_count && lane < PHASE_WORDS) words = load_constant((const uint4*)(phases + i + 1) + lane);
        prefetch_vectors(p, position, lane);
        Units units = my_units(p, position, reciprocal);
        u32 bytes = p.unit_bytes;
#if GENES & CHOOSING
        bool of_experts = p.kind == GEMV && p.key_heads != ALL_UNITS;
        if (of_experts && p.key_heads == BY_GROUP) chosen = choose(p, tag, lane).expert; // and for the phases to come
#endif
        for (u32 u = 0; u < units.count; u++, number++) {
            u32 slot = number % SLOTS, round = number / SLOTS;
            if (round > 0) gate_wait(&shared.empty[slot], (round - 1) & 1);
            u32 landed = number - IN_FLIGHT; // must be there before one more is asked for
            if (number >= IN_FLIGHT) gate_wait(&shared.full[landed % SLOTS], (landed / SLOTS) & 1);
            warp_sync(); // lane 0 must not run ahead of the lanes that still wait
            const u8* from = units.first + (u64)u * bytes;
#if GENES & CHOOSING
            if (of_experts) from = expert_unit(p, chosen, units.begin + u);
#endif
            fill(shared.ring + slot * SLOT_BYTES, from, bytes, &shared.full[slot], lane);
        }
    }
}

// The descriptions of phases, for the consumers. Called by all of them before the first
// barrier of phase i (`descriptions_wait`) and after it (`fetch_description` of i + 2):
// whoever is past that barrier knows that no one is in phase i − 1 any more, whose place
// that of i + 2 takes, and sees that of i + 1.
DEVICE void fetch_description(Shared& shared, const DecodeArgs& args, u32 i, u32 thread)
{
    if (i < args.phase_count && thread < PHASE_WORDS)
        copy16((uint4*)&shared.phase[i % DESCRIPTIONS] + thread, (const uint4*)((const Phase*)args.phases + i) + thread);
    copies_commit();
}
DEVICE void enter(Shared& shared, const DecodeArgs& args, u32 phase, u32 thread)
{
    copies_wait<0>();
    consumers_sync();
    fetch_description(shared, args, phase + 2, thread);
}
