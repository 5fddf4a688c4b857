// Tiles of bf16 in shared memory, and the fragments that tensor cores read of them.
//
// A tile is row-major; 16 bytes between its rows keep the eight rows that one matrix load touches in different banks.

const u32 C = 64; // positions of a chunk
#if defined(WIDE) && WIDE
const u32 PARTS = 2; // of a row: what bf16 has of its numbers, then what is left, in bf16 too
#else
const u32 PARTS = 1;
#endif

DEVICE constexpr u32 row_bytes(u32 columns) { return PARTS * columns * 2 + 16; }
DEVICE constexpr u32 tile_bytes(u32 rows, u32 columns) { return rows * row_bytes(columns); }

template <u32 COLUMNS> DEVICE const u8* element(const u8* tile, u32 row, u32 column)
{
    return tile + row * row_bytes(COLUMNS) + column * 2;
}
template <u32 COLUMNS> DEVICE u8* element(u8* tile, u32 row, u32 column) { return tile + row * row_bytes(COLUMNS) + column * 2; }

// B[16 k, 16 n] of a tile whose rows are n: two operands of `mma`, for n and n + 8.
template <u32 COLUMNS> DEVICE void load_b(u32 (&b)[4], const u8* tile, u32 n, u32 k, u32 lane)
{
    load_matrices(b, element<COLUMNS>(tile, n + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 8));
}
// The same of a tile whose rows are k.
template <u32 COLUMNS> DEVICE void load_b_transposed(u32 (&b)[4], const u8* tile, u32 k, u32 n, u32 lane)
{
    load_matrices_transposed(b, element<COLUMNS>(tile, k + lane % 16, n + lane / 16 * 8));
}
// A[16 m, 16 k] of a tile whose rows are m.
template <u32 COLUMNS> DEVICE void load_a(u32 (&a)[4], const u8* tile, u32 m, u32 k, u32 lane)
{
    load_matrices(a, element<COLUMNS>(tile, m + lane % 16, k + lane / 16 * 8));
}
// The same of a tile whose rows are k.
template <u32 COLUMNS> DEVICE void load_a_transposed(u32 (&a)[4], const u8* tile, u32 k, u32 m, u32 lane)
{
    load_matrices_transposed(a, element<COLUMNS>(tile, k + lane % 8 + lane / 16 * 8, m + lane / 8 % 2 * 8));
}

// d[16, 16] += a · b, d in two pieces of eight columns.
DEVICE void product(float (&low)[4], float (&high)[4], const u32 (&a)[4], const u32 (&b)[4])
{
    mma(low, a[0], a[1], a[2], a[3], b[0], b[1]);
    mma(high, a[0], a[1], a[2], a[3], b[2], b[3]);
}
// A sum of products, two pieces of eight columns, as the left operand of the next product.
DEVICE void as_operand(u32 (&a)[4], const float (&low)[4], const float (&high)[4])
{
    a[0] = bf16_pair(low[0], low[1]);
    a[1] = bf16_pair(low[2], low[3]);
    a[2] = bf16_pair(high[0], high[1]);
    a[3] = bf16_pair(high[2], high[3]);
}
template <u32 N> DEVICE void set_zero(float (&d)[N][4])
{
    UNROLL for (u32 n = 0; n < N; n++) UNROLL for (u32 i = 0; i < 4; i++) d[n][i] = 0.f;
}

// Starts copying ROWS rows of COLUMNS columns, `row_elements` apart in global memory, into a tile, by THREADS threads of
// which this is number `thread`. Rows from `there` on become zeros. LOWER leaves out what lies in no 16×16 piece on or
// below the diagonal.
template <u32 ROWS, u32 COLUMNS, u32 THREADS, bool LOWER = false>
DEVICE void copy_tile(u8* tile, const u16* from, u64 row_elements, u32 there, u32 thread)
{
    const u32 PIECES = COLUMNS / 8;
    if (THREADS % PIECES == 0) { // a thread stays in its column
        const u32 STEP = THREADS / PIECES;
        u32 row = thread / PIECES, column = thread % PIECES * 8;
        const u16* p = from + row * row_elements + column;
        u8* to = tile + row * row_bytes(COLUMNS) + column * 2;
        UNROLL for (u32 i = 0; i < (ROWS + STEP - 1) / STEP; i++, row += STEP, p += STEP * row_elements, to += STEP * row_bytes(COLUMNS))
            if ((ROWS % STEP == 0 || row < ROWS) && (!LOWER || column <= (row | 15)))
                copy16_or_zero(to, row < there ? p : from, row < there);
    } else {
        for (u32 piece = thread; piece < ROWS * PIECES; piece += THREADS) {
            u32 row = piece / PIECES, column = piece % PIECES * 8;
            copy16_or_zero(tile + row * row_bytes(COLUMNS) + column * 2, row < there ? from + row * row_elements + column : from,
                           row < there);
        }
    }
}

DEVICE u32 smaller(u32 a, u32 b) { return a < b ? a : b; }
DEVICE constexpr u32 larger(u32 a, u32 b) { return a > b ? a : b; }
