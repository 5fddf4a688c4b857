// What the chunked kernels multiply: pieces of 16 × 16 numbers as operands of the tensor cores, bf16 or, if WIDE, fp32.
//
// A tensor core takes bf16. An fp32 number x goes there as two, high = bf16(x) and low = bf16(x − high), which keep 16 of
// its bits, and a product as three: high · high + low · high + high · low. What it leaves out is 2⁻¹⁶ of it.

struct Operand {
    u32 of[PARTS][4];
};

// Numbers i and i + 1 of a lane's eight, as floats.
DEVICE float2 numbers(const Operand& a, u32 i)
{
    float2 x = make_float2(bf16_low(a.of[0][i]), bf16_high(a.of[0][i]));
#if WIDE
    x.x += bf16_low(a.of[1][i]), x.y += bf16_high(a.of[1][i]);
#endif
    return x;
}
DEVICE void set_numbers(Operand& a, u32 i, float x, float y)
{
    a.of[0][i] = bf16_pair(x, y);
#if WIDE
    a.of[1][i] = bf16_pair(x - bf16_low(a.of[0][i]), y - bf16_high(a.of[0][i]));
#endif
}

// As the functions of `tiles.cuh`.
template <u32 COLUMNS> DEVICE void load_b(Operand& b, const u8* tile, u32 n, u32 k, u32 lane)
{
    UNROLL for (u32 part = 0; part < PARTS; part++) load_b<COLUMNS>(b.of[part], tile + part * COLUMNS * 2, n, k, lane);
}
template <u32 COLUMNS> DEVICE void load_b_transposed(Operand& b, const u8* tile, u32 k, u32 n, u32 lane)
{
    UNROLL for (u32 part = 0; part < PARTS; part++) load_b_transposed<COLUMNS>(b.of[part], tile + part * COLUMNS * 2, k, n, lane);
}
template <u32 COLUMNS> DEVICE void load_a(Operand& a, const u8* tile, u32 m, u32 k, u32 lane)
{
    UNROLL for (u32 part = 0; part < PARTS; part++) load_a<COLUMNS>(a.of[part], tile + part * COLUMNS * 2, m, k, lane);
}
template <u32 COLUMNS> DEVICE void load_a_transposed(Operand& a, const u8* tile, u32 k, u32 m, u32 lane)
{
    UNROLL for (u32 part = 0; part < PARTS; part++) load_a_transposed<COLUMNS>(a.of[part], tile + part * COLUMNS * 2, k, m, lane);
}
DEVICE void product(float (&low)[4], float (&high)[4], const Operand& a, const Operand& b)
{
    product(low, high, a.of[0], b.of[0]);
#if WIDE
    product(low, high, a.of[1], b.of[0]);
    product(low, high, a.of[0], b.of[1]);
#endif
}
DEVICE void as_operand(Operand& a, const float (&low)[4], const float (&high)[4])
{
    set_numbers(a, 0, low[0], low[1]);
    set_numbers(a, 1, low[2], low[3]);
    set_numbers(a, 2, high[0], high[1]);
    set_numbers(a, 3, high[2], high[3]);
}

