// What stands between the projections and attention: the norm of each head of q and k, the rotation of their halves by
// the position (arXiv 2104.09864, eq. 34), both in place, and the way of k and v into the cache.
//
// A team of lanes owns a head of one position, a lane eight columns of the first half and the same eight of the second.

#ifdef ROTATE
struct RotateArguments {
    u16* qkv;                 // [B, T, (heads + 2 key heads) KW], rows `row` apart
    const float *q_norm, *k_norm; // [KW], or null: no norm
    const float* rotations;   // [positions, KW / 2, 2], cosines and sines, or null: no rotation
    const u32* first;         // [B], the position of a sequence's first row, or null: 0
    u16 *keys, *values;       // [B, key heads, capacity, KW], or null: no cache
    u64 row;
    u32 batch, tokens, heads, key_heads, capacity;
    float epsilon;
};

const u32 ROTATE_THREADS = 256, LANES = KW / 16, TEAM = LANES <= 2 ? 2 : LANES <= 4 ? 4 : LANES <= 8 ? 8 : 16;

struct Octet {
    float at[8];
};
DEVICE Octet octet(const u16* p)
{
    uint4 words = *(const uint4*)p;
    Octet x = {{bf16_low(words.x), bf16_high(words.x), bf16_low(words.y), bf16_high(words.y), bf16_low(words.z),
                bf16_high(words.z), bf16_low(words.w), bf16_high(words.w)}};
    return x;
}
DEVICE uint4 packed(const Octet& x)
{
    return make_uint4(bf16_pair(x.at[0], x.at[1]), bf16_pair(x.at[2], x.at[3]), bf16_pair(x.at[4], x.at[5]), bf16_pair(x.at[6], x.at[7]));
}

KERNEL(attention_rotate, RotateArguments, ROTATE_THREADS)
{
    u32 all = args.heads + (args.keys != nullptr ? 2 : 1) * args.key_heads; // values are read for the cache only
    u32 item = block_index() * (ROTATE_THREADS / TEAM) + thread_index() / TEAM, lane = thread_index() % TEAM;
    u32 position = item / all, head = item % all, batch = position / args.tokens, t = position % args.tokens;
    bool here = batch < args.batch && lane < LANES, is_query = head < args.heads, is_value = head >= args.heads + args.key_heads;
    u16* at = args.qkv + position * args.row + head * KW + lane * 8;
    Octet low = {}, high = {};
    if (here) low = octet(at), high = octet(at + KW / 2);
    float squares = 0.f;
    UNROLL for (u32 i = 0; i < 8; i++) squares += low.at[i] * low.at[i] + high.at[i] * high.at[i];
    UNROLL for (u32 mask = 1; mask < TEAM; mask *= 2) squares += shuffle_xor(squares, mask);
    if (!here) return;
    u32 place = t + (args.first != nullptr ? load_constant(args.first + batch) : 0);
    const float* norm = is_query ? args.q_norm : is_value ? nullptr : args.k_norm;
    if (norm != nullptr) {
        float r = square_root_reciprocal(squares / (float)KW + args.epsilon);
        UNROLL for (u32 i = 0; i < 8; i++) {
            low.at[i] *= r * load_constant(norm + lane * 8 + i);
            high.at[i] *= r * load_constant(norm + KW / 2 + lane * 8 + i);
        }
    }
    bool turns = args.rotations != nullptr && !is_value;
    if (turns) {
        const float4* turn = (const float4*)(args.rotations + ((u64)place * (KW / 2) + lane * 8) * 2);
        UNROLL for (u32 i = 0; i < 8; i += 2) {
            float4 two = load_constant(turn + i / 2); // cosine, sine, cosine, sine
            float a = low.at[i], b = low.at[i + 1], c = high.at[i], d = high.at[i + 1];
            low.at[i] = a * two.x - c * two.y, high.at[i] = c * two.x + a * two.y;
            low.at[i + 1] = b * two.z - d * two.w, high.at[i + 1] = d * two.z + b * two.w;
        }
    }
    uint4 first = packed(low), second = packed(high);
    if (turns || norm != nullptr) *(uint4*)at = first, *(uint4*)(at + KW / 2) = second;
    // of more positions than the cache holds, the last ones
    if (is_query || args.keys == nullptr || t + args.capacity < args.tokens) return;
    u32 key_head = is_value ? head - args.heads - args.key_heads : head - args.heads;
    u16* to = (is_value ? args.values : args.keys)
        + (((u64)batch * args.key_heads + key_head) * args.capacity + place % args.capacity) * KW + lane * 8;
    *(uint4*)to = first, *(uint4*)(to + KW / 2) = second;
}
#endif // ROTATE
