// The gated short convolution (arXiv 2511.23404) of TAPS taps: u = B x̃, z_t = Σ_j w_j u_{t−TAPS+1+j}, y = C z. Rows hold B, C
// and x̃ side by side, [3, channels], `x_row` apart.
//
// Over whole sequences a thread owns four channels and walks over LENGTH positions with its window of u in registers. The
// backward pass forms z anew, and e = C dy as many positions further as the taps reach: du_t = Σ_j w_j e_{t+TAPS−1−j},
// dB = x̃ du, dx̃ = B du, dC = z dy, dw_j = Σ_t e_t u_{t−TAPS+1+j}, the last in parts, one for each walk.
//
// For one position of each sequence a thread owns one channel. The ring keeps u in f32, that of position p in row
// p % (TAPS − 1).

const u32 PAST = TAPS - 1, GATED_THREADS = 128;

struct GatedArguments {
    const Number* x;
    const float* weight;      // [channels, TAPS]
    Number* y;                // [B, T, channels]
    float* ring;              // [B, PAST, channels], or null
    u64 x_row;
    u32 tokens, channels;
};
struct GatedBackwardArguments {
    const Number* x;
    const float* weight;
    const Number* d_y;        // rows `d_row` apart
    Number* d_x;              // [B, T, 3, channels]
    float* d_weight;          // [B · walks, TAPS, channels]
    u64 x_row, d_row;
    u32 tokens, channels;
};
struct GatedStepArguments {
    const Number* x;          // a row for each sequence
    const float* weight;
    float* ring;              // [B, PAST, channels]
    const u32* positions;     // [B]
    Number* y;                // [B, channels]
    u64 x_row;
    u32 channels;
};

DEVICE void load_taps(Four (&taps)[TAPS], const float* weight, u32 channel)
{
    UNROLL for (u32 j = 0; j < TAPS; j++) UNROLL for (u32 i = 0; i < 4; i++) taps[j].x[i] = load_constant(weight + (channel + i) * TAPS + j);
}
DEVICE Four product_of(const Four& a, const Four& b)
{
    Four to;
    UNROLL for (u32 i = 0; i < 4; i++) to.x[i] = a.x[i] * b.x[i];
    return to;
}
DEVICE void add_product(Four& to, const Four& a, const Four& b) { UNROLL for (u32 i = 0; i < 4; i++) to.x[i] += a.x[i] * b.x[i]; }

// u of the position whose row this is.
DEVICE Four u_of(const Number* row, u32 channels) { return product_of(load_four(row), load_four(row + 2 * channels)); }

DEVICE Four convolved(const Four (&taps)[TAPS], const Four (&window)[TAPS])
{
    Four z = four_zeros();
    UNROLL for (u32 j = 0; j < TAPS; j++) add_product(z, taps[j], window[j]);
    return z;
}
DEVICE void move_on(Four (&window)[TAPS], const Four& next)
{
    UNROLL for (u32 j = 0; j < PAST; j++) window[j] = window[j + 1];
    window[PAST] = next;
}

// The window before position `first`, which is to come next.
DEVICE void open_window(Four (&window)[TAPS], const Number* x, u64 x_row, u32 first, u32 channels)
{
    UNROLL for (u32 j = 0; j < PAST; j++) window[j + 1] = first + j >= PAST ? u_of(x + (first + j - PAST) * x_row, channels) : four_zeros();
}

KERNEL(gated_forward, GatedArguments, GATED_THREADS)
{
    u32 channel = (block_index() * GATED_THREADS + thread_index()) * 4, walks = (args.tokens + LENGTH - 1) / LENGTH;
    if (channel >= args.channels) return;
    u32 batch = block_index_y() / walks, first = block_index_y() % walks * LENGTH;
    u32 end = first + LENGTH < args.tokens ? first + LENGTH : args.tokens;
    const Number* x = args.x + (u64)batch * args.tokens * args.x_row + channel;
    Number* y = args.y + (u64)batch * args.tokens * args.channels + channel;
    Four taps[TAPS], window[TAPS];
    load_taps(taps, args.weight, channel);
    open_window(window, x, args.x_row, first, args.channels);
    UNROLL_BY_FOUR for (u32 t = first; t < end; t++) {
        const Number* row = x + t * args.x_row;
        move_on(window, u_of(row, args.channels));
        store_four(y + (u64)t * args.channels, product_of(load_four(row + args.channels), convolved(taps, window)));
        if (args.ring != nullptr && t + PAST >= args.tokens)
            store_four_f32(args.ring + ((u64)batch * PAST + t % PAST) * args.channels + channel, window[PAST]);
    }
}

