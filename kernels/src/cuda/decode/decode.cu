// One token through a whole stack, in one launch (batch 1).
//
// A decode step reads every weight once, so its floor is bytes / bandwidth; what a
// step launched as many kernels loses is the memory's idle time at each boundary.
// Here the weights never wait. One warp of each block (the *producer*) streams the
// block's share of all matrices, recurrent states and caches, in the order of use,
// through a ring in shared memory; this needs no activation, so it runs ahead across
// every boundary as far as the ring is long (SLOTS × 8 KiB × 132 blocks = 26 MB, 6 µs
// of an H200's bandwidth). The other warps follow phase by phase: bring the input
// vector into shared memory (with its norm), multiply, write the outputs, and meet
// the other blocks at a counter in global memory.
//
// A stack is data: an array of `Phase`s, built by `program.rs`. Kinds of phase:
//   GEMV     y = W · norm(x), W bf16 [rows, columns]: in-projections, FFN, head
//   DELTA    (gated) delta rule: convolution, gates, state update, read
//   MAMBA2   the same for Mamba2, with the skip D·x and the gate SiLU(z)
//   ATTEND   attention over the cache, a split of the positions for each block
//   COMBINE  the splits of one head put together
// Activations are fp32 throughout; products take them as a sum of two bf16 (16 bits
// of mantissa) so that only the weights and the cache are rounded to bf16.

#ifndef WARPS
#define WARPS 12 // that compute; one more streams
#endif
#ifndef SLOTS
#define SLOTS 24 // of the ring
#endif
// Units asked for and not landed. Enough to saturate the memory (40 KB per multiprocessor
// by Little's law); more would only make everything else wait in the same queues.
#ifndef IN_FLIGHT
#define IN_FLIGHT (SLOTS / 4 + 1)
#endif
static_assert(IN_FLIGHT < SLOTS, "a slot is not asked for again before it has landed");
// A slot belongs to one warp. Copies complete in any order, and a gate tells only odd
// rounds from even ones: a warp that waited for a slot whose round before another warp
// has yet to see would take the one for the other.
static_assert(SLOTS % WARPS == 0, "a slot must come back to the warp that emptied it");
const u32 SLOT_BYTES = 8192;
const u32 SCRATCH_BYTES = 32768; // the input vector and row sums, or the heads of one attention tile
const u32 CONSUMERS = WARPS * 32;
const u32 STATE_ROWS = 4;      // rows of a recurrent state in one unit
const u32 BLOCK_POSITIONS = 16; // positions of a cache in one unit
const u32 TILE_HEADS = 8;      // query heads that share one pass over the cache
const float NORM_EPS = 1e-5f;
const float L2_EPS = 1e-6f;

enum Kind { GEMV, DELTA, MAMBA2, ATTEND, COMBINE };
enum Input { EMBEDDING, RMS_NORM, HEAD_NORM, PLAIN };
enum Output { STORE, CONVOLUTION, RESIDUAL, SWIGLU, LOGITS };

// The mirror of `program::Phase`. Addresses are u64 so that both sides agree on the layout.
struct alignas(16) Phase {
    // what the producer streams: `groups` are dealt to the blocks, a group is never split
    u64 stream;
    u32 kind, unit_bytes, groups, units_per_group, rotation;
    // attention: which part of the cache
    u32 splits, key_heads, tiles, window, cache_blocks;
    // shapes
    u32 input, output, columns, chunks, rows, ring_rows, width, value_width, heads, gated;
    float scale;
    u32 unused;
    // vectors in global memory, fp32
    u64 x, norm, gate, out, ring, conv_weight, conv_bias, a_log, dt_bias, skip, z, k_norm, rope;
};

// Lives on the device from step to step.
struct Control {
    u32 position; // of the token to be computed now
    u32 epoch;    // launches so far
    u32 counter;  // arrivals of blocks at phase ends, ever
    u32 unused;
    u64 next[2];  // best logit and token, by parity of the position (see `best_key`)
};

struct DecodeArgs {
    u64 phases; // [phase_count] of Phase
    u64 control;
    u64 residual; // h [d]
    u64 trace;    // 0, or [phase_count, 4]: cycles of block 0 at four moments of each phase
    u32 phase_count;
    u32 unused;
};

struct Shared {
    Gate full[SLOTS];
    Gate empty[SLOTS];
    alignas(16) Phase phase[2];
    alignas(16) float sums[128];
    alignas(16) float softmax[WARPS * TILE_HEADS * 2];
    alignas(128) u8 scratch[SCRATCH_BYTES];
    alignas(128) u8 ring[SLOTS * SLOT_BYTES];
};

