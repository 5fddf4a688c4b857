// One token through a whole stack, in one launch (batch 1).
//
// A decode step reads every weight once, so its floor is bytes / bandwidth; what a
// step launched as many kernels loses is the memory's idle time at each boundary.
// Here the weights never wait. One warp of each block (the *producer*) streams the
// block's share of all matrices, recurrent states and caches, in the order of use,
// through a ring in shared memory; this needs no activation, so it runs ahead across
// every boundary as far as the ring is long (SLOTS × 8 KiB × 132 blocks = 26 MB, 8 µs
// of an H100's bandwidth). The other warps follow phase by phase: bring the input
// vector into shared memory (with its norm), multiply, show the outputs.
//
// There is no barrier over the grid. Every value that passes from block to block is a
// *tagged float* (`common.cuh`): whoever needs it looks at the word until it is of this
// step. Each phase has an output vector of its own, each word of which is written once a
// step, so a block may be several phases ahead of another. One trip through the last-level
// cache is all that a boundary costs; a counter would take three.
//
// A model is data: an array of `Phase`s, built by the host. Kinds of phase:
//   GEMV     y = W · norm(x), W [rows, columns] in bf16 or 8 bits: in-projections, FFN, head
//   DELTA    (gated) delta rule: convolution, gates, state update, read
//   MAMBA2   the same for Mamba2, with the skip D·x and the gate SiLU(z)
//   GATED_CONV  the gated short convolution
//   ATTEND   attention over the cache, a split of the positions for each block
//   COMBINE  the splits of one head put together
// and, compiled in only where a program has one of them (GENES), so that what a step of all others is stays as it was:
//   KDA      the delta rule with a decay for each channel of the keys
//   ADD      one or two vectors, normed or not, onto the residual stream
//   TURNS    the angles of Selective RoPE, by which mixers turn their queries and keys
//   LOG_DELTA, LOG_MAMBA2  the log-linear forms: a state for each piece of the past
// Products take activations as a sum of two bf16 (16 bits of mantissa, what a tagged float
// carries) so that only the weights and the cache are rounded. The residual stream
// is fp32, each element kept by the block that owns it.

#ifndef WARPS
#define WARPS 8 // that compute; one more streams: three to a quarter of a multiprocessor, 168 registers each
#endif
#ifndef SLOTS
#define SLOTS 24 // of the ring
#endif
#ifndef SCRATCH_BYTES
#define SCRATCH_BYTES 32768 // the input vector, sums of rows, or the heads of one attention tile
#endif
#ifndef GENES
#define GENES 0 // which phases, inputs and outputs the program has that few have, of those below
#endif
#define FORMS 1   // of mixers and FFNs: all that has no name of its own here
#define LEVELED 2 // log-linear mixers
#define TURNING 4 // Selective RoPE
#define CHOOSING 8 // mixtures of experts
#ifndef WEIGHTS
#define WEIGHTS 0 // of matrices, one of those below
#endif
#define BF16 0
#define INT8 1 // with a factor for each row
#define FP8 2  // e4m3, with a factor for each row
#ifndef OWN_ROWS
#define OWN_ROWS 128 // of the residual stream, at most, that one block keeps
#endif
// Units asked for and not landed. Enough to saturate the memory (40 KB per multiprocessor
// by Little's law); more only makes everything else wait in the same queues: on an H100 a
// stack of DeltaNet was 5 % slower with 7 of 24 than with 5, and another 4 % with 14.
const u32 IN_FLIGHT = SLOTS / 6 + 1;
static_assert(IN_FLIGHT < SLOTS, "a slot is not asked for again before it has landed");
// A slot belongs to one warp. Copies complete in any order, and a gate tells only odd
// rounds from even ones: a warp that waited for a slot whose round before another warp
// has yet to see would take the one for the other.
static_assert(SLOTS % WARPS == 0, "a slot must come back to the warp that emptied it");
const u32 STREAM_BYTES = 8192; // of weights, states or cache in one unit, at most
const u32 ROWS = WEIGHTS == BF16 ? 2 : 4, FACTOR_BYTES = WEIGHTS == BF16 ? 0 : ROWS * 4; // of a matrix in one unit
const u32 SLOT_BYTES = STREAM_BYTES + FACTOR_BYTES;
const u32 CONSUMERS = WARPS * 32;
const u32 UNIT_CHUNKS = 8;     // of 256 columns, at most, in one unit of a matrix
const u32 PARTIALS = 128;      // sums of rows in pieces that have a place of their own
const u32 STATE_ROWS = 4;      // rows of a recurrent state in one unit
const u32 BLOCK_POSITIONS = 16; // positions of a cache in one unit
const u32 TILE_HEADS = 8;      // query heads that share one pass over the cache
const float NORM_EPS = 1e-5f;
const float L2_EPS = 1e-6f;

