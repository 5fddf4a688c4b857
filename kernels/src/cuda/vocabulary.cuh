// The words that every kernel here is written in: indices, bf16, loads, warp
// exchanges, barriers, asynchronous copies and tensor-core products.
//
// Kernels use nothing of CUDA beyond these words, so that the same source also
// runs on the host: `emulator.hpp` defines the same words for g++.
#pragma once
#pragma nv_diag_suppress 177 // a kernel need not use every word

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE static __device__ __forceinline__
// Of what few launches come by: it must not take registers from what all do.
#define APART static __device__ __noinline__
// A kernel takes one struct by value; `THREADS` is its exact block size, and registers are shared out so that BLOCKS of
// them fit on a multiprocessor.
#define KERNEL_BESIDE(NAME, ARGS, THREADS, BLOCKS) \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(const __grid_constant__ ARGS args)
#define KERNEL(NAME, ARGS, THREADS) KERNEL_BESIDE(NAME, ARGS, THREADS, 1)
#define UNROLL _Pragma("unroll")
#define UNROLL_TWICE _Pragma("unroll 2")
#define UNROLL_BY_FOUR _Pragma("unroll 4")

// ---- where am I ----
DEVICE u32 thread_index() { return threadIdx.x; }
DEVICE u32 block_index() { return blockIdx.x; }
DEVICE u32 block_index_y() { return blockIdx.y; }
DEVICE u32 block_count() { return gridDim.x; }
DEVICE u8* shared_memory()
{
    extern __shared__ __align__(1024) u8 dynamic_shared_memory[];
    return dynamic_shared_memory;
}

// Cycles of this multiprocessor.
DEVICE u64 cycles() { return (u64)clock64(); }

