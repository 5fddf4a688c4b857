// What a layer does to rows between its products: SwiGLU, relu², the embedding's rows, gates, and the lengthened sequences of
// DeltaProduct. A thread takes eight neighbouring columns of a row, or of the gates one head of a position.

const u32 ROWS_THREADS = 256;

DEVICE u64 rows_item() { return (u64)block_index() * ROWS_THREADS + thread_index(); }

struct SwigluArguments {
    const Number* x;          // gate | up, rows `x_row` apart
    Number* y;                // [rows, width]
    u64 x_row;
    u32 rows, width;
};
KERNEL(rows_swiglu, SwigluArguments, ROWS_THREADS)
{
    u64 item = rows_item();
    u32 pieces = args.width / 8, row = (u32)(item / pieces), column = (u32)(item % pieces) * 8;
    if (row >= args.rows) return;
    const Number* x = args.x + row * args.x_row + column;
    Eight gate = load_eight(x), up = load_eight(x + args.width);
    UNROLL for (u32 i = 0; i < 8; i++) up.x[i] *= silu(gate.x[i]);
    store_eight(args.y + (u64)row * args.width + column, up);
}

// With s = σ(gate): d_up = d_y gate s; d_gate = d_y up s (1 + gate (1 − s)).
struct SwigluBackArguments {
    const Number *x, *d_y;    // gate | up, rows `x_row` apart; rows `d_row` apart
    Number* d_x;              // [rows, 2 width]
    u64 x_row, d_row;
    u32 rows, width;
};
KERNEL(rows_swiglu_back, SwigluBackArguments, ROWS_THREADS)
{
    u64 item = rows_item();
    u32 pieces = args.width / 8, row = (u32)(item / pieces), column = (u32)(item % pieces) * 8;
    if (row >= args.rows) return;
    const Number* x = args.x + row * args.x_row + column;
    Eight gate = load_eight(x), up = load_eight(x + args.width), d = load_eight(args.d_y + row * args.d_row + column);
    UNROLL for (u32 i = 0; i < 8; i++) {
        float s = sigmoid(gate.x[i]), d_up = d.x[i] * gate.x[i] * s;
        gate.x[i] = d.x[i] * up.x[i] * s * (1.f + gate.x[i] * (1.f - s));
        up.x[i] = d_up;
    }
    Number* to = args.d_x + (u64)row * 2 * args.width + column;
    store_eight(to, gate);
    store_eight(to + args.width, up);
}

struct Relu2Arguments {
    const Number* x;          // rows `x_row` apart
    Number* y;                // [rows, width]
    u64 x_row;
    u32 rows, width;
};
KERNEL(rows_relu2, Relu2Arguments, ROWS_THREADS)
{
    u64 item = rows_item();
    u32 pieces = args.width / 8, row = (u32)(item / pieces), column = (u32)(item % pieces) * 8;
    if (row >= args.rows) return;
    Eight x = load_eight(args.x + row * args.x_row + column);
    UNROLL for (u32 i = 0; i < 8; i++) x.x[i] = fmaxf(x.x[i], 0.f) * x.x[i];
    store_eight(args.y + (u64)row * args.width + column, x);
}

// x · σ(gate)
struct GateArguments {
    const Number *x, *gate;   // rows `x_row` and `gate_row` apart
    Number* y;                // [rows, width]
    u64 x_row, gate_row;
    u32 rows, width;
};
KERNEL(rows_gate, GateArguments, ROWS_THREADS)
{
    u64 item = rows_item();
    u32 pieces = args.width / 8, row = (u32)(item / pieces), column = (u32)(item % pieces) * 8;
    if (row >= args.rows) return;
    Eight x = load_eight(args.x + row * args.x_row + column), gate = load_eight(args.gate + row * args.gate_row + column);
    UNROLL for (u32 i = 0; i < 8; i++) x.x[i] *= sigmoid(gate.x[i]);
    store_eight(args.y + (u64)row * args.width + column, x);
}

struct GatherArguments {
    const u16* table;         // [entries, width]
    const u32* entries;       // [rows]
    u16* y;                   // [rows, width]
    u32 rows, width;
};
KERNEL(rows_gather, GatherArguments, ROWS_THREADS)
{
    u64 item = rows_item();
    u32 pieces = args.width / 8, row = (u32)(item / pieces), column = (u32)(item % pieces) * 8;
    if (row >= args.rows) return;
    const u16* from = args.table + (u64)load_constant(args.entries + row) * args.width + column;
    *(uint4*)(args.y + (u64)row * args.width + column) = load_constant((const uint4*)from);
}

// y[row · steps + j] is piece j of a row; of one piece the last, zeros before it.
struct SpreadArguments {
    const u16* x;             // [rows, pieces, width], rows `x_row` apart
    u16* y;                   // [rows · steps, width]
    u64 x_row;
    u32 rows, steps, pieces, width;
};
KERNEL(rows_spread, SpreadArguments, ROWS_THREADS)
{
    u64 item = rows_item();
    u32 per_row = args.width / 8, row = (u32)(item / per_row), column = (u32)(item % per_row) * 8;
    if (row >= args.rows * args.steps) return;
    u32 none = args.steps - args.pieces, step = row % args.steps;
    uint4 words = make_uint4(0, 0, 0, 0);
    if (step >= none)
        words = load_constant((const uint4*)(args.x + row / args.steps * args.x_row + (step - none) * args.width + column));
    *(uint4*)(args.y + (u64)row * args.width + column) = words;
}

// g = −e^A_log softplus(raw + dt_bias), and of the delta rule β, of Mamba2 dt.
struct GatesArguments {
    const u16 *raw, *b;       // [positions, heads] or null: no decay; [positions, steps · heads] or null: Mamba2
    const float *a_log, *dt_bias; // [heads]
    float *g, *factors;       // [positions · steps, heads]: g, a token's decay on its first step, or null; β or dt
    u64 raw_row, b_row;
    u32 positions, heads, steps;
    float largest_beta;
};
KERNEL(rows_gates, GatesArguments, ROWS_THREADS)
{
    u64 item = rows_item();
    u32 position = (u32)(item / args.heads), head = (u32)(item % args.heads);
    if (position >= args.positions) return;
    float g = 0.f, dt = 0.f;
    if (args.raw != nullptr) {
        dt = softplus(bf16_low(load_constant(args.raw + position * args.raw_row + head)) + load_constant(args.dt_bias + head));
        g = -exp_fast(load_constant(args.a_log + head)) * dt;
    }
    for (u32 j = 0; j < args.steps; j++) {
        u64 to = ((u64)position * args.steps + j) * args.heads + head;
        if (args.g != nullptr) args.g[to] = j == 0 ? g : 0.f;
        args.factors[to] = args.b == nullptr
            ? dt
            : args.largest_beta * sigmoid(bf16_low(load_constant(args.b + position * args.b_row + j * args.heads + head)));
    }
}