#ifdef SHARED_BYTES
static_assert(sizeof(Shared) == SHARED_BYTES, "the host counts the shared memory that a block needs");
#endif

struct Units {
    const u8* first;
    u32 begin, count; // in units
};

// The share of this block in a phase's stream.
DEVICE Units my_units(const Phase& p, u32 position)
{
    Units units;
    u32 blocks = block_count(), me = (block_index() + p.rotation) % blocks;
    if (p.kind == ATTEND) {
        if (me >= p.key_heads * p.tiles * p.splits) {
            units.first = 0, units.begin = 0, units.count = 0;
            return units;
        }
        u32 split = me % p.splits, key_head = me / p.splits / p.tiles;
        u32 oldest = p.window != 0 && position + 1 > p.window ? position + 1 - p.window : 0;
        u32 first = oldest / BLOCK_POSITIONS, end = (position + BLOCK_POSITIONS - 1) / BLOCK_POSITIONS;
        u32 n = end > first ? end - first : 0;
        units.begin = first + n * split / p.splits;
        units.count = first + n * (split + 1) / p.splits - units.begin;
        units.first = (const u8*)p.stream + (u64)(key_head * p.cache_blocks + units.begin) * p.unit_bytes;
        return units;
    }
    u32 begin = p.groups * me / blocks, end = p.groups * (me + 1) / blocks; // the host checks the range
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

DEVICE void consumers_sync() { part_sync(1, CONSUMERS); }

enum Moment { BEGINS, HAS_INPUT, HAS_SUMS, ENDS };
DEVICE void stamp(const DecodeArgs& args, u32 phase, Moment moment, u32 thread)
{
    if (args.trace != 0 && block_index() == 0 && thread == 0) ((u64*)args.trace)[phase * 4 + moment] = cycles();
}

// ---------------------------------------------------------------- producer

DEVICE void produce(Shared& shared, const DecodeArgs& args, u32 position, u32 lane)
{
    const Phase* phases = (const Phase*)args.phases;
    u32 number = 0;
    for (u32 i = 0; i < args.phase_count; i++) {
        Units units = my_units(phases[i], position);
        u32 bytes = phases[i].unit_bytes;
        for (u32 u = 0; u < units.count; u++, number++) {
            u32 slot = number % SLOTS, round = number / SLOTS;
            if (round > 0) gate_wait(&shared.empty[slot], (round - 1) & 1);
            u32 landed = number - IN_FLIGHT; // must be there before one more is asked for
            if (number >= IN_FLIGHT) gate_wait(&shared.full[landed % SLOTS], (landed / SLOTS) & 1);
            warp_sync(); // lane 0 must not run ahead of the lanes that still wait
            fill(shared.ring + slot * SLOT_BYTES, units.first + (u64)u * bytes, bytes, &shared.full[slot], lane);
        }
    }
}

// ---------------------------------------------------------------- GEMV

DEVICE u64 best_key(float value, u32 token)
{
    u32 bits = as_bits(value);
    u32 ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (u64)ordered << 32 | (0xffffffffu - token);
}
DEVICE u32 token_of(u64 key) { return 0xffffffffu - (u32)key; }

DEVICE float block_sum(Shared& shared, float x, u32 thread)
{
    x = warp_sum(x);
    if (thread % 32 == 0) shared.sums[thread / 32] = x;
    consumers_sync();
    float sum = 0.f;
    UNROLL for (u32 w = 0; w < WARPS; w++) sum += shared.sums[w];
    return sum;
}

DEVICE float4 embedding4(const Phase& p, u32 token, u32 column)
{
    // the head's layout (see `program.rs`): units of two rows × chunks · 256 columns
    u32 piece_columns = p.chunks * 256, unit = token / 2 * p.units_per_group + column / piece_columns;
    const u16* e = (const u16*)p.x + (u64)unit * 2 * piece_columns + token % 2 * piece_columns + column % piece_columns;
    uint2 bits = load_constant((const uint2*)e);
    return make_float4(bf16_low(bits.x), bf16_high(bits.x), bf16_low(bits.y), bf16_high(bits.y));
}

// What a warp knows of a phase before the inputs are there: worked out while it waits for
// the other blocks. Each thread holds the norm's weights of its columns.
const u32 STEPS = 5; // 20 · CONSUMERS columns at most
struct Ahead {
    Units units;
    float4 gain[STEPS];
};

DEVICE void look_ahead(Ahead& ahead, const Phase& p, u32 position, u32 thread)
{
    ahead.units = my_units(p, position);
    UNROLL for (u32 s = 0; s < STEPS; s++) {
        u32 c = (s * CONSUMERS + thread) * 4;
        ahead.gain[s] = make_float4(0.f, 0.f, 0.f, 0.f);
        if (p.kind == GEMV && p.norm != 0 && c < p.columns)
            ahead.gain[s] = load_constant((const float4*)p.norm + (p.input == HEAD_NORM ? c % p.value_width : c) / 4);
    }
}

// The input vector, normed as the phase says, into scratch as two bf16 vectors
// [columns padded]: high parts, then low parts. Ends with everything in place.
DEVICE void bring_input(Shared& shared, const Phase& p, const Ahead& ahead, const DecodeArgs& args, u32 token, u32 thread)
{
    u32 padded = p.units_per_group * p.chunks * 256;
    u32 columns = p.columns, steps = (padded + CONSUMERS * 4 - 1) / (CONSUMERS * 4); // no more than needed
    u32* high = (u32*)shared.scratch;
    u32* low = high + padded / 2;
    float4 x[STEPS];
    UNROLL for (u32 s = 0; s < STEPS; s++) {
        u32 c = (s * CONSUMERS + thread) * 4;
        x[s] = make_float4(0.f, 0.f, 0.f, 0.f);
        if (c < columns) x[s] = p.input == EMBEDDING ? embedding4(p, token, c) : load_fresh((const float4*)p.x + c / 4);
    }
    float4 gate[STEPS];
    bool gated = p.input == HEAD_NORM && p.gate != 0;
    UNROLL for (u32 s = 0; s < STEPS; s++) {
        u32 c = (s * CONSUMERS + thread) * 4;
        gate[s] = make_float4(0.f, 0.f, 0.f, 0.f);
        if (gated && c < columns) gate[s] = load_fresh((const float4*)p.gate + c / 4);
    }
    float squares = 0.f;
    UNROLL for (u32 s = 0; s < STEPS; s++) {
        if (s >= steps) break;
        float4 v = x[s];
        float square = v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        if (p.input == HEAD_NORM) {
            // value_width / 4 neighbouring threads hold one head; 128 elements are one warp
            u32 lanes = p.value_width / 4 < 32 ? p.value_width / 4 : 32;
            UNROLL for (u32 mask = 16; mask > 0; mask >>= 1)
                if (mask < lanes) square += shuffle_xor(square, mask);
            if (p.value_width > 128) {
                if (thread % 32 == 0) shared.sums[s * WARPS + thread / 32] = square;
            } else {
                float r = square_root_reciprocal(square / (float)p.value_width + NORM_EPS);
                x[s].x *= r, x[s].y *= r, x[s].z *= r, x[s].w *= r;
            }
        }
        squares += square;
    }
    if (p.input == RMS_NORM || p.input == EMBEDDING) {
        float r = square_root_reciprocal(block_sum(shared, squares, thread) / (float)p.columns + NORM_EPS);
        if (p.input == EMBEDDING && block_index() == 0) {
            UNROLL for (u32 s = 0; s < STEPS; s++) {
                u32 c = (s * CONSUMERS + thread) * 4;
                if (c < p.columns) ((float4*)args.residual)[c / 4] = x[s];
            }
        }
        UNROLL for (u32 s = 0; s < STEPS; s++) x[s].x *= r, x[s].y *= r, x[s].z *= r, x[s].w *= r;
    }
    if (p.input == HEAD_NORM && p.value_width > 128) {
        consumers_sync();
        u32 warps = p.value_width / 128;
        UNROLL for (u32 s = 0; s < STEPS; s++) {
            if (s >= steps) break;
            u32 first = (s * WARPS + thread / 32) / warps * warps;
            float square = 0.f;
            for (u32 w = 0; w < warps; w++) square += shared.sums[first + w];
            float r = square_root_reciprocal(square / (float)p.value_width + NORM_EPS);
            x[s].x *= r, x[s].y *= r, x[s].z *= r, x[s].w *= r;
        }
    }
    UNROLL for (u32 s = 0; s < STEPS; s++) {
        u32 c = (s * CONSUMERS + thread) * 4;
        if (c >= padded) continue;
        float4 v = x[s];
        if (p.input != PLAIN) {
            float4 gain = ahead.gain[s];
            v.x *= gain.x, v.y *= gain.y, v.z *= gain.z, v.w *= gain.w;
        }
        if (gated) {
            float4 g = gate[s];
            v.x *= silu(g.x), v.y *= silu(g.y), v.z *= silu(g.z), v.w *= silu(g.w);
        }
        u32 h0 = bf16_pair(v.x, v.y), h1 = bf16_pair(v.z, v.w);
        high[c / 2] = h0, high[c / 2 + 1] = h1;
        low[c / 2] = bf16_pair(v.x - bf16_low(h0), v.y - bf16_high(h0));
        low[c / 2 + 1] = bf16_pair(v.z - bf16_low(h1), v.w - bf16_high(h1));
    }
    consumers_sync();
}

// Two rows of W times x over chunks · 256 columns, summed over the warp.
//
// The tensor core is used sideways. Lane (g, t) holds 8 neighbouring columns of both
// rows; block g of 32 columns of the first row is row g of A, of the second row g + 8;
// the same columns of x are column g of B. The diagonals of the two halves of D are
// then the sums wanted: one product per 256 weights, no conversion to fp32 at all.
DEVICE void two_rows(const u8* unit, const u8* x_high, const u8* x_low, u32 chunks, u32 lane, float& first, float& second)
{
    const uint4* row0 = (const uint4*)unit + lane;
    const uint4* row1 = row0 + chunks * 32;
    const uint4* high = (const uint4*)x_high + lane;
    const uint4* low = (const uint4*)x_low + lane;
    float d0[4] = {0.f, 0.f, 0.f, 0.f}, d1[4] = {0.f, 0.f, 0.f, 0.f};
    float d2[4] = {0.f, 0.f, 0.f, 0.f}, d3[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll 4
    for (u32 c = 0; c < chunks; c++) {
        uint4 a = row0[c * 32], b = row1[c * 32], h = high[c * 32], l = low[c * 32];
        mma(d0, a.x, b.x, a.y, b.y, h.x, h.y);
        mma(d1, a.z, b.z, a.w, b.w, h.z, h.w);
        mma(d2, a.x, b.x, a.y, b.y, l.x, l.y);
        mma(d3, a.z, b.z, a.w, b.w, l.z, l.w);
    }
    u32 g = lane / 4, t = lane % 4, odd = g & 1;
    bool diagonal = t == g / 2;
    float s0 = odd ? d0[1] + d1[1] + d2[1] + d3[1] : d0[0] + d1[0] + d2[0] + d3[0];
    float s1 = odd ? d0[3] + d1[3] + d2[3] + d3[3] : d0[2] + d1[2] + d2[2] + d3[2];
    first = warp_sum(diagonal ? s0 : 0.f);
    second = warp_sum(diagonal ? s1 : 0.f);
}

DEVICE void gemv(Shared& shared, const Phase& p, const Ahead& ahead, const DecodeArgs& args, Control* control,
                 u32 sequence, u32 position, u32 phase, u32 thread)
{
    const Units& units = ahead.units;
    u32 lane = thread % 32, warp = thread / 32;
    u32 token = p.input == EMBEDDING ? token_of(control->next[position & 1]) : 0;
    bring_input(shared, p, ahead, args, token, thread);
    stamp(args, phase, HAS_INPUT, thread);

    u32 pieces = p.units_per_group, padded = pieces * p.chunks * 256;
    float* sums = (float*)shared.scratch + padded; // behind two bf16 vectors; [units][2]
    u32 pairs = units.count / pieces, first_pair = units.begin / pieces;
    float* residual = (float*)args.residual;
    float before[2] = {0.f, 0.f}; // of the first pair of rows of this thread, asked for early
    if (p.output == RESIDUAL && thread < pairs)
        UNROLL for (u32 r = 0; r < 2; r++) {
            u32 row = (first_pair + thread) * 2 + r;
            if (row < p.rows) before[r] = load_fresh(residual + row);
        }
    for (u32 i = first_unit(sequence, warp); i < units.count; i += WARPS) {
        u32 piece = i % pieces; // a block's share begins at the beginning of a group
        const u8* x = shared.scratch + piece * p.chunks * 512;
        float first, second;
        const u8* unit = wait_slot(shared, sequence + i);
        two_rows(unit, x, x + padded * 2, p.chunks, lane, first, second);
        release_slot(shared, sequence + i, lane);
        if (lane == 0) sums[i * 2] = first, sums[i * 2 + 1] = second;
    }
    consumers_sync();
    stamp(args, phase, HAS_SUMS, thread);

    float* out = (float*)p.out;
    u64 best = 0;
    for (u32 j = thread; j < pairs; j += CONSUMERS) {
        float value[2] = {0.f, 0.f};
        for (u32 piece = 0; piece < pieces; piece++) {
            value[0] += sums[(j * pieces + piece) * 2];
            value[1] += sums[(j * pieces + piece) * 2 + 1];
        }
        u32 pair = first_pair + j;
        if (p.output == SWIGLU) {
            out[pair] = silu(value[0]) * value[1];
            continue;
        }
        UNROLL for (u32 r = 0; r < 2; r++) {
            u32 row = pair * 2 + r;
            if (row >= p.rows) break;
            if (p.output == RESIDUAL) residual[row] = (j == thread ? before[r] : load_fresh(residual + row)) + value[r];
            else if (p.output == CONVOLUTION && row < p.ring_rows)
                ((float*)p.ring)[(position & 3) * p.ring_rows + row] = value[r];
            else out[row - p.ring_rows] = value[r]; // ring_rows is 0 unless CONVOLUTION
            if (p.output == LOGITS) {
                u64 key = best_key(value[r], row);
                best = key > best ? key : best;
            }
        }
    }
    if (p.output == LOGITS) {
        // one atomic a block: all blocks meet at one address
        UNROLL for (u32 mask = 16; mask > 0; mask >>= 1) {
            u32 high = as_bits(shuffle_xor(as_float((u32)(best >> 32)), mask));
            u32 low = as_bits(shuffle_xor(as_float((u32)best), mask));
            u64 other = (u64)high << 32 | low;
            best = other > best ? other : best;
        }
        u64* keys = (u64*)shared.sums;
        if (lane == 0) keys[warp] = best;
        consumers_sync();
        if (thread == 0) {
            for (u32 w = 1; w < WARPS; w++) best = keys[w] > best ? keys[w] : best;
            atomic_max(&control->next[(position + 1) & 1], best);
        }
    }
}

// ---------------------------------------------------------------- recurrent mixers

template <int N> struct Lanes { float at[N]; }; // N neighbouring elements of a row of 32 · N

DEVICE void load_lanes(Lanes<4>& v, const float* p) { float4 x = load_fresh((const float4*)p); v.at[0] = x.x, v.at[1] = x.y, v.at[2] = x.z, v.at[3] = x.w; }
DEVICE void load_lanes(Lanes<2>& v, const float* p) { float2 x = load_fresh((const float2*)p); v.at[0] = x.x, v.at[1] = x.y; }
DEVICE void load_lanes(Lanes<1>& v, const float* p) { v.at[0] = load_fresh(p); }

// What the causal convolution of width 4 reads for N neighbouring channels. The ring holds
// the last four inputs of each channel, that of position s in row s % 4. Reading and
// computing are apart, so that all reads of a unit are on their way before the first use.
template <int N> struct Window {
    Lanes<N> tap[4], bias;
    float4 weight[N];
};
template <int N> DEVICE void read_window(Window<N>& w, const Phase& p, u32 channel, u32 position)
{
    const float* ring = (const float*)p.ring + channel;
    u32 rows = p.ring_rows;
    UNROLL for (u32 j = 0; j < 4; j++) load_lanes(w.tap[j], ring + ((position + 1 + j) & 3) * rows);
    UNROLL for (u32 e = 0; e < N; e++) w.weight[e] = load_constant((const float4*)p.conv_weight + channel + e);
    bool biased = p.conv_bias != 0;
    UNROLL for (u32 e = 0; e < N; e++) w.bias.at[e] = biased ? load_constant((const float*)p.conv_bias + channel + e) : 0.f;
}
// SiLU of the convolution.
template <int N> DEVICE Lanes<N> convolved(const Window<N>& w)
{
    Lanes<N> y;
    UNROLL for (u32 e = 0; e < N; e++)
        y.at[e] = silu(w.bias.at[e] + w.weight[e].x * w.tap[0].at[e] + w.weight[e].y * w.tap[1].at[e]
                       + w.weight[e].z * w.tap[2].at[e] + w.weight[e].w * w.tap[3].at[e]);
    return y;
}

// The sums of several values over a warp, one latency for all.
template <int COUNT> DEVICE void warp_sums(float (&x)[COUNT])
{
    UNROLL for (u32 mask = 16; mask > 0; mask >>= 1) UNROLL for (u32 i = 0; i < COUNT; i++) x[i] += shuffle_xor(x[i], mask);
}

template <int N> DEVICE float dot(const Lanes<N>& a, const Lanes<N>& b)
{
    float sum = 0.f;
    UNROLL for (u32 e = 0; e < N; e++) sum += a.at[e] * b.at[e];
    return sum;
}

template <int N> DEVICE void take_row(Lanes<N>& v, const u8* unit, u32 row, u32 lane)
{
    const float* from = (const float*)unit + row * 32 * N + lane * N;
    UNROLL for (u32 e = 0; e < N; e++) v.at[e] = from[e];
}
template <int N> DEVICE void store_row(const Lanes<N>& v, float* to, u32 lane)
{
    if (N == 4) ((float4*)to)[lane] = make_float4(v.at[0], v.at[1 % N], v.at[2 % N], v.at[3 % N]);
    else UNROLL for (u32 e = 0; e < N; e++) to[lane * N + e] = v.at[e];
}

// Delta rule on the transposed state Sᵀ [heads · V, K], K = 32 · N (arXiv 2412.06464, eq. 10):
// S ← e^g S; S += β k (v − Sᵀk)ᵀ; o = Sᵀq · K^−½. Channels of the ring: q, k, v; z: β, a, gate.
template <int N>
DEVICE void delta(Shared& shared, const Phase& p, Units units, u32 sequence, u32 position, u32 thread)
{
    const u32 K = 32 * N;
    u32 lane = thread % 32, warp = thread / 32;
    for (u32 i = first_unit(sequence, warp); i < units.count; i += WARPS) {
        u32 row = (units.begin + i) * STATE_ROWS, head = row / p.value_width;
        u32 key_head = head * p.key_heads / p.heads, keys = p.key_heads * K;
        Window<N> q_window, k_window;
        Window<1> v_window;
        read_window(q_window, p, key_head * K + lane * N, position);
        read_window(k_window, p, keys + key_head * K + lane * N, position);
        read_window(v_window, p, 2 * keys + row + lane % STATE_ROWS, position);
        float beta = sigmoid(load_fresh((const float*)p.z + head)), decay = 1.f;
        if (p.gated) {
            float dt = softplus(load_fresh((const float*)p.z + p.heads + head) + load_constant((const float*)p.dt_bias + head));
            decay = expf(-expf(load_constant((const float*)p.a_log + head)) * dt);
        }
        Lanes<N> q = convolved(q_window), k = convolved(k_window);
        float v_lane = convolved(v_window).at[0], squares[2] = {dot(q, q), dot(k, k)};
        warp_sums(squares);
        float q_norm = square_root_reciprocal(squares[0] + L2_EPS) * p.scale;
        float k_norm = square_root_reciprocal(squares[1] + L2_EPS);
        UNROLL for (u32 e = 0; e < N; e++) q.at[e] *= q_norm, k.at[e] *= k_norm;

        const u8* unit = wait_slot(shared, sequence + i);
        Lanes<N> s[STATE_ROWS];
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) take_row(s[r], unit, r, lane);
        release_slot(shared, sequence + i, lane);
        float kept[STATE_ROWS], o[STATE_ROWS], o_lane = 0.f;
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) kept[r] = dot(s[r], k);
        warp_sums(kept);
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) {
            float u = beta * (shuffle_from(v_lane, r) - kept[r] * decay);
            UNROLL for (u32 e = 0; e < N; e++) s[r].at[e] = decay * s[r].at[e] + k.at[e] * u;
            store_row(s[r], (float*)p.stream + (u64)(row + r) * K, lane);
            o[r] = dot(s[r], q);
        }
        warp_sums(o);
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) o_lane = lane == r ? o[r] : o_lane;
        if (lane < STATE_ROWS) ((float*)p.out)[row + lane] = o_lane;
    }
}

