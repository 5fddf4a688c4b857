// The angles of Selective RoPE (arXiv 2511.17388), and queries and keys turned by them:
//     φ = (conv4(ψ) + e^b) · σ(gate + b_g),  angle_t = τ Σ_{s ≤ t} φ_s,
// ψ and the gate from the projections, f32. Sums over whole sequences go by spans: inside each, then over the spans before it.

const u32 PHASES_THREADS = 256;
const float TAU = 6.2831853071795865f;

DEVICE float without_turns(float angle) { return angle - TAU * rintf(angle / TAU); }

struct PhasesArguments {
    const float *psi, *gate;  // [rows, channels], [rows, heads], rows `psi_row`, `gate_row` apart; gate null: open
    const float *taps, *bias, *gate_bias, *temperatures; // [channels, 4]; e^b [channels] or null; [heads]; [half]
    float *ring, *angles;     // [B, 4, channels], ψ of position p in row p % 4; [B, channels]: what is left of a sequence
    float *turns, *spans;     // [rows, channels]; [B, spans, channels]
    const u32* positions;     // [B], of a step
    u64 psi_row, gate_row;
    u32 batch, tokens, heads, half;
};

// τ φ where ψ of this position and the three before it are `x`.
DEVICE float turn_of(const PhasesArguments& args, const float (&x)[4], float4 taps, float bias, float tau, u32 head, u64 row)
{
    float turn = taps.x * x[0] + taps.y * x[1] + taps.z * x[2] + taps.w * x[3] + bias;
    if (args.gate != nullptr) turn *= sigmoid(args.gate[row * args.gate_row + head] + load_constant(args.gate_bias + head));
    return turn * tau;
}

// A thread owns an angle of a span.
KERNEL(phases_spans, PhasesArguments, PHASES_THREADS)
{
    u32 channels = args.heads * args.half, c = block_index() * PHASES_THREADS + thread_index();
    if (c >= channels) return;
    u32 spans = (args.tokens + SPAN - 1) / SPAN, span = block_index_y() % spans, batch = block_index_y() / spans;
    float4 taps = load_constant((const float4*)args.taps + c);
    float bias = args.bias != nullptr ? load_constant(args.bias + c) : 0.f, tau = load_constant(args.temperatures + c % args.half), sum = 0.f, x[4];
    u64 first = (u64)batch * args.tokens;
    auto psi = [&](u32 t) { return load_constant(args.psi + (first + t) * args.psi_row + c); };
    u32 begin = span * SPAN, end = begin + SPAN < args.tokens ? begin + SPAN : args.tokens;
    UNROLL for (u32 j = 0; j < 3; j++) x[j] = begin + j >= 3 ? psi(begin + j - 3) : 0.f;
    UNROLL_BY_FOUR for (u32 t = begin; t < end; t++) {
        x[3] = psi(t);
        sum += turn_of(args, x, taps, bias, tau, c / args.half, first + t);
        args.turns[(first + t) * channels + c] = sum;
        if (t + 4 >= args.tokens) args.ring[((u64)batch * 4 + t % 4) * channels + c] = x[3];
        x[0] = x[1], x[1] = x[2], x[2] = x[3];
    }
    args.spans[((u64)batch * spans + span) * channels + c] = without_turns(sum);
}

// What the spans before each have turned, and all of them.
KERNEL(phases_sums, PhasesArguments, PHASES_THREADS)
{
    u32 channels = args.heads * args.half, c = block_index() * PHASES_THREADS + thread_index(), batch = block_index_y();
    if (c >= channels) return;
    u32 spans = (args.tokens + SPAN - 1) / SPAN;
    float* at = args.spans + (u64)batch * spans * channels + c;
    float sum = 0.f;
    UNROLL_BY_FOUR for (u32 span = 0; span < spans; span++) {
        float own = at[(u64)span * channels];
        at[(u64)span * channels] = sum;
        sum = without_turns(sum + own);
    }
    args.angles[(u64)batch * channels + c] = sum;
}

// One position of each sequence.
KERNEL(phases_step, PhasesArguments, PHASES_THREADS)
{
    u32 channels = args.heads * args.half, c = block_index() * PHASES_THREADS + thread_index(), batch = block_index_y();
    if (c >= channels) return;
    u32 position = load_constant(args.positions + batch);
    float* ring = args.ring + (u64)batch * 4 * channels + c;
    float x[4];
    UNROLL for (u32 j = 0; j < 3; j++) x[j] = position + j >= 3 ? ring[((position + 1 + j) & 3) * channels] : 0.f;
    x[3] = load_constant(args.psi + batch * args.psi_row + c);
    float4 taps = load_constant((const float4*)args.taps + c);
    float bias = args.bias != nullptr ? load_constant(args.bias + c) : 0.f, tau = load_constant(args.temperatures + c % args.half);
    float before = position > 0 ? args.angles[(u64)batch * channels + c] : 0.f;
    float angle = without_turns(before + turn_of(args, x, taps, bias, tau, c / args.half, batch));
    ring[(position & 3) * channels] = x[3];
    args.angles[(u64)batch * channels + c] = args.turns[(u64)batch * channels + c] = angle;
}

struct TurnArguments {
    u16* x;                   // [rows, heads, 2 half], rows `x_row` apart, turned in place
    const float *turns, *spans; // [rows, channels]; [B, spans, channels] or null
    u64 x_row;
    u32 rows, tokens, heads, query_heads, group, key_heads, half; // heads of queries in groups, then keys again and again
};

// Channels i and i + half of a head by angle i, eight neighbours a thread.
KERNEL(phases_turn, TurnArguments, PHASES_THREADS)
{
    u32 pieces = args.half / 8, channels = args.key_heads * args.half;
    u64 item = (u64)block_index() * PHASES_THREADS + thread_index();
    if (item >= (u64)args.rows * args.heads * pieces) return;
    u32 column = (u32)(item % pieces) * 8, head = (u32)(item / pieces % args.heads), row = (u32)(item / pieces / args.heads);
    u32 key_head = head < args.query_heads ? head / args.group : (head - args.query_heads) % args.key_heads;
    u32 angle = key_head * args.half + column;
    Eight by = load_eight_f32(args.turns + (u64)row * channels + angle);
    if (args.spans != nullptr) {
        u32 spans = (args.tokens + SPAN - 1) / SPAN;
        Eight before = load_eight_f32(args.spans + ((u64)(row / args.tokens) * spans + row % args.tokens / SPAN) * channels + angle);
        UNROLL for (u32 i = 0; i < 8; i++) by.x[i] += before.x[i];
    }
    u16* at = args.x + row * args.x_row + head * 2 * args.half + column;
    Eight low = load_eight_changing(at), high = load_eight_changing(at + args.half);
    UNROLL for (u32 i = 0; i < 8; i++) {
        float turned = without_turns(by.x[i]), c = cosine_fast(turned), s = sine_fast(turned), a = low.x[i], b = high.x[i];
        low.x[i] = a * c - b * s, high.x[i] = b * c + a * s;
    }
    store_eight(at, low), store_eight(at + args.half, high);
}
