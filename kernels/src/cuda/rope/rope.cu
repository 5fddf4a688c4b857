// Rotary positions on halves (arXiv 2104.09864, eq. 34): channels i and i + K/2 of each head turn by the position's angle
// i, back again for gradients.
//
// A thread turns eight channels of a first half with the same eight of the second.

struct RopeArguments {
    const Number* x;        // [B, T, H, K], rows `row` apart
    const float* rotations; // [T, K / 2, 2], cosines and sines
    Number* y;              // [B, T, H, K] without gaps
    u64 row;
    u32 rows, tokens, heads, width;
    float sign;             // of the angle
};

const u32 ROPE_THREADS = 256;

KERNEL(rope_turn, RopeArguments, ROPE_THREADS)
{
    u32 half = args.width / 2, pieces = half / 8;
    u64 item = (u64)block_index() * ROPE_THREADS + thread_index();
    if (item >= (u64)args.rows * args.heads * pieces) return;
    u32 column = (u32)(item % pieces) * 8, head = (u32)(item / pieces % args.heads), row = (u32)(item / pieces / args.heads);
    const Number* from = args.x + row * args.row + head * args.width + column;
    Eight low = load_eight(from), high = load_eight(from + half);
    const float4* turns = (const float4*)(args.rotations + ((u64)(row % args.tokens) * half + column) * 2);
    UNROLL for (u32 i = 0; i < 8; i += 2) {
        float4 two = load_constant(turns + i / 2); // cosine, sine, cosine, sine
        two.y *= args.sign, two.w *= args.sign;
        float a = low.x[i], b = low.x[i + 1], c = high.x[i], d = high.x[i + 1];
        low.x[i] = a * two.x - c * two.y, high.x[i] = c * two.x + a * two.y;
        low.x[i + 1] = b * two.z - d * two.w, high.x[i + 1] = d * two.z + b * two.w;
    }
    Number* to = args.y + ((u64)row * args.heads + head) * args.width + column;
    store_eight(to, low);
    store_eight(to + half, high);
}
