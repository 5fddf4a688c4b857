// A GPU to test on: the words of `vocabulary.cuh` for g++, on one host thread.
//
// Every CUDA thread is a fiber. Fibers run one at a time, in an order shuffled anew each
// round, and change only where the source waits: at barriers, warp exchanges, gates and
// counters. A thread therefore runs as far ahead of its neighbours as the source allows,
// so that a missing barrier shows as a wrong result; asynchronous copies land in any
// order, some only when nobody can go on without them; shared memory and fresh allocations hold NaNs; and everything
// runs under the address and undefined-behaviour sanitizers. A launch in which nobody can
// go on is reported with what each thread waits for.
//
// The rest is a server: allocations, transfers and launches come as binary commands on
// standard input (see `emulator.rs`).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <memory>
#include <random>
#include <sanitizer/common_interface_defs.h>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE [[maybe_unused]] static inline
#define APART DEVICE
#define UNROLL
#define UNROLL_TWICE
#define UNROLL_BY_FOUR
#define FILL_ARRIVALS 1

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { u32 x, y; };
struct alignas(16) uint4 { u32 x, y, z, w; };
DEVICE float2 make_float2(float x, float y) { return {x, y}; }
DEVICE float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
DEVICE uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
DEVICE uint2 make_uint2(u32 x, u32 y) { return {x, y}; }