// ---- numbers ----
DEVICE float as_float(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 as_bits(float value) { return __float_as_uint(value); }
// exp2 of the special-function unit: relative error 2^-22, 0 for very negative arguments.
DEVICE float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// 1 / x of the special-function unit: relative error 2^-23, 0 for infinity.
DEVICE float reciprocal_fast(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// Two floats to two bf16, round to nearest even; `low` goes to the low half.
DEVICE u32 bf16_pair(float low, float high)
{
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
DEVICE float square_root_reciprocal(float x) { return rsqrtf(x); }
// Of the special-function unit: absolute error 2^-20.9 between −π and π.
DEVICE float cosine_fast(float x)
{
    float y;
    asm("cos.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float sine_fast(float x)
{
    float y;
    asm("sin.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// ---- global memory ----
// Constant for the whole launch: the read-only path.
DEVICE float load_constant(const float* p) { return __ldg(p); }
DEVICE float4 load_constant(const float4* p) { return __ldg(p); }
DEVICE float2 load_constant(const float2* p) { return __ldg(p); }
DEVICE uint4 load_constant(const uint4* p) { return __ldg(p); }
DEVICE uint2 load_constant(const uint2* p) { return __ldg(p); }
DEVICE u32 load_constant(const u32* p) { return __ldg(p); }
DEVICE u16 load_constant(const u16* p) { return __ldg(p); }
// Written by other blocks of the same launch: past the L1, which is not coherent.
DEVICE float load_fresh(const float* p) { return __ldcg(p); }
DEVICE float2 load_fresh(const float2* p) { return __ldcg(p); }
DEVICE float4 load_fresh(const float4* p) { return __ldcg(p); }
// Written by another block of the same launch, perhaps not yet: a word that tells by itself
// whether it is there (see `tagged` in common.cuh). Never served from the L1.
DEVICE u32 look(const u32* p)
{
    u32 x;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(p) : "memory");
    return x;
}
DEVICE uint2 look(const uint2* p)
{
    uint2 x;
    asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];" : "=r"(x.x), "=r"(x.y) : "l"(p) : "memory");
    return x;
}
DEVICE uint4 look(const uint4* p)
{
    uint4 x;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(p) : "memory");
    return x;
}
DEVICE void show(u32* p, u32 word) { asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(word) : "memory"); }
// Between two looks at what is not there yet. `looks` counts them; after seconds an error is
// better than a launch without end.
DEVICE void look_again(u32& looks)
{
    if (++looks == 1u << 22) __trap();
}
// Brings the line that holds `p` into the last-level cache.
DEVICE void prefetch(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
DEVICE void atomic_max(u64* p, u64 value) { atomicMax(p, value); }

// ---- a warp: all 32 lanes take part ----
DEVICE float shuffle_xor(float value, u32 mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE float shuffle_from(float value, u32 lane) { return __shfl_sync(0xffffffffu, value, lane); }
DEVICE bool warp_any(bool x) { return __any_sync(0xffffffffu, x) != 0; }
DEVICE void warp_sync() { __syncwarp(); }

// ---- a block ----
DEVICE void block_sync() { __syncthreads(); }
// A barrier among `threads` threads of the block, one of 16 by `id`; 0 is `block_sync`.
DEVICE void part_sync(u32 id, u32 threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- the grid: counters in global memory ----
// Everything the block wrote before (and a block barrier ordered before) is visible
// to whoever sees the count.
DEVICE void counter_arrive(u32* counter)
{
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}
// Counts one up and returns what was there before.
DEVICE u32 counter_take(u32* counter)
{
    u32 before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    return before;
}
// Waits until the counter has reached `target`, counting modulo 2^32.
DEVICE void counter_wait(const u32* counter, u32 target)
{
    for (u32 polls = 0;; polls++) {
        u32 seen;
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
        if ((int)(seen - target) >= 0) return;
        if (polls == 1u << 23) __trap(); // seconds: an error is better than a launch without end
    }
}

// ---- shared-memory barriers (mbarrier) ----
typedef u64 Gate;
DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
DEVICE void gate_init(Gate* gate, u32 arrivals)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(gate)), "r"(arrivals) : "memory");
}
// After the last `gate_init`, before the `block_sync` that publishes the gates.
DEVICE void gates_ready()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
DEVICE void gate_arrive(Gate* gate)
{
    asm volatile("{\n\t.reg .b64 token;\n\tmbarrier.arrive.shared.b64 token, [%0];\n\t}" ::"r"(shared_address(gate)) : "memory");
}
// Waits until the phase of this parity has completed.
DEVICE void gate_wait(Gate* gate, u32 parity)
{
    u32 done;
    do {
#if __CUDA_ARCH__ >= 900
        asm volatile("{\n\t.reg .pred p;\n\t"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(done) : "r"(shared_address(gate)), "r"(parity) : "memory");
#else
        asm volatile("{\n\t.reg .pred p;\n\t"
                     "mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(done) : "r"(shared_address(gate)), "r"(parity) : "memory");
#endif
    } while (!done);
}

// ---- asynchronous copies, global to shared ----
#if __CUDA_ARCH__ >= 900
#define FILL_ARRIVALS 1
#else
#define FILL_ARRIVALS 32
#endif
// Of the last-level cache such data leave first. What blocks tell each other then stays there from launch to launch:
// a look at a word that has to come from memory waits behind all that is streamed.
DEVICE u64 read_once()
{
    u64 policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
// One warp copies `bytes` (a multiple of 16) that are read once a launch, and the gate completes when they have
// landed. The gate must have been initialised with FILL_ARRIVALS.
DEVICE void fill(void* shared, const void* global, u32 bytes, Gate* gate, u32 lane)
{
#if __CUDA_ARCH__ >= 900
    // The bulk copy engine: one instruction, no registers, completion by bytes.
    if (lane == 0) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                     ::"r"(shared_address(gate)), "r"(bytes) : "memory");
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;"
                     ::"r"(shared_address(shared)), "l"(global), "r"(bytes), "r"(shared_address(gate)), "l"(read_once()) : "memory");
    }
    warp_sync();
#else
    for (u32 at = lane * 16; at < bytes; at += 512)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                     ::"r"(shared_address((u8*)shared + at)), "l"((const u8*)global + at) : "memory");
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(gate)) : "memory");
#endif
}

// Each thread copies 16 bytes; `copies_wait<n>` leaves at most n committed groups in flight.
DEVICE void copy16(void* shared, const void* global)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
// The same, or 16 zero bytes where there is nothing to copy.
DEVICE void copy16_or_zero(void* shared, const void* global, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 ::"r"(shared_address(shared)), "l"(global), "r"(there ? 16 : 0) : "memory");
}
// One of the gate's arrivals, when all copies that this thread has started have landed.
DEVICE void copies_arrive(Gate* gate)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(gate)) : "memory");
}
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT> DEVICE void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

// ---- tensor cores ----
// d[16,8] += a[16,16] · b[16,8], bf16 in, fp32 accumulated. With g = lane / 4 and
// t = lane % 4: a0 = A[g][2t..], a1 = A[g+8][2t..], a2 = A[g][2t+8..], a3 = A[g+8][2t+8..];
// b0 = B[2t..][g], b1 = B[2t+8..][g]; d = D[g][2t], D[g][2t+1], D[g+8][2t], D[g+8][2t+1].
DEVICE void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// Four 8×8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
// Lane (g, t) receives elements [g][2t], [g][2t+1] of each.
DEVICE void load_matrices(u32 (&r)[4], const void* row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)));
}
// The same, each matrix transposed.
DEVICE void load_matrices_transposed(u32 (&r)[4], const void* row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)));
}
// An 8×8 matrix of 16-bit elements across the warp, transposed: lane (g, t) gives [g][2t], [g][2t+1] and receives
// [2t][g], [2t+1][g].
DEVICE u32 transpose_matrix(u32 pair)
{
    u32 transposed;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(pair));
    return transposed;
}
