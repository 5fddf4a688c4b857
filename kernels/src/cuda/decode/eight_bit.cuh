// Matrices of 8-bit weights with a factor for each row. A unit holds four rows × chunks · 256 columns, then the four factors:
// as many bytes as two rows of bf16, so that as much is on its way. Codes become bf16 in registers, which hold every one of
// them exactly; products are then those of bf16, and the factor multiplies their sum.
//
// A word holds four codes of neighbouring columns, two in each half, put so that either pair takes few instructions to
// become two bf16 (`storage.rs` joins them): `first_pair` the columns 0 and 1, `second_pair` the columns 2 and 3.

#if WEIGHTS != BF16
#if WEIGHTS == INT8
// A code is a sign and seven bits of size: of the first of a half bits 15 and 6 … 0, of the second bits 7 and 14 … 8.
// ±(128 + size) is a bf16, from which ±128 is taken again.
DEVICE u32 first_pair(u32 word) { return fma_pairs((word & 0x80008000u) | 0x43004300u, 0xbf80bf80u, (word & 0x807f807fu) | 0x43004300u); }
DEVICE u32 second_pair(u32 word) { return first_pair(swap_bytes(word)); }
#else
// A code is an e4m3: of the first of a half bits 15 and 10 … 4, which is a bf16 2^-120 of its size, whether it is subnormal
// there or not; of the second bits 11, 14 … 12 and 3 … 0.
DEVICE u32 enlarged(u32 pair) { return fma_pairs(pair, 0x7b807b80u, 0x80008000u); }
DEVICE u32 first_pair(u32 word) { return enlarged(word & 0x87f087f0u); }
DEVICE u32 second_pair(u32 word) { return enlarged(((word << 4) & 0x80f080f0u) | ((word >> 4) & 0x07000700u)); }
#endif

const u32 CHUNK_BYTES = 512; // of two rows: of lane i 16 bytes, 8 codes of either
const u32 ROW_LANES = 8;     // that have the sum of a row in the end
DEVICE u32 row_of(u32 lane) { return lane / 8 % 2 * 2 + lane / 16; }
DEVICE u32 unit_bytes(u32 chunks) { return ROWS / 2 * chunks * CHUNK_BYTES + FACTOR_BYTES; }
DEVICE float factor_of(const u8* unit, u32 chunks, u32 row) { return ((const float*)(unit + ROWS / 2 * chunks * CHUNK_BYTES))[row]; }

// Four rows of W times x over chunks · 256 columns, without their factors: lanes get the sum of row `row_of(lane)`. The tensor
// core is used as by `two_rows`, for each two of the rows.
template <u32 CHUNKS> // 0: as many as `chunks` says
DEVICE float rows_times(const u8* unit, const Columns& x, u32 chunks, u32 lane)
{
    const u32 count = CHUNKS != 0 ? CHUNKS : chunks;
    const uint4* codes = (const uint4*)unit + lane;
    float d[2][4][4];
    UNROLL for (u32 k = 0; k < 2; k++) UNROLL for (u32 j = 0; j < 4; j++) UNROLL for (u32 e = 0; e < 4; e++) d[k][j][e] = 0.f;
    UNROLL for (u32 c = 0; c < (CHUNKS != 0 ? CHUNKS : UNIT_CHUNKS); c++) {
        if (CHUNKS == 0 && c >= chunks) break;
        uint4 low = x.low[c * 32];
        UNROLL for (u32 k = 0; k < 2; k++) {
            uint4 w = codes[(k * count + c) * 32];
            u32 a[4] = {first_pair(w.x), second_pair(w.x), first_pair(w.y), second_pair(w.y)};
            u32 b[4] = {first_pair(w.z), second_pair(w.z), first_pair(w.w), second_pair(w.w)};
            mma(d[k][0], a[0], b[0], a[1], b[1], x.high[c].x, x.high[c].y);
            mma(d[k][1], a[2], b[2], a[3], b[3], x.high[c].z, x.high[c].w);
            mma(d[k][2], a[0], b[0], a[1], b[1], low.x, low.y);
            mma(d[k][3], a[2], b[2], a[3], b[3], low.z, low.w);
        }
    }
    u32 g = lane / 4, t = lane % 4, odd = g & 1;
    bool diagonal = t == g / 2, upper = lane >= 16, second = lane / 8 % 2 != 0;
    float two[2];
    UNROLL for (u32 k = 0; k < 2; k++) {
        float s0 = odd ? d[k][0][1] + d[k][1][1] + d[k][2][1] + d[k][3][1] : d[k][0][0] + d[k][1][0] + d[k][2][0] + d[k][3][0];
        float s1 = odd ? d[k][0][3] + d[k][1][3] + d[k][2][3] + d[k][3][3] : d[k][0][2] + d[k][1][2] + d[k][2][2] + d[k][3][2];
        s0 = diagonal ? s0 : 0.f, s1 = diagonal ? s1 : 0.f;
        two[k] = (upper ? s1 : s0) + shuffle_xor(upper ? s0 : s1, 16);
    }
    float sum = (second ? two[1] : two[0]) + shuffle_xor(second ? two[0] : two[1], 8);
    UNROLL for (u32 mask = 4; mask > 0; mask >>= 1) sum += shuffle_xor(sum, mask);
    return sum;
}

// The two words of eight neighbouring columns of the embedding of a token, and the factor of its row.
struct Embedding {
    const u32* words;
    float factor;
};
DEVICE Embedding embedding(const Phase& p, u32 token, u32 column)
{
    const u8* unit = embedding_unit(p, token, column, unit_bytes(p.chunks));
    u32 row = token % ROWS, chunk = row / 2 * p.chunks + column / 256, lane = column % 256 / 8;
    Embedding e = {(const u32*)(unit + chunk * CHUNK_BYTES + lane * 16 + row % 2 * 8), load_constant((const float*)(unit + ROWS / 2 * p.chunks * CHUNK_BYTES) + row)};
    return e;
}
DEVICE void take_embedded(Eight& e, const Phase& p, u32 token, u32 column)
{
    Embedding from = embedding(p, token, column);
    uint2 words = load_constant((const uint2*)from.words);
    take(e, make_uint4(first_pair(words.x), second_pair(words.x), first_pair(words.y), second_pair(words.y)));
    UNROLL for (u32 i = 0; i < 8; i++) e.at[i] *= from.factor;
}
DEVICE float embedded(const Phase& p, u32 token, u32 column)
{
    Embedding from = embedding(p, token, column);
    u32 word = load_constant(from.words + column % 8 / 4), pair = column % 4 < 2 ? first_pair(word) : second_pair(word);
    return (column % 2 ? bf16_high(pair) : bf16_low(pair)) * from.factor;
}
#endif
