// RMSNorm of q and of k over all heads of each together, in place, as OLMo 2 has it (arXiv 2501.00656). A block owns q or k
// of a position.

#ifdef WHOLE_NORM
struct WholeNormArguments {
    u16* qkv;                 // [rows, (heads + 2 key heads) KW], rows `row` apart
    const float *q_norm, *k_norm; // [heads KW], [key heads KW]
    u64 row;
    u32 query_width, key_width; // of all heads
    float epsilon;
};

const u32 WHOLE_NORM_THREADS = 256;

KERNEL(attention_whole_norm, WholeNormArguments, WHOLE_NORM_THREADS)
{
    float* sums = (float*)shared_memory(); // of the warps
    bool is_key = block_index_y() == 1;
    u32 thread = thread_index(), width = is_key ? args.key_width : args.query_width;
    u16* x = args.qkv + (u64)block_index() * args.row + (is_key ? args.query_width : 0);
    const float* weight = is_key ? args.k_norm : args.q_norm;
    float squares = 0.f;
    for (u32 c = thread * 2; c < width; c += 2 * WHOLE_NORM_THREADS) {
        u32 pair = *(const u32*)(x + c);
        squares += bf16_low(pair) * bf16_low(pair) + bf16_high(pair) * bf16_high(pair);
    }
    warp_sync();
    squares = warp_sum(squares);
    if (thread % 32 == 0) sums[thread / 32] = squares;
    block_sync();
    squares = 0.f;
    UNROLL for (u32 w = 0; w < WHOLE_NORM_THREADS / 32; w++) squares += sums[w];
    float r = square_root_reciprocal(squares / (float)width + args.epsilon);
    for (u32 c = thread * 2; c < width; c += 2 * WHOLE_NORM_THREADS) {
        u32 pair = *(const u32*)(x + c);
        float2 w = load_constant((const float2*)(weight + c));
        *(u32*)(x + c) = bf16_pair(bf16_low(pair) * r * w.x, bf16_high(pair) * r * w.y);
    }
}
#endif // WHOLE_NORM
