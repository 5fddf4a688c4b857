// The words of compute capability 9.0: boxes of tensors by the copy engine, products of four warps at once.
//
// A tile that these words share has rows of 128 bytes, in which the copy engine swaps pieces of 16 bytes: piece p of row
// r stands at p ^ r % 8. Its first byte is a multiple of 1024.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// A tensor of up to four axes, as the driver describes it for the copy engine.
struct alignas(64) TensorMap {
    u64 words[16];
};
#define DEVICE_MEMBER __device__ __forceinline__

// One arrival; the gate opens once so many bytes have landed as well.
DEVICE void gate_expect(Gate* gate, u32 bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(gate)), "r"(bytes) : "memory");
}
// One thread has a box copied, whose first element is (column, row, head, batch). What lies outside of the tensor is zero,
// and counts as bytes too.
DEVICE void fill_box(void* shared, const TensorMap* map, u32 column, u32 row, u32 head, u32 batch, Gate* gate)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];"
                 ::"r"(shared_address(shared)), "l"(map), "r"(column), "r"(row), "r"(head), "r"(batch), "r"(shared_address(gate)) : "memory");
}
// The way back; what lies outside of the tensor is not written. Shared memory that threads wrote wants `show_to_engine`
// in each of them and a barrier before.
DEVICE void store_box(const TensorMap* map, const void* shared, u32 column, u32 row, u32 head, u32 batch)
{
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];"
                 ::"l"(map), "r"(shared_address(shared)), "r"(column), "r"(row), "r"(head), "r"(batch) : "memory");
}
DEVICE void show_to_engine() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
DEVICE void stores_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// This thread's stores have read what they store; they have ended.
DEVICE void stores_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
DEVICE void stores_done() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

// Of `part_sync`, the arrival alone.
DEVICE void part_arrive(u32 id, u32 threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
// Registers of a thread from here on, by all warps of a group of four.
template <u32 N> DEVICE void registers_give() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
template <u32 N> DEVICE void registers_take() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }

// ---- products of a group of four warps, which go on by themselves ----
// Before the first of several: registers written so far are there for them.
DEVICE void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// At most the LEFT committed last still go on.
template <u32 LEFT> DEVICE void products_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory"); }
// The compiler takes results of products for there from the start: none of these is read before here, nor written after.
template <u32 N> DEVICE void settle(float (&d)[N][4])
{
    UNROLL for (u32 n = 0; n < N; n++) UNROLL for (u32 i = 0; i < 4; i++) asm volatile("" : "+f"(d[n][i])::"memory");
}
template <u32 N> DEVICE void settle(u32 (&d)[N][4])
{
    UNROLL for (u32 n = 0; n < N; n++) UNROLL for (u32 i = 0; i < 4; i++) asm volatile("" : "+r"(d[n][i])::"memory");
}
// What `x`, a finite number, is made from is computed before what follows. The assembler would else wait for products
// first and compute then.
DEVICE void hold_back(float x)
{
    if (warp_any(x > 3e38f)) asm volatile("nanosleep.u32 0;" ::: "memory");
}

// A matrix in a tile: eight of its rows are `stride` bytes from the next eight. Where rows are those that are summed over,
// 64 columns are `leading` bytes from the next 64. Sixteen bytes further is one more.
DEVICE u64 operand(const void* shared, u32 leading, u32 stride)
{
    return (u64)((shared_address(shared) & 0x3ffffu) >> 4) | (u64)(leading >> 4) << 16 | (u64)(stride >> 4) << 32 | 1ull << 62;
}
// Registers of a result, in eights, and their names in the assembler's text.
#define EIGHT_OF(d, n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3]), "+f"(d[n + 1][0]), "+f"(d[n + 1][1]), "+f"(d[n + 1][2]), "+f"(d[n + 1][3])
#define THIRTY_TWO_OF(d, n) EIGHT_OF(d, n), EIGHT_OF(d, n + 2), EIGHT_OF(d, n + 4), EIGHT_OF(d, n + 6)
#define UP_TO_32 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define UP_TO_48 UP_TO_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define UP_TO_64 UP_TO_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

// d[64, N] of a group += a[64, 16] · b[16, N], or = where not `accumulate`; bf16 in, fp32 summed. Warp w holds rows 16 w to
// 16 w + 15, eight columns a piece, as `mma` does. a and b are in shared memory, the rows of b being its columns.
template <u32 N> DEVICE void wide_product(float (&d)[N / 8][4], u64 a, u64 b, bool accumulate)
{
    if constexpr (N == 128)
        asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %66, 0;\n\twgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" UP_TO_64
                     "}, %64, %65, p, 1, 1, 0, 0;\n\t}"
                     : THIRTY_TWO_OF(d, 0), THIRTY_TWO_OF(d, 8) : "l"(a), "l"(b), "r"((u32)accumulate));
}
// The same with a in registers, as `mma` has it, and the rows of b as they are.
template <u32 N> DEVICE void wide_product(float (&d)[N / 8][4], const u32 (&a)[4], u64 b)
{
    if constexpr (N == 64)
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" UP_TO_32 "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"
                     : THIRTY_TWO_OF(d, 0) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    if constexpr (N == 96)
        asm volatile("wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" UP_TO_48 "}, {%48,%49,%50,%51}, %52, 1, 1, 1, 1;"
                     : THIRTY_TWO_OF(d, 0), EIGHT_OF(d, 8), EIGHT_OF(d, 10) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
    if constexpr (N == 128)
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" UP_TO_64 "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
                     : THIRTY_TWO_OF(d, 0), THIRTY_TWO_OF(d, 8) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#endif // __CUDA_ARCH_FEAT_SM90_ALL
