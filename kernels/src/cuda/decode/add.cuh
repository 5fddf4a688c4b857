// What branches leave onto the residual stream where it is not their own products that add: h += norm(x) + norm(z), each
// RMSNorm with a weight of its own or, where there is none, the vector as it is; z may be missing. Norms behind attention
// (arXiv 2501.00656) and heads beside each other (arXiv 2411.13676).

#if GENES & FORMS
DEVICE void add_branches(Shared& shared, const Phase& p, const DecodeArgs& args, const Step& step, u32 thread)
{
    static_assert(2 * WARPS <= 32, "two sums of each warp");
    u32 d = args.d_model, lane = thread % 32, warp = thread / 32, tag = step.tag;
    float squares[2] = {0.f, 0.f};
    for (u32 c = thread * 4; c < d; c += CONSUMERS * 4) { // the host sees to multiples of 4
        Lanes<4> x, z;
        UNROLL for (u32 e = 0; e < 4; e++) z.at[e] = 0.f;
        for (u32 looks = 0;;) {
            bool here = look_lanes(x, p.x, c, tag);
            if (p.z != 0) here = look_lanes(z, p.z, c, tag) && here;
            if (here) break;
            look_again(looks);
        }
        squares[0] += dot(x, x), squares[1] += dot(z, z);
    }
    warp_sync();
    warp_sums(squares);
    if (lane == 0) shared.sums[warp] = squares[0], shared.sums[WARPS + warp] = squares[1];
    consumers_sync();
    squares[0] = squares[1] = 0.f;
    UNROLL for (u32 w = 0; w < WARPS; w++) squares[0] += shared.sums[w], squares[1] += shared.sums[WARPS + w];
    float by_x = p.norm == 0 ? 1.f : square_root_reciprocal(squares[0] / (float)d + NORM_EPS);
    float by_z = p.k_norm == 0 ? 1.f : square_root_reciprocal(squares[1] / (float)d + NORM_EPS);
    Rows rows = own_rows(d);
    for (u32 row = rows.begin + thread; row < rows.end; row += CONSUMERS) {
        float x = await(p.x, row, tag) * by_x, z = p.z == 0 ? 0.f : await(p.z, row, tag) * by_z;
        if (p.norm != 0) x *= load_constant((const float*)p.norm + row);
        if (p.k_norm != 0) z *= load_constant((const float*)p.k_norm + row);
        float sum = shared.own[row - rows.begin] + x + z;
        shared.own[row - rows.begin] = sum;
        show((u32*)p.out + row, tagged(sum, tag));
    }
}
#endif // GENES