enum Kind { GEMV, DELTA, MAMBA2, GATED_CONV, ATTEND, COMBINE, KDA, ADD, LOG_DELTA, LOG_MAMBA2, TURNS };
enum Input { EMBEDDING, RMS_NORM, HEAD_NORM, PLAIN, RAW_EMBEDDING, GATED, HEAD_NORM_SIGMOID };
enum Output { STORE, RESIDUAL, SWIGLU, LOGITS, RELU2 };
enum Experts { ALL_UNITS, BY_GROUP, ONE_EXPERT, BY_PIECE }; // how units of a product name one, in `key_heads`

// As `phase.rs` defines it, which asserts that this is the same. Addresses are u64 so that both sides agree on the layout.
struct alignas(16) Phase {
    // what the producer streams: `groups` are dealt to the blocks, a group is never split
    u64 stream;
    u32 kind, unit_bytes, groups, units_per_group, rotation;
    // attention: which part of the cache
    u32 splits, key_heads, tiles, window, cache_blocks;
    // shapes
    u32 input, output, columns, chunks, rows, ring_rows, width, value_width, heads, gated, steps, convolved;
    float scale, largest_beta;
    // vectors in global memory: x, gate, out, now and z tagged, unless they come from outside or go there
    u64 x, norm, gate, out, ring, conv_weight, conv_bias, a_log, dt_bias, skip, now, z, k_norm, rope, unused;
};

// Lives on the device from step to step.
struct Control {
    u32 position; // of the token to be computed now
    u32 epoch;    // launches so far
    u32 counter;  // blocks that have ended
    u32 unused;
    u64 next[2];  // best logit and token, by parity of the position (see `best_key`)
};

struct DecodeArgs {
    u64 phases; // [phase_count] of Phase
    u64 control;
    u64 trace;    // 0, or [phase_count, blocks, MOMENTS]: cycles of each block at the moments of each phase
    u32 phase_count;
    u32 d_model;
};

const u32 DESCRIPTIONS = 3; // of phases: the last (others of the block may be in it), this one, the next

struct Shared {
    Gate full[SLOTS];
    Gate empty[SLOTS];
    alignas(16) Phase phase[DESCRIPTIONS];
    alignas(16) Phase streamed; // the producer's
    alignas(16) float sums[32];
    alignas(16) float softmax[WARPS * TILE_HEADS * 2];
    alignas(16) float own[OWN_ROWS];
    alignas(16) float partial[PARTIALS];
    alignas(128) u8 scratch[SCRATCH_BYTES];
    alignas(128) u8 ring[SLOTS * SLOT_BYTES];
};

#ifdef SHARED_BYTES
static_assert(sizeof(Shared) == SHARED_BYTES, "the host counts the shared memory that a block needs");
#endif

// What stays the same through the step.
struct Step {
    u32 position, tag, token;
    u64 trace;
};

// Tags of steps that follow each other differ; 0 (of zeroed memory) and 255 (of fresh memory) are never one.
DEVICE u32 tag_of(u32 epoch) { return epoch % 254 + 1; }

// As its first thread sees them: the phase begins, the words it waits for are there, its whole input is, and the first
// piece of its stream; the warp has computed its units; the phase ends.
enum Moment { BEGINS, HAS_WORDS, HAS_INPUT, HAS_STREAM, COMPUTED, ENDS, MOMENTS };
DEVICE void stamp(const Step& step, u32 phase, Moment moment, u32 thread)
{
    if (step.trace != 0 && thread == 0) ((u64*)step.trace)[(phase * block_count() + block_index()) * MOMENTS + moment] = cycles();
}

DEVICE void consumers_sync() { part_sync(1, CONSUMERS); }

// Looks at one word until it is of this step.
DEVICE float await(u64 base, u32 index, u32 tag)
{
    u32 looks = 0;
    for (;;) {
        u32 word = look((const u32*)base + index);
        if (is_of(word, tag)) return untagged(word);
        look_again(looks);
    }
}
