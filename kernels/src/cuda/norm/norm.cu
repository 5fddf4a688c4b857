// Norms of rows, with a gate before or after, forward and backward:
//     u = x, or x · silu(z) (GATE 2);  r = 1 / √(FACTOR Σ u² + ε);  y = u r w, times silu(z) (GATE 1) or σ(z) (GATE 3)
// FACTOR is 1 / WIDTH for RMSNorm, 1 for the L2 norm, which has no w.
//
// A thread owns eight columns of every row it meets, so that the gradient of w stays in its registers; a row is shared by
// TEAM warps, a block holds TEAMS teams. Rows are [outer, inner, WIDTH]: `*_row` from one outer row to the next, WIDTH
// from one inner row to the next.

struct NormArguments {
    const Number *x, *z;      // z where there is a gate
    const float* weight;      // [WIDTH], or null
    Number* y;                // rows without gaps
    u64 x_row, z_row;
    u32 rows, inner;
    float factor, epsilon;
};
struct NormBackwardArguments {
    const Number *x, *z;
    const float* weight;
    const Number* d_y;        // rows without gaps
    Number *d_x, *d_z;        // the same
    float* d_weight;          // [teams, WIDTH], one part for each team of the launch, or null
    u64 x_row, z_row;
    u32 rows, inner;
    float factor, epsilon;
};

struct NormAddArguments {
    const Number* x;
    Number* residual;         // rows without gaps; x is added to them
    const float* weight;
    Number* y;                // the norm of the sum, rows without gaps
    u64 x_row;
    u32 rows;
    float factor, epsilon;
};

struct NormOntoArguments {
    const Number* x;
    const float* weight;      // null: x is added as it is
    Number* residual;         // rows without gaps; the norm of x is added to them
    u64 x_row;
    u32 rows;
    float factor, epsilon;
};

const u32 NORM_THREADS = 32 * TEAM * TEAMS;

DEVICE float opened(float z) { return GATE == 3 ? sigmoid(z) : silu(z); }
DEVICE float opened_slope(float z)
{
    if (GATE != 3) return silu_slope(z);
    float s = sigmoid(z);
    return s * (1.f - s);
}

// Sums over a row's team; all threads of the block come here together.
DEVICE float team_sum(float x, float* shared, u32 warp, u32 lane)
{
    x = warp_sum(x);
    if (TEAM == 1) return x;
    block_sync(); // the sums before are read
    if (lane == 0) shared[warp] = x;
    block_sync();
    float sum = 0.f;
    UNROLL for (u32 i = 0; i < TEAM; i++) sum += shared[warp / TEAM * TEAM + i];
    return sum;
}

KERNEL(norm_forward, NormArguments, NORM_THREADS)
{
    float* sums = (float*)shared_memory();
    u32 warp = thread_index() / 32, lane = thread_index() % 32, column = (thread_index() % (32 * TEAM)) * 8;
    bool mine = column < WIDTH;
    Eight w = mine && args.weight != nullptr ? load_eight_f32(args.weight + column) : filled(1.f);
    for (u32 first = block_index() * TEAMS; first < args.rows; first += block_count() * TEAMS) {
        u32 row = first + warp / TEAM;
        bool here = mine && row < args.rows;
        u64 inner = (u64)(row % args.inner) * WIDTH + column;
        Eight u = here ? load_eight(args.x + row / args.inner * args.x_row + inner) : filled(0.f), gate;
        if (GATE) {
            gate = here ? load_eight(args.z + row / args.inner * args.z_row + inner) : filled(0.f);
            UNROLL for (u32 i = 0; i < 8; i++) gate.x[i] = opened(gate.x[i]);
        }
        float squares = 0.f;
        UNROLL for (u32 i = 0; i < 8; i++) {
            if (GATE == 2) u.x[i] *= gate.x[i];
            squares += u.x[i] * u.x[i];
        }
        float r = square_root_reciprocal(args.factor * team_sum(squares, sums, warp, lane) + args.epsilon);
        UNROLL for (u32 i = 0; i < 8; i++) {
            u.x[i] *= r * w.x[i];
            if (GATE == 1 || GATE == 3) u.x[i] *= gate.x[i];
        }
        if (here) store_eight(args.y + (u64)row * WIDTH + column, u);
    }
}