namespace emulator {

const size_t STACK_BYTES = 256 << 10;

struct Barrier { // among `members` threads
    u32 arrived = 0, generation = 0;
};
struct Warp {
    Barrier exchange;
    u32 words[2][32][8]; // what the lanes show each other, double-buffered by exchange
};
struct Block {
    u32 index_x, index_y, threads;
    std::unique_ptr<u8, void (*)(void*)> shared{nullptr, free};
    Barrier barriers[16];
    std::vector<Warp> warps;
};
struct Fiber {
    ucontext_t context;
    u8* stack;
    void* fake_stack = nullptr;
    Block* block;
    u32 thread;
    bool done = false;
    bool (*ready)(void*) = nullptr;
    void* ready_argument = nullptr;
    const char* waits_for = "";
};
struct Copy { // asynchronous, not landed yet
    void* to;
    const void* from;
    u32 bytes;
    struct GateState* gate;
    bool stubborn; // lands only when nobody can go on without it
};

struct GateState { // what a Gate holds; 8 bytes like the GPU's
    u32 phase;
    u8 expected, pending;
    int16_t pieces; // of 16 bytes, promised and not landed
};
static_assert(sizeof(GateState) == 8, "a gate is 8 bytes");

inline Fiber* current;
inline ucontext_t scheduler;
inline void* scheduler_fake_stack;
inline const void* scheduler_stack;
inline size_t scheduler_stack_size;
inline std::vector<Copy> copies;
inline std::mt19937_64 chance;
inline u32 grid_x, grid_y;
inline bool idle; // nobody went on in the last round: now even the patient must

inline void to_scheduler(bool last)
{
    Fiber* me = current;
    __sanitizer_start_switch_fiber(last ? nullptr : &me->fake_stack, scheduler_stack, scheduler_stack_size);
    swapcontext(&me->context, &scheduler);
    __sanitizer_finish_switch_fiber(me->fake_stack, &scheduler_stack, &scheduler_stack_size);
}

template <class Ready> void wait_until(const char* what, Ready ready)
{
    if (ready()) return;
    Fiber* me = current;
    me->ready = [](void* r) { return (*(Ready*)r)(); };
    me->ready_argument = &ready;
    me->waits_for = what;
    to_scheduler(false);
    me->ready = nullptr;
}

inline void meet(Barrier& barrier, u32 members, const char* what)
{
    u32 generation = barrier.generation;
    if (++barrier.arrived == members) {
        barrier.arrived = 0;
        barrier.generation++;
    }
    wait_until(what, [&] { return barrier.generation != generation; });
}

inline void gate_progress(GateState& gate)
{
    if (gate.pending == 0 && gate.pieces == 0) {
        gate.phase ^= 1;
        gate.pending = gate.expected;
    }
}

inline void land(size_t i)
{
    Copy copy = copies[i];
    copies[i] = copies.back(); // they land in any order
    copies.pop_back();
    memcpy(copy.to, copy.from, copy.bytes);
    if (copy.gate != nullptr) {
        copy.gate->pieces = (int16_t)(copy.gate->pieces - (int)(copy.bytes / 16));
        gate_progress(*copy.gate);
    }
}

// Each lane shows up to 8 words; returns what all lanes showed.
inline u32 (*exchange(const u32* words, u32 count))[8]
{
    Warp& warp = current->block->warps[current->thread / 32];
    u32 parity = warp.exchange.generation & 1;
    memcpy(warp.words[parity][current->thread % 32], words, count * 4);
    meet(warp.exchange, 32, "the other lanes of its warp");
    return warp.words[parity];
}

struct Kernel {
    u32 argument_bytes, threads;
    void (*call)(const void* arguments);
};
inline std::map<std::string, Kernel>& kernels()
{
    static std::map<std::string, Kernel> all;
    return all;
}
struct Register {
    Register(const char* name, Kernel kernel) { kernels()[name] = kernel; }
};

struct Launch {
    Kernel kernel;
    std::vector<u8> arguments;
};
inline Launch* launch_now;

inline void fiber_main()
{
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
    launch_now->kernel.call(launch_now->arguments.data());
    current->done = true;
    to_scheduler(true);
}

inline void run_blocks(std::vector<std::unique_ptr<Block>>& blocks)
{
    std::vector<std::unique_ptr<Fiber>> fibers;
    for (auto& block : blocks)
        for (u32 t = 0; t < block->threads; t++) {
            auto fiber = std::make_unique<Fiber>();
            fiber->block = block.get();
            fiber->thread = t;
            fiber->stack = (u8*)mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            getcontext(&fiber->context);
            fiber->context.uc_stack.ss_sp = fiber->stack;
            fiber->context.uc_stack.ss_size = STACK_BYTES;
            fiber->context.uc_link = nullptr;
            makecontext(&fiber->context, fiber_main, 0);
            fibers.push_back(std::move(fiber));
        }
    std::vector<Fiber*> order;
    for (auto& fiber : fibers) order.push_back(fiber.get());
    while (!order.empty()) {
        bool progress = false;
        std::shuffle(order.begin(), order.end(), chance);
        for (Fiber* fiber : order) {
            if (fiber->ready != nullptr && !fiber->ready(fiber->ready_argument)) continue;
            progress = true;
            current = fiber;
            __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber->stack, STACK_BYTES);
            swapcontext(&scheduler, &fiber->context);
            __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
        }
        order.erase(std::remove_if(order.begin(), order.end(), [](Fiber* f) { return f->done; }), order.end());
        for (size_t i = copies.size(); i-- > 0;)
            if ((!progress && idle) || (!copies[i].stubborn && chance() % 2 == 0)) {
                land(i);
                progress = true;
            }
        bool was_idle = idle;
        idle = !progress;
        if (!progress && was_idle) {
            std::map<std::string, int> waits;
            for (Fiber* f : order) waits[std::string(f->waits_for)]++;
            for (auto& w : waits) fprintf(stderr, "%d threads wait for %s\n", w.second, w.first.c_str());
            fprintf(stderr, "nobody can go on\n");
            abort();
        }
    }
    for (auto& fiber : fibers) munmap(fiber->stack, STACK_BYTES);
}

// `together`: all blocks at once (they may wait for each other), else one after another.
inline void launch(Launch& l, u32 x, u32 y, size_t shared_bytes, bool together, u64 seed)
{
    launch_now = &l;
    chance.seed(seed);
    grid_x = x, grid_y = y;
    std::vector<std::unique_ptr<Block>> blocks;
    for (u32 i = 0; i < x * y; i++) {
        auto block = std::make_unique<Block>();
        block->index_x = i % x, block->index_y = i / x, block->threads = l.kernel.threads;
        void* shared = nullptr;
        if (posix_memalign(&shared, 1024, shared_bytes) != 0) abort();
        block->shared.reset((u8*)shared);
        memset(shared, 0xff, shared_bytes);
        block->warps.resize((l.kernel.threads + 31) / 32);
        blocks.push_back(std::move(block));
        if (!together) {
            run_blocks(blocks);
            blocks.clear();
        }
    }
    if (together) run_blocks(blocks);
}

} // namespace emulator