// Mamba2 on the state [heads · P, N]: S ← e^{dt·A} S + dt · x Bᵀ; y = (S C + D x) · SiLU(z).
// Channels of the ring: x, B, C; z: z, dt.
template <int N>
DEVICE void mamba2(Shared& shared, const Phase& p, Units units, u32 sequence, u32 position, u32 thread)
{
    const u32 STATE = 32 * N;
    u32 lane = thread % 32, warp = thread / 32, inner = p.heads * p.value_width;
    for (u32 i = first_unit(sequence, warp); i < units.count; i += WARPS) {
        u32 row = (units.begin + i) * STATE_ROWS, head = row / p.value_width;
        Window<N> b_window, c_window;
        Window<1> x_window;
        read_window(b_window, p, inner + lane * N, position);
        read_window(c_window, p, inner + STATE + lane * N, position);
        read_window(x_window, p, row + lane % STATE_ROWS, position);
        float z_lane = load_fresh((const float*)p.z + row + lane % STATE_ROWS);
        float dt = softplus(load_fresh((const float*)p.z + inner + head) + load_constant((const float*)p.dt_bias + head));
        float decay = expf(-expf(load_constant((const float*)p.a_log + head)) * dt);
        float skip = load_constant((const float*)p.skip + head);
        Lanes<N> b = convolved(b_window), c = convolved(c_window);
        float x_lane = convolved(x_window).at[0];

        const u8* unit = wait_slot(shared, sequence + i);
        Lanes<N> s[STATE_ROWS];
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) take_row(s[r], unit, r, lane);
        release_slot(shared, sequence + i, lane);
        float y[STATE_ROWS], y_lane = 0.f;
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) {
            float x = shuffle_from(x_lane, r) * dt;
            UNROLL for (u32 e = 0; e < N; e++) s[r].at[e] = decay * s[r].at[e] + x * b.at[e];
            store_row(s[r], (float*)p.stream + (u64)(row + r) * STATE, lane);
            y[r] = dot(s[r], c);
        }
        warp_sums(y);
        UNROLL for (u32 r = 0; r < STATE_ROWS; r++) y_lane = lane == r ? y[r] : y_lane;
        if (lane < STATE_ROWS) ((float*)p.out)[row + lane] = (y_lane + skip * x_lane) * silu(z_lane);
    }
}

