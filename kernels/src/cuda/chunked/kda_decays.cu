// The logarithms of the decays of Kimi Delta Attention (arXiv 2510.26692, section 3.1), of each channel of the keys, and their
// gradients:
//     g = −e^A softplus(x + b)      dx = −e^A σ(x + b) dg      db = Σ dx      dA = Σ g dg
// A thread owns eight channels, all of one head, and walks over LENGTH positions, so that db and dA stay in its registers.

#ifdef KDA_DECAYS
struct KdaDecaysArguments {
    const Number* x;          // [positions, channels], rows `x_row` apart
    const float *bias, *a_log; // [channels]; [heads]
    float* g;                 // rows without gaps
    u64 x_row;
    u32 positions, channels;
};
struct KdaDecaysBackwardArguments {
    const Number* x;
    const float *bias, *a_log;
    const float* d_g;         // rows `g_row` apart
    Number* d_x;              // rows without gaps
    float *d_bias, *d_a;      // [walks, channels]: a part for each walk
    u64 x_row, g_row;
    u32 positions, channels;
};

const u32 KDA_DECAYS_THREADS = 128;

KERNEL(kda_decays, KdaDecaysArguments, KDA_DECAYS_THREADS)
{
    u32 channel = (block_index() * KDA_DECAYS_THREADS + thread_index()) * 8, first = block_index_y() * LENGTH;
    if (channel >= args.channels) return;
    Eight bias = load_eight_f32(args.bias + channel);
    float rate = -exp_fast(load_constant(args.a_log + channel / KW));
    UNROLL_BY_FOUR for (u32 t = first; t < smaller(first + LENGTH, args.positions); t++) {
        Eight x = load_eight(args.x + t * args.x_row + channel);
        UNROLL for (u32 i = 0; i < 8; i++) x.x[i] = rate * softplus(x.x[i] + bias.x[i]);
        store_eight_f32(args.g + (u64)t * args.channels + channel, x);
    }
}

KERNEL(kda_decays_backward, KdaDecaysBackwardArguments, KDA_DECAYS_THREADS)
{
    u32 channel = (block_index() * KDA_DECAYS_THREADS + thread_index()) * 8, first = block_index_y() * LENGTH;
    if (channel >= args.channels) return;
    Eight bias = load_eight_f32(args.bias + channel), d_bias = filled(0.f), d_a = filled(0.f);
    float rate = -exp_fast(load_constant(args.a_log + channel / KW));
    UNROLL_BY_FOUR for (u32 t = first; t < smaller(first + LENGTH, args.positions); t++) {
        Eight x = load_eight(args.x + t * args.x_row + channel), d = load_eight_f32(args.d_g + t * args.g_row + channel);
        UNROLL for (u32 i = 0; i < 8; i++) {
            float u = x.x[i] + bias.x[i], by = rate * d.x[i];
            x.x[i] = by * sigmoid(u);
            d_bias.x[i] += x.x[i];
            d_a.x[i] += by * softplus(u);
        }
        store_eight(args.d_x + (u64)t * args.channels + channel, x);
    }
    u64 part = (u64)block_index_y() * args.channels + channel;
    store_eight_f32(args.d_bias + part, d_bias), store_eight_f32(args.d_a + part, d_a);
}
#endif // KDA_DECAYS