#define KERNEL(NAME, ARGS, THREADS)                                                                  \
    static void NAME(const ARGS& args);                                                              \
    static emulator::Register NAME##_registered(#NAME, {sizeof(ARGS), THREADS, [](const void* a) {   \
        NAME(*(const ARGS*)a);                                                                       \
    }});                                                                                             \
    static void NAME(const ARGS& args)

#define KERNEL_BESIDE(NAME, ARGS, THREADS, BLOCKS) KERNEL(NAME, ARGS, THREADS)

DEVICE u32 thread_index() { return emulator::current->thread; }
DEVICE u32 block_index() { return emulator::current->block->index_x; }
DEVICE u32 block_index_y() { return emulator::current->block->index_y; }
DEVICE u32 block_count() { return emulator::grid_x; }
DEVICE u8* shared_memory() { return emulator::current->block->shared.get(); }

DEVICE u64 cycles() { return 0; }

DEVICE float as_float(u32 bits) { float f; memcpy(&f, &bits, 4); return f; }
DEVICE u32 as_bits(float value) { u32 bits; memcpy(&bits, &value, 4); return bits; }
DEVICE float exp2_fast(float x) { return std::exp2(x); }
DEVICE float reciprocal_fast(float x) { return 1.f / x; }
DEVICE u32 bf16_bits(float x)
{
    u32 bits = as_bits(x);
    if (x != x) return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
DEVICE u32 bf16_pair(float low, float high) { return bf16_bits(low) | bf16_bits(high) << 16; }
DEVICE float square_root_reciprocal(float x) { return 1.f / std::sqrt(x); }
DEVICE float cosine_fast(float x) { return std::cos(x); }
DEVICE float sine_fast(float x) { return std::sin(x); }

template <class T> static inline T load_constant(const T* p) { return *p; }
template <class T> static inline T load_fresh(const T* p) { return *p; }
// What was shown to other blocks, counted: whoever looks in vain looks again after the next.
namespace emulator { inline u64 shown; }
template <class T> static inline T look(const T* p) { return *p; }
DEVICE void show(u32* p, u32 word)
{
    *p = word;
    emulator::shown++;
}
DEVICE void look_again(u32&)
{
    u64 seen = emulator::shown;
    // most of the time it is too early: looking seldom saves hours, and makes the threads differ more
    emulator::wait_until("words of other blocks", [=] { return emulator::shown != seen && (emulator::idle || emulator::chance() % 32 == 0); });
}
DEVICE void prefetch(const void*) {}
DEVICE void atomic_max(u64* p, u64 value) { *p = std::max(*p, value); }

DEVICE float shuffle_xor(float value, u32 mask)
{
    u32 word = as_bits(value), lane = emulator::current->thread % 32;
    return as_float(emulator::exchange(&word, 1)[lane ^ mask][0]);
}
DEVICE float shuffle_from(float value, u32 lane)
{
    u32 word = as_bits(value);
    return as_float(emulator::exchange(&word, 1)[lane][0]);
}
DEVICE bool warp_any(bool x)
{
    u32 word = x, any = 0;
    auto* all = emulator::exchange(&word, 1);
    for (u32 lane = 0; lane < 32; lane++) any |= all[lane][0];
    return any != 0;
}
DEVICE void warp_sync()
{
    u32 none = 0;
    emulator::exchange(&none, 0);
}
DEVICE void block_sync() { emulator::meet(emulator::current->block->barriers[0], emulator::current->block->threads, "block_sync"); }
DEVICE void part_sync(u32 id, u32 threads) { emulator::meet(emulator::current->block->barriers[id], threads, "part_sync"); }
DEVICE void counter_arrive(u32* counter) { ++*counter; }
DEVICE u32 counter_take(u32* counter) { return (*counter)++; }
DEVICE void counter_wait(const u32* counter, u32 target)
{
    emulator::wait_until("other blocks", [=] { return (int)(*counter - target) >= 0; });
}

typedef u64 Gate;
DEVICE void gate_init(Gate* gate, u32 arrivals)
{
    auto* g = (emulator::GateState*)gate;
    *g = {0, (u8)arrivals, (u8)arrivals, 0};
}
DEVICE void gates_ready() {}
DEVICE void gate_arrive(Gate* gate)
{
    auto* g = (emulator::GateState*)gate;
    if (g->pending == 0) fprintf(stderr, "more arrivals at a gate than it expects\n"), abort();
    g->pending--;
    emulator::gate_progress(*g);
}
DEVICE void gate_wait(Gate* gate, u32 parity)
{
    auto* g = (emulator::GateState*)gate;
    emulator::wait_until("a gate", [=] { return g->phase != parity; });
}
DEVICE void fill(void* shared, const void* global, u32 bytes, Gate* gate, u32 lane)
{
    if (bytes % 16 != 0 || (uintptr_t)shared % 16 != 0 || (uintptr_t)global % 16 != 0)
        fprintf(stderr, "fill of %u bytes is not aligned to 16\n", bytes), abort();
    if (lane == 0) {
        auto* g = (emulator::GateState*)gate;
        g->pieces = (int16_t)(g->pieces + (int)(bytes / 16));
        emulator::copies.push_back({shared, global, bytes, g, emulator::chance() % 8 == 0});
        gate_arrive(gate);
    }
    warp_sync();
}
// Groups of `copy16` land in order; `copies_wait` lands what it must at once.
DEVICE std::map<emulator::Fiber*, std::vector<std::vector<emulator::Copy>>>& groups_of_copies()
{
    static std::map<emulator::Fiber*, std::vector<std::vector<emulator::Copy>>> groups;
    return groups;
}
DEVICE void copy16(void* shared, const void* global)
{
    auto& mine = groups_of_copies()[emulator::current];
    if (mine.empty()) mine.emplace_back();
    mine.back().push_back({shared, global, 16, nullptr, false});
}
// The same, or 16 zero bytes where there is nothing to copy.
DEVICE void copy16_or_zero(void* shared, const void* global, bool there)
{
    alignas(16) static const u8 zeros[16] = {};
    copy16(shared, there ? global : zeros);
}
// The thread's copies join those that land in any order; the gate waits for them as for the thread's arrival.
DEVICE void copies_arrive(Gate* gate)
{
    auto* g = (emulator::GateState*)gate;
    for (auto& group : groups_of_copies()[emulator::current])
        for (auto copy : group) {
            if ((uintptr_t)copy.to % 16 != 0 || (uintptr_t)copy.from % 16 != 0)
                fprintf(stderr, "copy16 is not aligned\n"), abort();
            g->pieces++;
            copy.gate = g;
            copy.stubborn = emulator::chance() % 8 == 0;
            emulator::copies.push_back(copy);
        }
    groups_of_copies().erase(emulator::current);
    gate_arrive(gate);
}
DEVICE void copies_commit()
{
    auto& mine = groups_of_copies()[emulator::current];
    if (mine.empty()) mine.emplace_back();
    mine.emplace_back(); // the next group; all but the last are committed
}
template <int LEFT> static inline void copies_wait()
{
    auto& mine = groups_of_copies()[emulator::current];
    while (mine.size() > LEFT + 1) {
        for (auto& copy : mine.front()) {
            if ((uintptr_t)copy.to % 16 != 0 || (uintptr_t)copy.from % 16 != 0)
                fprintf(stderr, "copy16 is not aligned\n"), abort();
            memcpy(copy.to, copy.from, 16);
        }
        mine.erase(mine.begin());
    }
    if (LEFT == 0) groups_of_copies().erase(emulator::current);
}

DEVICE float bf16_of(u32 word, u32 half) { return as_float(half ? word & 0xffff0000u : word << 16); }
DEVICE void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1)
{
    u32 mine[6] = {a0, a1, a2, a3, b0, b1};
    auto* all = emulator::exchange(mine, 6);
    u32 lane = emulator::current->thread % 32, g = lane / 4, t = lane % 4;
    for (u32 i = 0; i < 4; i++) {
        u32 row = g + (i / 2) * 8, column = 2 * t + i % 2;
        for (u32 k = 0; k < 16; k++) {
            u32 from = k % 8 / 2; // the lane of a group of four that holds this k
            u32 a = all[row % 8 * 4 + from][row / 8 + k / 8 * 2], b = all[column * 4 + from][4 + k / 8];
            d[i] += bf16_of(a, k % 2) * bf16_of(b, k % 2);
        }
    }
}
DEVICE void load_matrices_any(u32 (&r)[4], const void* row, bool transposed)
{
    if ((uintptr_t)row % 16 != 0) fprintf(stderr, "row of a matrix is not aligned to 16\n"), abort();
    u16 loaded[8];
    memcpy(loaded, row, 16);
    u32 mine[4];
    memcpy(mine, loaded, 16);
    auto* all = emulator::exchange(mine, 4);
    u32 lane = emulator::current->thread % 32, g = lane / 4, t = lane % 4;
    for (u32 m = 0; m < 4; m++) {
        u16 pair[2];
        for (u32 e = 0; e < 2; e++) {
            u32 i = transposed ? 2 * t + e : g, j = transposed ? g : 2 * t + e;
            pair[e] = (u16)(all[m * 8 + i][j / 2] >> (j % 2 * 16));
        }
        r[m] = pair[0] | (u32)pair[1] << 16;
    }
}
DEVICE u32 transpose_matrix(u32 pair)
{
    auto* all = emulator::exchange(&pair, 1);
    u32 lane = emulator::current->thread % 32, g = lane / 4, t = lane % 4;
    auto element = [&](u32 row, u32 column) { return all[row * 4 + column / 2][0] >> (column % 2 * 16) & 0xffffu; };
    return element(2 * t, g) | element(2 * t + 1, g) << 16;
}
DEVICE void load_matrices(u32 (&r)[4], const void* row) { load_matrices_any(r, row, false); }
DEVICE void load_matrices_transposed(u32 (&r)[4], const void* row) { load_matrices_any(r, row, true); }

