// Causal softmax attention of whole sequences on tensor cores (FlashAttention-2, arXiv 2307.08691, algorithm 1).
//
// A block owns QUERIES rows of one head, a warp 16 M of them: what it loads of a key or value tile serves M products.
// It walks over the tiles of KEYS keys that some of its rows see, two of them in shared memory, the next on its way while
// one is used. Scores, the largest score, sums and outputs stay in registers as fp32; weights are rounded to bf16 for the
// product with the values.

#ifdef PREFILL
struct PrefillArguments {
    const u16 *q, *k, *v;
    u16* out;                 // [B, T, heads, KW]
    u64 q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head; // elements
    u32 tokens, heads, group, window; // heads of a key head; positions seen, 0: all
    float scale;              // times log2 e
};

const u32 PREFILL_WARPS = 4, PREFILL_THREADS = 32 * PREFILL_WARPS, WARP_QUERIES = 16 * M, QUERIES = PREFILL_WARPS * WARP_QUERIES;

struct PrefillShared {
    static const u32 q = 0, stages = tile_bytes(QUERIES, KW), stage_bytes = 2 * tile_bytes(KEYS, KW), end = stages + 2 * stage_bytes;
};

KERNEL_BESIDE(attention_prefill, PrefillArguments, PREFILL_THREADS, 2)
{
    u8* shared = shared_memory();
    u32 thread = thread_index(), warp = thread / 32, lane = thread % 32, group = lane / 4, pair = lane % 4;
    // those with most keys begin first
    u32 tile = (args.tokens + QUERIES - 1) / QUERIES - 1 - block_index_y(), first = tile * QUERIES;
    u32 batch = block_index() / args.heads, head = block_index() % args.heads, key_head = head / args.group;
    const u16* q = args.q + batch * args.q_batch + head * args.q_head + first * args.q_row;
    const u16* k = args.k + batch * args.k_batch + key_head * args.k_head;
    const u16* v = args.v + batch * args.v_batch + key_head * args.v_head;
    u32 begin = args.window != 0 && first + 1 > args.window ? (first + 1 - args.window) / KEYS : 0;
    u32 end = (smaller(args.tokens, first + QUERIES) + KEYS - 1) / KEYS;
    auto copy_keys = [&](u32 i) {
        u8* to = shared + PrefillShared::stages + i % 2 * PrefillShared::stage_bytes;
        u32 there = args.tokens - i * KEYS;
        copy_tile<KEYS, KW, PREFILL_THREADS>(to, k + (u64)i * KEYS * args.k_row, args.k_row, there, thread);
        copy_tile<KEYS, KW, PREFILL_THREADS>(to + tile_bytes(KEYS, KW), v + (u64)i * KEYS * args.v_row, args.v_row, there, thread);
    };
    copy_tile<QUERIES, KW, PREFILL_THREADS>(shared, q, args.q_row, args.tokens - first, thread);
    copy_keys(begin);
    copies_commit();

    u32 row = first + warp * WARP_QUERIES; // this warp's first
    float o[M][KW / 8][4];
    Softmax softmax[M];
    UNROLL for (u32 m = 0; m < M; m++) {
        set_zero(o[m]);
        UNROLL for (u32 half = 0; half < 2; half++) softmax[m].largest[half] = nothing(), softmax[m].sum[half] = 0.f;
    }
    for (u32 i = begin; i < end; i++) {
        copies_wait<0>();
        block_sync(); // tile i is there for all, and nobody reads the one before
        if (i + 1 < end) copy_keys(i + 1);
        copies_commit();
        u32 base = i * KEYS, last = row + WARP_QUERIES - 1;
        if (base > last || (args.window != 0 && base + KEYS - 1 + args.window <= row)) continue; // none of its rows sees these keys
        const u8* keys = shared + PrefillShared::stages + i % 2 * PrefillShared::stage_bytes;
        const u8* values = keys + tile_bytes(KEYS, KW);
        float s[M][KEYS / 8][4];
        UNROLL for (u32 m = 0; m < M; m++) set_zero(s[m]);
        UNROLL for (u32 step = 0; step < KW / 16; step++) {
            u32 a[M][4];
            UNROLL for (u32 m = 0; m < M; m++) load_a<KW>(a[m], shared, warp * WARP_QUERIES + m * 16, step * 16, lane);
            UNROLL for (u32 n = 0; n < KEYS / 16; n++) {
                u32 b[4];
                load_b<KW>(b, keys, n * 16, step * 16, lane);
                UNROLL for (u32 m = 0; m < M; m++) product(s[m][2 * n], s[m][2 * n + 1], a[m], b);
            }
        }
        if (base + KEYS - 1 > row || (args.window != 0 && base + args.window <= last)) // some of these pairs are not seen
            UNROLL for (u32 m = 0; m < M; m++) UNROLL for (u32 n = 0; n < KEYS / 8; n++) UNROLL for (u32 j = 0; j < 4; j++) {
                u32 key = base + n * 8 + 2 * pair + j % 2, query = row + m * 16 + j / 2 * 8 + group;
                if (key > query || (args.window != 0 && key + args.window <= query)) s[m][n][j] = nothing();
            }
        u32 weights[KEYS / 16][M][4];
        UNROLL for (u32 m = 0; m < M; m++) {
            soften(softmax[m], s[m], o[m], args.scale);
            UNROLL for (u32 step = 0; step < KEYS / 16; step++) as_operand(weights[step][m], s[m][2 * step], s[m][2 * step + 1]);
        }
        UNROLL for (u32 step = 0; step < KEYS / 16; step++) {
            UNROLL for (u32 n = 0; n < KW / 16; n++) {
                u32 b[4];
                load_b_transposed<KW>(b, values, step * 16, n * 16, lane);
                UNROLL for (u32 m = 0; m < M; m++) product(o[m][2 * n], o[m][2 * n + 1], weights[step][m], b);
            }
        }
    }

    // by way of this warp's rows of the queries, so that rows are written whole
    warp_sync();
    UNROLL for (u32 m = 0; m < M; m++) UNROLL for (u32 half = 0; half < 2; half++) {
        float sum = softmax[m].sum[half];
        sum += shuffle_xor(sum, 1);
        sum += shuffle_xor(sum, 2);
        float by = 1.f / sum;
        u8* to = shared + (warp * WARP_QUERIES + m * 16 + half * 8 + group) * row_bytes(KW) + pair * 4;
        UNROLL for (u32 n = 0; n < KW / 8; n++) *(u32*)(to + n * 16) = bf16_pair(o[m][n][2 * half] * by, o[m][n][2 * half + 1] * by);
    }
    warp_sync();
    const u32 PIECES = KW / 8;
    UNROLL for (u32 i = 0; i < WARP_QUERIES * PIECES / 32; i++) {
        u32 at = i * 32 + lane, query = row + at / PIECES;
        uint4 words = *(const uint4*)(shared + (warp * WARP_QUERIES + at / PIECES) * row_bytes(KW) + at % PIECES * 16);
        if (query < args.tokens)
            *(uint4*)(args.out + (((u64)batch * args.tokens + query) * args.heads + head) * KW + at % PIECES * 8) = words;
    }
}
#endif // PREFILL
