// The short convolution of four taps and its SiLU, over [B, T, C]: y_t = silu(Σ_j w_j x_{t−3+j} + b).
//
// A thread owns four channels and walks over LENGTH positions with its window in registers. The backward pass forms the
// sums anew, three positions further than its own; gradients of taps and bias come in parts, one for each walk.

struct ConvArguments {
    const Number* x;          // rows `x_row` apart
    const float *weight, *bias; // [C, 4]; [C] or null
    Number* y;                // [B, T, C]
    Number* ring;             // [B, 4, C], the last inputs, that of position t in row t % 4; or null
    u64 x_row;
    u32 tokens, channels;
};
struct ConvBackwardArguments {
    const Number* x;
    const float *weight, *bias;
    const Number* d_y;        // rows `d_row` apart
    Number* d_x;              // [B, T, C]
    float* d_weight;          // [B · walks, 5, C]: the four taps and the bias
    u64 x_row, d_row;
    u32 tokens, channels;
};

const u32 CONV_THREADS = 128;

struct Taps {
    Four tap[4], bias;
};
DEVICE Taps load_taps(const float* weight, const float* bias, u32 channel)
{
    Taps taps;
    UNROLL for (u32 i = 0; i < 4; i++) {
        float4 w = load_constant((const float4*)weight + channel + i);
        taps.tap[0].x[i] = w.x, taps.tap[1].x[i] = w.y, taps.tap[2].x[i] = w.z, taps.tap[3].x[i] = w.w;
    }
    taps.bias = bias != nullptr ? load_four_f32(bias + channel) : four_zeros();
    return taps;
}
DEVICE float conv_sum(const Taps& taps, const Four (&window)[4], u32 i)
{
    float sum = taps.bias.x[i];
    UNROLL for (u32 j = 0; j < 4; j++) sum += taps.tap[j].x[i] * window[j].x[i];
    return sum;
}

KERNEL(conv_forward, ConvArguments, CONV_THREADS)
{
    u32 channel = (block_index() * CONV_THREADS + thread_index()) * 4, walks = (args.tokens + LENGTH - 1) / LENGTH;
    if (channel >= args.channels) return;
    u32 batch = block_index_y() / walks, first = block_index_y() % walks * LENGTH;
    u32 end = first + LENGTH < args.tokens ? first + LENGTH : args.tokens;
    Taps taps = load_taps(args.weight, args.bias, channel);
    const Number* x = args.x + (u64)batch * args.tokens * args.x_row + channel;
    Number* y = args.y + (u64)batch * args.tokens * args.channels + channel;
    Four window[4];
    UNROLL for (u32 j = 0; j < 3; j++) window[j + 1] = first + j >= 3 ? load_four(x + (first + j - 3) * args.x_row) : four_zeros();
    UNROLL_BY_FOUR for (u32 t = first; t < end; t++) {
        window[0] = window[1], window[1] = window[2], window[2] = window[3];
        window[3] = load_four(x + t * args.x_row);
        Four out;
        UNROLL for (u32 i = 0; i < 4; i++) out.x[i] = silu(conv_sum(taps, window, i));
        store_four(y + (u64)t * args.channels, out);
        if (args.ring != nullptr && t + 4 >= args.tokens) store_four(args.ring + ((u64)batch * 4 + t % 4) * args.channels + channel, window[3]);
    }
}

KERNEL(conv_backward, ConvBackwardArguments, CONV_THREADS)
{
    u32 channel = (block_index() * CONV_THREADS + thread_index()) * 4, walks = (args.tokens + LENGTH - 1) / LENGTH;
    if (channel >= args.channels) return;
    u32 batch = block_index_y() / walks, first = block_index_y() % walks * LENGTH;
    u32 end = first + LENGTH < args.tokens ? first + LENGTH : args.tokens;
    Taps taps = load_taps(args.weight, args.bias, channel);
    const Number* x = args.x + (u64)batch * args.tokens * args.x_row + channel;
    const Number* d_y = args.d_y + (u64)batch * args.tokens * args.d_row + channel;
    Number* d_x = args.d_x + (u64)batch * args.tokens * args.channels + channel;
    Four window[4], slopes[4], d_taps[5]; // the inputs, the gradients of the sums at the same positions
    UNROLL for (u32 j = 0; j < 3; j++) window[j + 1] = first + j >= 3 ? load_four(x + (first + j - 3) * args.x_row) : four_zeros();
    UNROLL for (u32 j = 0; j < 4; j++) slopes[j] = four_zeros();
    UNROLL for (u32 j = 0; j < 5; j++) d_taps[j] = four_zeros();
    UNROLL_BY_FOUR for (u32 t = first; t < end + 3; t++) {
        window[0] = window[1], window[1] = window[2], window[2] = window[3];
        slopes[0] = slopes[1], slopes[1] = slopes[2], slopes[2] = slopes[3];
        slopes[3] = four_zeros();
        if (t < args.tokens) {
            window[3] = load_four(x + t * args.x_row);
            Four d = load_four(d_y + t * args.d_row);
            UNROLL for (u32 i = 0; i < 4; i++) slopes[3].x[i] = d.x[i] * silu_slope(conv_sum(taps, window, i));
        }
        if (t < end) UNROLL for (u32 i = 0; i < 4; i++) {
            UNROLL for (u32 j = 0; j < 4; j++) d_taps[j].x[i] += slopes[3].x[i] * window[j].x[i];
            d_taps[4].x[i] += slopes[3].x[i];
        }
        if (t >= first + 3) {
            Four out = four_zeros();
            UNROLL for (u32 i = 0; i < 4; i++) UNROLL for (u32 j = 0; j < 4; j++) out.x[i] += taps.tap[3 - j].x[i] * slopes[j].x[i];
            store_four(d_x + (u64)(t - 3) * args.channels, out);
        }
    }
    UNROLL for (u32 j = 0; j < 5; j++) store_four_f32(args.d_weight + ((u64)block_index_y() * 5 + j) * args.channels + channel, d_taps[j]);
}