// ---------------------------------------------------------------- attention

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

// Attention of one tile of heads over this block's split of the cache. A unit of the
// cache holds 16 positions: keys [16, K], then values [16, K], bf16. The new position is
// not in the cache yet: split 0 adds it, and writes it there for the next step.
template <int N>
DEVICE void attend(Shared& shared, const Phase& p, Units units, u32 sequence, u32 position, u32 thread)
{
    const u32 K = 32 * N;
    const float EMPTY = -1e30f;
    u32 lane = thread % 32, warp = thread / 32, g = lane / 4, t = lane % 4;
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
    const float* z_keys = (const float*)p.z + p.heads * K + key_head * K;
    const float* z_values = z_keys + p.key_heads * K;
    u8* cache = (u8*)p.stream + (u64)(key_head * p.cache_blocks + position / BLOCK_POSITIONS) * p.unit_bytes
        + position % BLOCK_POSITIONS * K * 2;
    bool writes = split == 0 && tile == 0;
    for (u32 row = warp; row < TILE_HEADS + 2; row += WARPS) {
        bool is_query = row < TILE_HEADS, present = !is_query || row < tile_heads;
        const float* from = is_query ? (const float*)p.z + (first_head + row) * K : row == TILE_HEADS ? z_keys : z_values;
        float a[N / 2], b[N / 2];
        UNROLL for (u32 e = 0; e < N / 2; e++) {
            a[e] = present ? load_fresh(from + lane * (N / 2) + e) : 0.f;
            b[e] = present ? load_fresh(from + K / 2 + lane * (N / 2) + e) : 0.f;
        }
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
    float* partial = (float*)p.out + (u64)item * TILE_HEADS * K;
    float* sums = (float*)p.gate + (u64)item * TILE_HEADS * 2;
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
            for (u32 w = 0; w < WARPS; w++) {
                float keep = exp2_fast(shared.softmax[(w * TILE_HEADS + h) * 2] - top);
                sum += keep * shared.softmax[(w * TILE_HEADS + h) * 2 + 1];
                value += keep * merge[w * 4 * K + at];
            }
            partial[round * K + at] = value;
            if (at % K == 0) sums[h * 2] = top, sums[h * 2 + 1] = sum;
        }
    }
}