KERNEL(norm_add, NormAddArguments, NORM_THREADS)
{
    float* sums = (float*)shared_memory();
    u32 warp = thread_index() / 32, lane = thread_index() % 32, column = (thread_index() % (32 * TEAM)) * 8;
    bool mine = column < WIDTH;
    Eight w = mine && args.weight != nullptr ? load_eight_f32(args.weight + column) : filled(1.f);
    for (u32 first = block_index() * TEAMS; first < args.rows; first += block_count() * TEAMS) {
        u32 row = first + warp / TEAM;
        bool here = mine && row < args.rows;
        Number* residual = args.residual + (u64)row * WIDTH + column;
        Eight u = filled(0.f);
        if (here) {
            Eight x = load_eight(args.x + row * args.x_row + column);
            u = load_eight_changing(residual);
            UNROLL for (u32 i = 0; i < 8; i++) u.x[i] += x.x[i];
            store_eight(residual, u);
        }
        float squares = 0.f;
        UNROLL for (u32 i = 0; i < 8; i++) {
            if (!WIDE) u.x[i] = bf16_rounded(u.x[i]); // what whoever reads the sum will see
            squares += u.x[i] * u.x[i];
        }
        float r = square_root_reciprocal(args.factor * team_sum(squares, sums, warp, lane) + args.epsilon);
        UNROLL for (u32 i = 0; i < 8; i++) u.x[i] *= r * w.x[i];
        if (here) store_eight(args.y + (u64)row * WIDTH + column, u);
    }
}

KERNEL(norm_onto, NormOntoArguments, NORM_THREADS)
{
    float* sums = (float*)shared_memory();
    u32 warp = thread_index() / 32, lane = thread_index() % 32, column = (thread_index() % (32 * TEAM)) * 8;
    bool mine = column < WIDTH, normed = args.weight != nullptr;
    Eight w = mine && normed ? load_eight_f32(args.weight + column) : filled(1.f);
    for (u32 first = block_index() * TEAMS; first < args.rows; first += block_count() * TEAMS) {
        u32 row = first + warp / TEAM;
        bool here = mine && row < args.rows;
        Eight u = here ? load_eight(args.x + row * args.x_row + column) : filled(0.f);
        float squares = 0.f;
        UNROLL for (u32 i = 0; i < 8; i++) squares += u.x[i] * u.x[i];
        float sum = team_sum(squares, sums, warp, lane); // all come here, normed or not
        float r = normed ? square_root_reciprocal(args.factor * sum + args.epsilon) : 1.f;
        if (!here) continue;
        Number* residual = args.residual + (u64)row * WIDTH + column;
        Eight h = load_eight_changing(residual);
        UNROLL for (u32 i = 0; i < 8; i++) h.x[i] += u.x[i] * r * w.x[i];
        store_eight(residual, h);
    }
}

KERNEL(norm_backward, NormBackwardArguments, NORM_THREADS)
{
    float* sums = (float*)shared_memory();
    u32 warp = thread_index() / 32, lane = thread_index() % 32, column = (thread_index() % (32 * TEAM)) * 8;
    bool mine = column < WIDTH;
    Eight w = mine && args.weight != nullptr ? load_eight_f32(args.weight + column) : filled(1.f), d_w = filled(0.f);
    for (u32 first = block_index() * TEAMS; first < args.rows; first += block_count() * TEAMS) {
        u32 row = first + warp / TEAM;
        bool here = mine && row < args.rows;
        u64 inner = (u64)(row % args.inner) * WIDTH + column, flat = (u64)row * WIDTH + column;
        Eight x = here ? load_eight(args.x + row / args.inner * args.x_row + inner) : filled(0.f), u = x;
        Eight d = here ? load_eight(args.d_y + flat) : filled(0.f), z = filled(0.f), y;
        if (GATE) z = here ? load_eight(args.z + row / args.inner * args.z_row + inner) : filled(0.f);
        float squares = 0.f, dots = 0.f; // of u with itself and with the gradient of u r
        UNROLL for (u32 i = 0; i < 8; i++) {
            if (GATE == 2) u.x[i] *= silu(z.x[i]);
            y.x[i] = d.x[i] * w.x[i]; // times the gate, the gradient of u r
            if (GATE == 1 || GATE == 3) y.x[i] *= opened(z.x[i]);
            squares += u.x[i] * u.x[i];
            dots += u.x[i] * y.x[i];
        }
        float r = square_root_reciprocal(args.factor * team_sum(squares, sums, warp, lane) + args.epsilon);
        float pull = args.factor * r * r * r * team_sum(dots, sums, warp, lane);
        Eight d_x, d_z;
        UNROLL for (u32 i = 0; i < 8; i++) {
            float d_u = r * y.x[i] - pull * u.x[i], gate = GATE ? opened(z.x[i]) : 1.f, slope = GATE ? opened_slope(z.x[i]) : 0.f;
            d_x.x[i] = GATE == 2 ? d_u * gate : d_u;
            d_z.x[i] = GATE == 2 ? d_u * x.x[i] * slope : d.x[i] * u.x[i] * r * w.x[i] * slope;
            d_w.x[i] += GATE == 1 || GATE == 3 ? d.x[i] * u.x[i] * r * gate : d.x[i] * u.x[i] * r;
        }
        if (here) {
            store_eight(args.d_x + flat, d_x);
            if (GATE) store_eight(args.d_z + flat, d_z);
        }
    }
    if (mine && args.d_weight != nullptr)
        store_eight_f32(args.d_weight + ((u64)block_index() * TEAMS + warp / TEAM) * WIDTH + column, d_w);
}