// Two neighbouring numbers of a tile, of memory.
template <u32 COLUMNS> DEVICE float2 load_pair(const u8* tile, u32 row, u32 column)
{
    const u8* at = element<COLUMNS>(tile, row, column);
    u32 high = *(const u32*)at;
    float2 x = make_float2(bf16_low(high), bf16_high(high));
#if WIDE
    u32 low = *(const u32*)(at + COLUMNS * 2);
    x.x += bf16_low(low), x.y += bf16_high(low);
#endif
    return x;
}
// Eight of them.
template <u32 COLUMNS> DEVICE Eight load_eight_of(const u8* tile, u32 row, u32 column)
{
    const u8* at = element<COLUMNS>(tile, row, column);
    Eight e = eight_of(*(const uint4*)at);
#if WIDE
    Eight low = eight_of(*(const uint4*)(at + COLUMNS * 2));
    UNROLL for (u32 i = 0; i < 8; i++) e.x[i] += low.x[i];
#endif
    return e;
}
// Four.
template <u32 COLUMNS> DEVICE float4 load_four_of(const u8* tile, u32 row, u32 column)
{
    const u8* at = element<COLUMNS>(tile, row, column);
    uint2 high = *(const uint2*)at;
    float4 x = make_float4(bf16_low(high.x), bf16_high(high.x), bf16_low(high.y), bf16_high(high.y));
#if WIDE
    uint2 low = *(const uint2*)(at + COLUMNS * 2);
    x.x += bf16_low(low.x), x.y += bf16_high(low.x), x.z += bf16_low(low.y), x.w += bf16_high(low.y);
#endif
    return x;
}
// One.
template <u32 COLUMNS> DEVICE float load_one_of(const u8* tile, u32 row, u32 column)
{
    const u8* at = element<COLUMNS>(tile, row, column);
    float x = bf16_low(*(const u16*)at);
#if WIDE
    x += bf16_low(*(const u16*)(at + COLUMNS * 2));
#endif
    return x;
}
template <u32 COLUMNS> DEVICE void store_one(u8* tile, u32 row, u32 column, float x)
{
    u8* at = element<COLUMNS>(tile, row, column);
    u16 high = (u16)bf16_pair(x, 0.f);
    *(u16*)at = high;
#if WIDE
    *(u16*)(at + COLUMNS * 2) = (u16)bf16_pair(x - bf16_low(high), 0.f);
#endif
}
template <u32 COLUMNS> DEVICE void store_pair(u8* tile, u32 row, u32 column, float x, float y)
{
    u8* at = element<COLUMNS>(tile, row, column);
    u32 high = bf16_pair(x, y);
    *(u32*)at = high;
#if WIDE
    *(u32*)(at + COLUMNS * 2) = bf16_pair(x - bf16_low(high), y - bf16_high(high));
#endif
}
DEVICE void store_pair(Number* to, float x, float y)
{
#if WIDE
    *(float2*)to = make_float2(x, y);
#else
    *(u32*)to = bf16_pair(x, y);
#endif
}
DEVICE void store_number(Number* to, float x)
{
#if WIDE
    *to = x;
#else
    *to = (u16)bf16_pair(x, 0.f);
#endif
}

// Which pieces [16 k, 16 n] of a product's right operand are not all zeros, k being piece `step` and n piece `n`.
enum Pieces { ALL_PIECES, UPPER_PIECES, LOWER_PIECES };
template <int PIECES> DEVICE constexpr bool wanted(u32 step, u32 n)
{
    return PIECES == ALL_PIECES || (PIECES == UPPER_PIECES ? n >= step : n <= step);
}

// d[16, 16 N] += a[16, 16 STEPS] · b, of a tile whose rows are n, or k if TRANSPOSED; `a(step)` gives 16 columns of a.
// Pieces of b are loaded some products ahead.
template <bool TRANSPOSED, int PIECES, u32 COLUMNS, u32 STEPS, u32 N2, class Left>
DEVICE void products_of(float (&d)[N2][4], const u8* tile, u32 lane, Left a)
{
    const u32 N = N2 / 2, TOTAL = STEPS * N, AHEAD = PARTS == 1 ? 4 : 0;
    Operand b[AHEAD + 1];
    UNROLL for (u32 i = 0; i < TOTAL + AHEAD; i++) {
        if (i < TOTAL && wanted<PIECES>(i / N, i % N)) {
            if (TRANSPOSED)
                load_b_transposed<COLUMNS>(b[i % (AHEAD + 1)], tile, i / N * 16, i % N * 16, lane);
            else
                load_b<COLUMNS>(b[i % (AHEAD + 1)], tile, i % N * 16, i / N * 16, lane);
        }
        if (i >= AHEAD && wanted<PIECES>((i - AHEAD) / N, (i - AHEAD) % N)) {
            u32 step = (i - AHEAD) / N, n = (i - AHEAD) % N;
            product(d[2 * n], d[2 * n + 1], a(step), b[(i - AHEAD) % (AHEAD + 1)]);
        }
    }
}

template <bool TRANSPOSED, int PIECES, u32 COLUMNS, u32 STEPS, u32 N2>
DEVICE void products(float (&d)[N2][4], const Operand (&a)[STEPS], const u8* tile, u32 lane)
{
    products_of<TRANSPOSED, PIECES, COLUMNS, STEPS>(d, tile, lane, [&](u32 step) -> const Operand& { return a[step]; });
}