// out[heads · K]: the splits weighed by their largest scores. One warp for 32 columns of a head.
DEVICE void combine(const Phase& p, u32 thread)
{
    u32 lane = thread % 32, slices = p.width / 32, group = p.heads / p.key_heads;
    for (u32 slice = thread / 32 * block_count() + block_index(); slice < p.heads * slices; slice += WARPS * block_count()) {
        u32 head = slice / slices, column = slice % slices * 32 + lane;
        u32 key_head = head / group, tile = head % group / TILE_HEADS, h = head % group % TILE_HEADS;
        u32 item = (key_head * p.tiles + tile) * p.splits;
        const float2* sums = (const float2*)p.gate + (u64)item * TILE_HEADS + h; // largest score, sum of weights
        const float* partial = (const float*)p.x + ((u64)item * TILE_HEADS + h) * p.width + column;
        float top = -1e30f, value = 0.f, total = 0.f;
        for (u32 first = 0; first < p.splits; first += 32) {
            // lane s holds the largest score and the sum of split first + s; the values come all at once
            float2 sum = first + lane < p.splits ? load_fresh(sums + (first + lane) * TILE_HEADS) : make_float2(-1e30f, 0.f);
            float values[32];
            UNROLL for (u32 s = 0; s < 32; s++)
                values[s] = first + s < p.splits ? load_fresh(partial + (u64)(first + s) * TILE_HEADS * p.width) : 0.f;
            float higher = fmaxf(top, warp_max(sum.x)), keep = exp2_fast(top - higher);
            float weight = exp2_fast(sum.x - higher);
            total = total * keep + warp_sum(weight * sum.y);
            value *= keep;
            UNROLL for (u32 s = 0; s < 32; s++) value += shuffle_from(weight, s) * values[s];
            top = higher;
        }
        ((float*)p.out)[head * p.width + column] = value / total;
    }
}

