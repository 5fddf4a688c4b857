// The words of `hopper.cuh` for g++: boxes land row by row in any order, what is stored leaves at the wait for it, and
// products are made at the wait for them, of what their operands are then.
#pragma once
#include <functional>

struct TensorMap {
    u64 address, extents[4], strides[3], rows, unused[7];
};
static_assert(sizeof(TensorMap) == 128, "as long as the driver's");
#define DEVICE_MEMBER inline

DEVICE void gate_expect(Gate* gate, u32 bytes)
{
    auto* g = (emulator::GateState*)gate;
    g->pieces = (int16_t)(g->pieces + (int)(bytes / 16));
    gate_arrive(gate);
}

namespace emulator {
// Pieces of 16 bytes of a box: `each(where in shared memory, where in the tensor or null)`.
template <class Each> void pieces_of_box(u8* shared, const TensorMap* map, u32 column, u32 row, u32 head, u32 batch, Each each)
{
    if ((uintptr_t)shared % 1024 != 0) fprintf(stderr, "a box is not aligned to 1024\n"), abort();
    for (u32 r = 0; r < map->rows; r++)
        for (u32 p = 0; p < 8; p++) {
            bool there = column + p * 8 < map->extents[0] && row + r < map->extents[1] && head < map->extents[2] && batch < map->extents[3];
            u64 at = map->address + (column + p * 8) * 2 + (row + r) * map->strides[0] + head * map->strides[1] + batch * map->strides[2];
            each(shared + r * 128 + (p ^ r % 8) * 16, there ? (u8*)at : nullptr);
        }
}
struct Deferred { // by each thread
    std::vector<std::pair<void*, const void*>> stores;
    std::vector<std::vector<std::function<void()>>> products{1}; // groups, the last of them open
};
inline std::map<Fiber*, Deferred> deferred;
} // namespace emulator

DEVICE void fill_box(void* shared, const TensorMap* map, u32 column, u32 row, u32 head, u32 batch, Gate* gate)
{
    alignas(16) static const u8 zeros[16] = {};
    emulator::pieces_of_box((u8*)shared, map, column, row, head, batch, [&](u8* to, u8* from) {
        emulator::copies.push_back({to, from != nullptr ? from : zeros, 16, (emulator::GateState*)gate, emulator::chance() % 64 == 0});
    });
}
DEVICE void store_box(const TensorMap* map, const void* shared, u32 column, u32 row, u32 head, u32 batch)
{
    auto& stores = emulator::deferred[emulator::current].stores;
    emulator::pieces_of_box((u8*)shared, map, column, row, head, batch, [&](u8* from, u8* to) {
        if (to != nullptr) stores.push_back({to, from});
    });
}
DEVICE void show_to_engine() {}
DEVICE void stores_commit() {}
DEVICE void stores_read()
{
    auto& stores = emulator::deferred[emulator::current].stores;
    for (auto& store : stores) memcpy(store.first, store.second, 16);
    stores.clear();
}
DEVICE void stores_done() { stores_read(); }

DEVICE void part_arrive(u32 id, u32 threads)
{
    auto& barrier = emulator::current->block->barriers[id];
    if (++barrier.arrived == threads) {
        barrier.arrived = 0;
        barrier.generation++;
    }
}
template <u32 N> static inline void registers_give() {}
template <u32 N> static inline void registers_take() {}
template <u32 N> static inline void settle(float (&)[N][4]) {}
template <u32 N> static inline void settle(u32 (&)[N][4]) {}
DEVICE void hold_back(float) {}

DEVICE void products_begin() {}
DEVICE void products_commit() { emulator::deferred[emulator::current].products.emplace_back(); }
template <u32 LEFT> static inline void products_wait()
{
    emulator::Fiber* me = emulator::current; // a product may let others go on first
    auto& groups = emulator::deferred[me].products;
    while (groups.size() > LEFT + 1) {
        for (auto& product : groups.front()) product();
        groups.erase(groups.begin());
    }
}

DEVICE u64 operand(const void* shared, u32 leading, u32 stride)
{
    u64 at = (u64)((const u8*)shared - shared_memory());
    if (at % 1024 != 0) fprintf(stderr, "an operand is not aligned to 1024\n"), abort();
    return at >> 4 | (u64)(leading >> 4) << 16 | (u64)(stride >> 4) << 32;
}
// Element k of column n; SUMMED: rows of the tile are those that are summed over.
template <bool SUMMED> static inline float element_of(u64 operand, u32 n, u32 k)
{
    u64 start = (operand & 0x3fff) << 4, leading = (operand >> 16 & 0x3fff) << 4, stride = (operand >> 32 & 0x3fff) << 4;
    u64 at = SUMMED ? start + n / 64 * leading + k / 8 * stride + k % 8 * 128 + n % 64 * 2 : start + n / 8 * stride + n % 8 * 128 + k * 2;
    u16 bits = *(const u16*)(shared_memory() + (at ^ (at >> 7 & 7) << 4));
    return as_float((u32)bits << 16);
}
template <u32 N, bool SUMMED> static inline void wide_product_now(float (&d)[N / 8][4], const float (&a)[2][16], u64 b)
{
    u32 pair = emulator::current->thread % 4;
    for (u32 n = 0; n < N / 8; n++)
        for (u32 i = 0; i < 2; i++)
            for (u32 k = 0; k < 16; k++) {
                float x = element_of<SUMMED>(b, n * 8 + 2 * pair + i, k);
                for (u32 half = 0; half < 2; half++) d[n][2 * half + i] += a[half][k] * x;
            }
}
template <u32 N> static inline void wide_product(float (&d)[N / 8][4], u64 a, u64 b, bool accumulate)
{
    emulator::deferred[emulator::current].products.back().push_back([&d, a, b, accumulate] {
        if (!accumulate) memset(d, 0, sizeof d);
        u32 row = emulator::current->thread / 32 % 4 * 16 + emulator::current->thread % 32 / 4;
        float mine[2][16];
        for (u32 half = 0; half < 2; half++)
            for (u32 k = 0; k < 16; k++) mine[half][k] = element_of<false>(a, row + 8 * half, k);
        wide_product_now<N, false>(d, mine, b);
    });
}
template <u32 N> static inline void wide_product(float (&d)[N / 8][4], const u32 (&a)[4], u64 b)
{
    emulator::deferred[emulator::current].products.back().push_back([&d, &a, b] {
        auto* all = emulator::exchange(a, 4);
        u32 lane = emulator::current->thread % 32;
        float mine[2][16];
        for (u32 half = 0; half < 2; half++)
            for (u32 k = 0; k < 16; k++) mine[half][k] = bf16_of(all[lane / 4 * 4 + k % 8 / 2][half + k / 8 * 2], k % 2);
        wide_product_now<N, true>(d, mine, b);
    });
}