KERNEL(gated_backward, GatedBackwardArguments, GATED_THREADS)
{
    u32 channel = (block_index() * GATED_THREADS + thread_index()) * 4, walks = (args.tokens + LENGTH - 1) / LENGTH;
    if (channel >= args.channels) return;
    u32 batch = block_index_y() / walks, first = block_index_y() % walks * LENGTH;
    u32 end = first + LENGTH < args.tokens ? first + LENGTH : args.tokens;
    const Number* x = args.x + (u64)batch * args.tokens * args.x_row + channel;
    const Number* d_y = args.d_y + (u64)batch * args.tokens * args.d_row + channel;
    Number* d_x = args.d_x + (u64)batch * args.tokens * 3 * args.channels + channel;
    Four taps[TAPS], window[TAPS], slopes[TAPS], d_taps[TAPS]; // slopes: e at the positions of the window
    load_taps(taps, args.weight, channel);
    open_window(window, x, args.x_row, first, args.channels);
    UNROLL for (u32 j = 0; j < TAPS; j++) slopes[j] = four_zeros(), d_taps[j] = four_zeros();
    for (u32 t = first; t < end + PAST; t++) {
        Four e = four_zeros();
        if (t < args.tokens) {
            const Number* row = x + t * args.x_row;
            Four d = load_four(d_y + t * args.d_row);
            e = product_of(d, load_four(row + args.channels));
            if (t < end) {
                move_on(window, u_of(row, args.channels));
                store_four(d_x + ((u64)t * 3 + 1) * args.channels, product_of(d, convolved(taps, window)));
                UNROLL for (u32 j = 0; j < TAPS; j++) add_product(d_taps[j], e, window[j]);
            }
        }
        move_on(slopes, e);
        if (t >= first + PAST) {
            u32 at = t - PAST;
            const Number* row = x + at * args.x_row;
            Four d_u = four_zeros();
            UNROLL for (u32 j = 0; j < TAPS; j++) add_product(d_u, taps[PAST - j], slopes[j]);
            store_four(d_x + (u64)at * 3 * args.channels, product_of(d_u, load_four(row + 2 * args.channels)));
            store_four(d_x + ((u64)at * 3 + 2) * args.channels, product_of(d_u, load_four(row)));
        }
    }
    UNROLL for (u32 j = 0; j < TAPS; j++) store_four_f32(args.d_weight + ((u64)block_index_y() * TAPS + j) * args.channels + channel, d_taps[j]);
}

DEVICE float wide_of(const Number* p)
{
#if WIDE
    return load_constant(p);
#else
    return bf16_low(load_constant(p));
#endif
}

KERNEL(gated_step, GatedStepArguments, GATED_THREADS)
{
    u32 channel = block_index() * GATED_THREADS + thread_index(), channels = args.channels, batch = block_index_y();
    if (channel >= channels) return;
    u32 position = load_constant(args.positions + batch);
    const Number* row = args.x + batch * args.x_row + channel;
    const float* weight = args.weight + (u64)channel * TAPS;
    float* ring = args.ring + (u64)batch * PAST * channels + channel;
    float u = wide_of(row) * wide_of(row + 2 * channels), z = load_constant(weight + PAST) * u;
    UNROLL for (u32 j = 0; j < PAST; j++) // positions before the first count as zeros, whatever the ring holds
        if (position + j >= PAST) z += load_constant(weight + j) * ring[(position + j) % PAST * channels];
    ring[position % PAST * channels] = u;
    float y = wide_of(row + channels) * z;
#if WIDE
    args.y[(u64)batch * channels + channel] = y;
#else
    args.y[(u64)batch * channels + channel] = (u16)bf16_pair(y, 0.f);
#endif
}