// ---------------------------------------------------------------- the server

namespace emulator {
inline void read_all(void* to, size_t bytes)
{
    if (bytes != 0 && fread(to, 1, bytes, stdin) != bytes) exit(0); // the other side is gone
}
template <class T> T read_one()
{
    T value;
    read_all(&value, sizeof value);
    return value;
}
inline void answer(const void* from, size_t bytes)
{
    fwrite(from, 1, bytes, stdout);
    fflush(stdout);
}
inline int serve()
{
    for (;;) {
        u64 zero = 0;
        switch (read_one<u8>()) {
        case 'A': { // allocate: bytes → address, filled with NaNs
            u64 bytes = read_one<u64>();
            void* p = nullptr; // its end is checked to the byte
            if (posix_memalign(&p, 256, bytes) != 0) return 1;
            memset(p, 0xff, bytes);
            u64 address = (u64)p;
            answer(&address, 8);
            break;
        }
        case 'M': { // map: a file that other emulators map too, address, bytes
            std::string path(read_one<u32>(), 0);
            read_all(path.data(), path.size());
            u64 address = read_one<u64>(), bytes = read_one<u64>();
            int file = open(path.c_str(), O_RDWR);
            void* p = mmap((void*)address, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, file, 0);
            if (p != (void*)address) {
                fprintf(stderr, "cannot map %s\n", path.c_str());
                return 1;
            }
            answer(&zero, 8);
            break;
        }
        case 'F': free((void*)read_one<u64>()); answer(&zero, 8); break;
        case 'U': { // upload: address, bytes, data
            u64 address = read_one<u64>(), bytes = read_one<u64>();
            read_all((void*)address, bytes);
            answer(&zero, 8);
            break;
        }
        case 'D': { // download: address, bytes → data
            u64 address = read_one<u64>(), bytes = read_one<u64>();
            answer((void*)address, bytes);
            break;
        }
        case 'L': { // launch: name, grid, shared bytes, together, seed, arguments
            std::string name(read_one<u32>(), 0);
            read_all(name.data(), name.size());
            u32 x = read_one<u32>(), y = read_one<u32>(), threads = read_one<u32>(), shared = read_one<u32>(), together = read_one<u32>();
            u64 seed = read_one<u64>();
            std::vector<u8> arguments(read_one<u32>());
            read_all(arguments.data(), arguments.size());
            auto kernel = kernels().find(name);
            if (kernel == kernels().end() || kernel->second.argument_bytes != arguments.size() || kernel->second.threads != threads) {
                fprintf(stderr, "no kernel %s with %zu bytes of arguments and %u threads\n", name.c_str(), arguments.size(), threads);
                return 1;
            }
            Launch l{kernel->second, arguments};
            launch(l, x, y, shared, together != 0, seed);
            answer(&zero, 8);
            break;
        }
        default: return 1;
        }
    }
}
} // namespace emulator

int main() { return emulator::serve(); }
