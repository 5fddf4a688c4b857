// How the rows of a matrix are read and multiplied, and the embedding, which lies as the head does.

// Eight neighbouring columns of the input.
struct Eight { float at[8]; };
DEVICE void take(Eight& e, uint4 a, uint4 b)
{
    e.at[0] = untagged(a.x), e.at[1] = untagged(a.y), e.at[2] = untagged(a.z), e.at[3] = untagged(a.w);
    e.at[4] = untagged(b.x), e.at[5] = untagged(b.y), e.at[6] = untagged(b.z), e.at[7] = untagged(b.w);
}
DEVICE void take(Eight& e, uint4 pairs)
{
    e.at[0] = bf16_low(pairs.x), e.at[1] = bf16_high(pairs.x), e.at[2] = bf16_low(pairs.y), e.at[3] = bf16_high(pairs.y);
    e.at[4] = bf16_low(pairs.z), e.at[5] = bf16_high(pairs.z), e.at[6] = bf16_low(pairs.w), e.at[7] = bf16_high(pairs.w);
}

// Where the unit of the embedding of a token begins that holds `column`, which becomes one of that unit: the embedding lies
// as the head does (see `program.rs`), in units of ROWS rows × chunks · 256 columns.
DEVICE const u8* embedding_unit(const Phase& p, u32 token, u32& column, u32 unit_bytes)
{
    u32 piece_columns = p.chunks * 256, unit = token / ROWS * p.units_per_group + column / piece_columns;
    column %= piece_columns;
    return (const u8*)p.x + (u64)unit * unit_bytes;
}
// A warp's part of the input: the columns that lane i multiplies, 8 of each chunk. A warp
// meets only one piece of the columns, as the pieces of a row divide WARPS. High parts stay
// in registers through the phase; for the low parts there is no room.
struct Columns {
    uint4 high[UNIT_CHUNKS];
    const uint4* low;
};

#if WEIGHTS == BF16
// Element `column` of the embedding of a token; both are even or follow each other by 8.
DEVICE const u16* embedding(const Phase& p, u32 token, u32 column)
{
    const u16* unit = (const u16*)embedding_unit(p, token, column, ROWS * p.chunks * 512);
    return unit + token % ROWS * p.chunks * 256 + column;
}
DEVICE float embedded(const Phase& p, u32 token, u32 column) { return bf16_low(load_constant(embedding(p, token, column))); }
DEVICE void take_embedded(Eight& e, const Phase& p, u32 token, u32 column) { take(e, load_constant((const uint4*)embedding(p, token, column))); }

const u32 ROW_LANES = 16; // that have the sum of a row in the end
DEVICE u32 row_of(u32 lane) { return lane / 16; }

// Two rows of W times x over chunks · 256 columns: the lower half of the warp gets the sum of
// the first row, the upper half that of the second.
//
// The tensor core is used sideways. Lane (g, t) holds 8 neighbouring columns of both
// rows; block g of 32 columns of the first row is row g of A, of the second row g + 8;
// the same columns of x are column g of B. The diagonals of the two halves of D are
// then the sums wanted: one product per 256 weights, no conversion to fp32 at all.
template <u32 CHUNKS> // 0: as many as `chunks` says
DEVICE float rows_times(const u8* unit, const Columns& x, u32 chunks, u32 lane)
{
    const uint4* row0 = (const uint4*)unit + lane;
    const uint4* row1 = row0 + (CHUNKS != 0 ? CHUNKS : chunks) * 32;
    float d0[4] = {0.f, 0.f, 0.f, 0.f}, d1[4] = {0.f, 0.f, 0.f, 0.f};
    float d2[4] = {0.f, 0.f, 0.f, 0.f}, d3[4] = {0.f, 0.f, 0.f, 0.f};
    UNROLL for (u32 c = 0; c < (CHUNKS != 0 ? CHUNKS : UNIT_CHUNKS); c++) {
        if (CHUNKS == 0 && c >= chunks) break;
        uint4 a = row0[c * 32], b = row1[c * 32], low = x.low[c * 32];
        mma(d0, a.x, b.x, a.y, b.y, x.high[c].x, x.high[c].y);
        mma(d1, a.z, b.z, a.w, b.w, x.high[c].z, x.high[c].w);
        mma(d2, a.x, b.x, a.y, b.y, low.x, low.y);
        mma(d3, a.z, b.z, a.w, b.w, low.z, low.w);
    }
    u32 g = lane / 4, t = lane % 4, odd = g & 1;
    bool diagonal = t == g / 2;
    float s0 = odd ? d0[1] + d1[1] + d2[1] + d3[1] : d0[0] + d1[0] + d2[0] + d3[0];
    float s1 = odd ? d0[3] + d1[3] + d2[3] + d3[3] : d0[2] + d1[2] + d2[2] + d3[2];
    // the halves of the warp exchange one of the two, then each sums its own
    s0 = diagonal ? s0 : 0.f, s1 = diagonal ? s1 : 0.f;
    bool upper = lane >= 16;
    float sum = upper ? s1 : s0, other = shuffle_xor(upper ? s0 : s1, 16);
    sum += other;
    UNROLL for (u32 mask = 8; mask > 0; mask >>= 1) sum += shuffle_xor(sum, mask);
    return sum;
}
#endif // WEIGHTS
