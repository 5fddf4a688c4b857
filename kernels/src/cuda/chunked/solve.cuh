// The triangular solve of a chunk, in fp32, a column a thread.

const u32 PREPARE_A_ROW = C + 4; // of A in shared memory, floats

// Column `column` of (I + A)⁻¹ diag(β), from row FROM on, which is not below the column's first nonzero.
template <u32 FROM> DEVICE void solve_column(Number* inverse, const float* minus_a, u32 column, float beta)
{
    float x[C - FROM];
    UNROLL for (u32 i = FROM; i < C; i++) {
        float even = i == column ? 1.f : 0.f, odd = 0.f;
        UNROLL for (u32 j = FROM; j < i; j += 4) {
            float4 a = *(const float4*)(minus_a + i * PREPARE_A_ROW + j);
            even = fmaf(a.x, x[j - FROM], even);
            if (j + 1 < i) odd = fmaf(a.y, x[j + 1 - FROM], odd);
            if (j + 2 < i) even = fmaf(a.z, x[j + 2 - FROM], even);
            if (j + 3 < i) odd = fmaf(a.w, x[j + 3 - FROM], odd);
        }
        x[i - FROM] = even + odd;
        store_number(inverse + i * C + column, x[i - FROM] * beta);
    }
}