// Starts copying a tile as `copy_tile` does; fp32 numbers are taken apart on the way, so they come through registers.
template <u32 ROWS, u32 COLUMNS, u32 THREADS, bool LOWER = false>
DEVICE void copy_numbers(u8* tile, const Number* from, u64 row_elements, u32 there, u32 thread)
{
#if WIDE
    const u32 PIECES = COLUMNS / 8, ASKED = 4; // pieces that a thread asks for at once
    for (u32 first = thread; first < ROWS * PIECES; first += ASKED * THREADS) {
        Eight e[ASKED];
        UNROLL for (u32 i = 0; i < ASKED; i++) {
            u32 row = (first + i * THREADS) / PIECES, column = (first + i * THREADS) % PIECES * 8;
            bool wanted = row < ROWS && row < there && !(LOWER && column > (row | 15));
            e[i] = wanted ? load_eight(from + row * row_elements + column) : filled(0.f);
        }
        UNROLL for (u32 i = 0; i < ASKED; i++) {
            u32 row = (first + i * THREADS) / PIECES, column = (first + i * THREADS) % PIECES * 8;
            if (row < ROWS)
                UNROLL for (u32 x = 0; x < 8; x += 2) store_pair<COLUMNS>(tile, row, column + x, e[i].x[x], e[i].x[x + 1]);
        }
    }
#else
    copy_tile<ROWS, COLUMNS, THREADS, LOWER>(tile, from, row_elements, there, thread);
#endif
}
// The same of four floats that stay as they are.
DEVICE void copy_floats(void* to, const float* from)
{
#if WIDE
    *(float4*)to = load_constant((const float4*)from);
#else
    copy16(to, from);
#endif
}
// One of the gate's arrivals, when this thread's copies are there.
DEVICE void copied(Gate* gate)
{
#if WIDE
    gate_arrive(gate);
#else
    copies_arrive(gate);
#endif
}

// A sequence's place: which head of which batch, and how its rows lie.
struct Sequence {
    u32 batch, head, key_head;
};
DEVICE Sequence sequence_of(u32 piece, u32 heads, u32 key_heads)
{
    Sequence s = {piece / heads, piece % heads, piece % heads / (heads / key_heads)};
    return s;
}
// An operand whose columns are positions, each times its factor.
DEVICE void scale_columns(Operand& scaled, const Operand& a, const float* factors, float by, u32 pair)
{
    UNROLL for (u32 half = 0; half < 2; half++) {
        float2 factor = *(const float2*)(factors + half * 8 + 2 * pair);
        UNROLL for (u32 i = 2 * half; i < 2 * half + 2; i++) {
            float2 x = numbers(a, i);
            set_numbers(scaled, i, by * factor.x * x.x, by * factor.y * x.y);
        }
    }
}

// −a.
DEVICE void negate(Operand& a)
{
    UNROLL for (u32 part = 0; part < PARTS; part++) UNROLL for (u32 i = 0; i < 4; i++) a.of[part][i] ^= 0x80008000u;
}

// Writes a transposed piece, 16 value columns by 16 positions held as an operand, to its rows; `to` is the row of the
// piece's first position at its first column.
DEVICE void store_transposed(Number* to, u64 row_elements, const Operand& a, u32 there, u32 lane)
{
    UNROLL for (u32 half = 0; half < 2; half++) { // eight positions
        u32 row = half * 8 + lane / 4;
        UNROLL for (u32 i = 0; i < 2; i++) { // eight value columns
            Number* at = to + row * row_elements + i * 8 + lane % 4 * 2;
            u32 x = transpose_matrix(a.of[0][2 * half + i]);
#if WIDE
            u32 low = transpose_matrix(a.of[1][2 * half + i]);
            if (row < there) store_pair(at, bf16_low(x) + bf16_low(low), bf16_high(x) + bf16_high(low));
#else
            if (row < there) *(u32*)at = x;
#endif
        }
    }
}

// Writes a piece of a transposed state, 16 value columns by 16 of K, to its rows [V, KW].
DEVICE void store_state(Number* to, const float (&low)[4], const float (&high)[4], u32 lane)
{
    Number* at = to + lane / 4 * KW + lane % 4 * 2;
    UNROLL for (u32 i = 0; i < 2; i++) {
        store_pair(at + i * 8 * KW, low[2 * i], low[2 * i + 1]);
        store_pair(at + i * 8 * KW + 8, high[2 * i], high[2 * i + 1]);
    }
}
DEVICE void store_state(Number* to, const Operand& a, u32 lane)
{
    float2 x = numbers(a, 0), y = numbers(a, 1), z = numbers(a, 2), w = numbers(a, 3);
    store_state(to, {x.x, x.y, y.x, y.y}, {z.x, z.y, w.x, w.y}, lane);
}

// β is held away from zero by what changes no result, so that Δ/β, which the gradient of β needs, exists.
DEVICE float beta_used(float beta) { return fabsf(beta) < 1e-12f ? 1e-12f : beta; }