// ---------------------------------------------------------------- the step

DEVICE void fetch_phase(Shared& shared, const DecodeArgs& args, u32 i, u32 thread)
{
    if (i < args.phase_count && thread < sizeof(Phase) / 16)
        copy16((uint4*)&shared.phase[i & 1] + thread, (const uint4*)((const Phase*)args.phases + i) + thread);
    copies_commit();
}

DEVICE void prefetch_floats(u64 address, u32 count, u32 thread, u32 stride)
{
    if (address != 0)
        for (u32 at = thread * 32; at < count; at += stride * 32) prefetch((const float*)address + at);
}

// The small vectors of the next phase, while its block waits: they were last read a step
// ago and 2 GB have passed through the cache since. The blocks share the work.
DEVICE void prefetch_vectors(const Phase& p, u32 position, u32 thread)
{
    u32 shares = block_count() < 16 ? block_count() : 16; // each line is asked for by several blocks
    u32 part = thread * shares + block_index() % shares, parts = CONSUMERS * shares;
    if (p.kind == DELTA || p.kind == MAMBA2) {
        prefetch_floats(p.conv_weight, p.ring_rows * 4, part, parts);
        prefetch_floats(p.conv_bias, p.ring_rows, part, parts);
        prefetch_floats(p.ring, p.ring_rows * 4, part, parts);
        prefetch_floats(p.a_log, p.heads, part, parts);
        prefetch_floats(p.dt_bias, p.heads, part, parts);
        prefetch_floats(p.skip, p.heads, part, parts);
    } else if (p.kind == ATTEND) {
        prefetch_floats(p.norm, p.width, part, parts);
        prefetch_floats(p.k_norm, p.width, part, parts);
        prefetch_floats(p.rope + (u64)position * p.width * 4, p.width, part, parts);
    }
}

DEVICE void consume(Shared& shared, const DecodeArgs& args, Control* control, u32 position, u32 thread)
{
    u32 sequence = 0, arrivals = control->epoch * (args.phase_count - 1) * block_count();
    Ahead ahead;
    fetch_phase(shared, args, 0, thread);
    copies_wait<0>();
    consumers_sync();
    look_ahead(ahead, shared.phase[0], position, thread);
    for (u32 i = 0; i < args.phase_count; i++) {
        const Phase& p = shared.phase[i & 1];
        const Units& units = ahead.units;
        fetch_phase(shared, args, i + 1, thread);
        stamp(args, i, BEGINS, thread);
        if (p.kind == GEMV) gemv(shared, p, ahead, args, control, sequence, position, i, thread);
        else if (p.kind == DELTA && p.width == 128) delta<4>(shared, p, units, sequence, position, thread);
        else if (p.kind == DELTA) delta<2>(shared, p, units, sequence, position, thread);
        else if (p.kind == MAMBA2 && p.width == 128) mamba2<4>(shared, p, units, sequence, position, thread);
        else if (p.kind == MAMBA2) mamba2<2>(shared, p, units, sequence, position, thread);
        else if (p.kind == ATTEND && p.width == 128) attend<4>(shared, p, units, sequence, position, thread);
        else if (p.kind == ATTEND) attend<2>(shared, p, units, sequence, position, thread);
        else combine(p, thread);
        sequence += units.count;
        stamp(args, i, ENDS, thread);
        if (i + 1 == args.phase_count) break;

        // Every block's outputs of this phase before any block's inputs of the next.
        copies_wait<0>(); // the next phase's description
        consumers_sync();
        arrivals += block_count();
        if (thread == 0) counter_arrive(&control->counter);
        prefetch_vectors(shared.phase[(i + 1) & 1], position, thread);
        look_ahead(ahead, shared.phase[(i + 1) & 1], position, thread);
        if (thread == 0) counter_wait(&control->counter, arrivals);
        consumers_sync();
    }
    // All blocks have read the control words: they have passed the last counter.
    if (block_index() == 0 && thread == 0) {
        control->next[position & 1] = 0;
        control->position = position + 1;
        control->epoch += 1;
    }
}

KERNEL(decode_step, DecodeArgs, (WARPS + 1) * 32)
{
    Shared& shared = *(Shared*)shared_memory();
    Control* control = (Control*)args.control;
    u32 thread = thread_index(), position = control->position;
    if (thread == 0) {
        for (u32 s = 0; s < SLOTS; s++) {
            gate_init(&shared.full[s], FILL_ARRIVALS);
            gate_init(&shared.empty[s], 1);
        }
        gates_ready();
    }
    block_sync();
    if (thread < CONSUMERS) consume(shared, args, control, position, thread);
    else produce(shared, args, position, thread - CONSUMERS);
}
