/* Memory by address: cuMemAlloc, cuMemAllocPitch, cuMemAllocManaged, cuMemFree.
 *
 * The driver takes device memory in blocks of 2 MiB and packs small allocations into blocks that it has, so what an
 * allocation costs is how many blocks its address range touches that no other allocation touches (measured on an
 * H100: the device's figure follows this count exactly, for allocation and for free). Only the first and the last
 * block of a range can be shared; those are counted in state->blocks. Managed memory isn't the device's, so it
 * shares with nobody, and is charged whole. */
#include "cuda/linear.h"
#include "outside.h"

/* state->allocations: address -> bytes, GPU and kind in one word; the context that it dies with. */
#define BYTES_MASK (((uint64_t)1 << 48) - 1)
#define GPU_SHIFT 48
#define MANAGED ((uint64_t)1 << 63)

static uint64_t word(uint64_t bytes, int gpu, bool managed)
{
    return bytes | (uint64_t)gpu << GPU_SHIFT | (managed ? MANAGED : 0);
}

static unsigned word_gpu(uint64_t word)
{
    return (unsigned)(word >> GPU_SHIFT) & (ACCOUNT_GPUS - 1);
}

/* A key for the map, which has none that is 0. */
static uint64_t first_block(uint64_t address)
{
    return (address >> ACCOUNT_GRANULE_SHIFT) + 1;
}

static uint64_t last_block(uint64_t address, uint64_t bytes)
{
    return first_block(address + bytes - 1);
}

/* Blocks are counted for each GPU apart: an address can be noted for one GPU while what another one had there is
 * gone but not yet forgotten. */
static uint64_t on_gpu(uint64_t block, unsigned gpu)
{
    return block | (uint64_t)gpu << GPU_SHIFT;
}

/* One more allocation in BLOCK: how many granules that costs, 1 or 0. There is room in the map. */
static uint64_t enter_block(struct state *state, uint64_t block)
{
    return map_put(&state->blocks, block)->a++ == 0;
}

static uint64_t leave_block(struct state *state, uint64_t block)
{
    struct map_entry *entry = map_find(&state->blocks, block);
    if (!entry || --entry->a)
        return 0;
    map_remove(&state->blocks, entry);
    return 1;
}

/* Blocks that lie between the first and the last one: all this allocation's own. */
static uint64_t inner_blocks(uint64_t first, uint64_t last)
{
    return last - first > 1 ? last - first - 1 : 0;
}

static uint64_t enter(struct state *state, unsigned gpu, uint64_t address, uint64_t bytes)
{
    uint64_t first = on_gpu(first_block(address), gpu), last = on_gpu(last_block(address, bytes), gpu);
    uint64_t cost = inner_blocks(first, last) + enter_block(state, first);
    return first == last ? cost : cost + enter_block(state, last);
}

static uint64_t leave(struct state *state, unsigned gpu, uint64_t address, uint64_t bytes)
{
    uint64_t first = on_gpu(first_block(address), gpu), last = on_gpu(last_block(address, bytes), gpu);
    uint64_t cost = inner_blocks(first, last) + leave_block(state, first);
    return first == last ? cost : cost + leave_block(state, last);
}

static void add_managed(struct state *state, unsigned gpu, int64_t count)
{
    _Atomic uint64_t *aside = &state->member.page->slot[state->member.slot].aside[gpu];
    uint64_t seen = atomic_load(aside);
    atomic_store(aside, aside_word(aside_contexts(seen), aside_managed(seen) + (uint64_t)count));
}

/* Takes an allocation out of the tables: how many granules that sets free. */
static uint64_t erase(struct state *state, struct map_entry *entry)
{
    struct map_entry allocation = *entry;
    uint64_t bytes = allocation.a & BYTES_MASK;
    map_remove(&state->allocations, entry);
    if (!(allocation.a & MANAGED))
        return leave(state, word_gpu(allocation.a), allocation.key, bytes);
    add_managed(state, word_gpu(allocation.a), -(int64_t)granules(bytes));
    return granules(bytes);
}

/* The bounds of all addresses that were ever in the table. The lower one is kept as its complement, so that zeroes are
 * an empty range. Pools have their memory elsewhere: for what they free, the table needn't be looked at. */
static void widen(struct state *state, uint64_t address)
{
    if (~address > atomic_load_explicit(&state->lowest_complement, memory_order_relaxed))
        atomic_store_explicit(&state->lowest_complement, ~address, memory_order_relaxed);
    if (address > atomic_load_explicit(&state->highest, memory_order_relaxed))
        atomic_store_explicit(&state->highest, address, memory_order_relaxed);
}

/* Whether ADDRESS may be in the table. Who got it from another thread sees what that one wrote before. */
static bool may_be_known(uint64_t address)
{
    const struct state *state = state_peek();
    return state && address <= atomic_load_explicit(&state->highest, memory_order_relaxed) &&
           address >= ~atomic_load_explicit(&state->lowest_complement, memory_order_relaxed);
}

/* Puts ALLOCATION into the tables: what it costs in granules, or UINT64_MAX when the process is out of memory. */
static uint64_t record(struct state *state, const struct map_entry *allocation)
{
    uint64_t bytes = allocation->a & BYTES_MASK;
    if (!map_make_room(&state->allocations, 1) || !map_make_room(&state->blocks, 2))
        return UINT64_MAX;
    struct map_entry *stale = map_find(&state->allocations, allocation->key); /* freed in a way that nobody saw */
    if (stale) {
        unsigned gpu = word_gpu(stale->a);
        account_release(&state->member, gpu, erase(state, stale));
    }
    *map_put(&state->allocations, allocation->key) = *allocation;
    widen(state, allocation->key);
    if (!(allocation->a & MANAGED))
        return enter(state, word_gpu(allocation->a), allocation->key, bytes);
    add_managed(state, word_gpu(allocation->a), (int64_t)granules(bytes));
    return granules(bytes);
}

/* After the driver's answer to an allocation: keeps what it gave, or takes the charge back. */
static CUresult keep(struct charge *charge, CUresult result, CUdeviceptr address, uint64_t bytes, bool managed)
{
    if (charge->gpu == NO_GPU)
        return result;
    struct state *state = state_lock();
    if (result != CUDA_SUCCESS || !address || !bytes) { /* a driver might answer a wish for nothing with nothing */
        charge_cancel(state, charge);
        state_unlock(state);
        return result;
    }
    struct map_entry allocation = {address, word(bytes, charge->gpu, managed), (uintptr_t)charge->context,
                                   state_tick(state)};
    uint64_t cost = record(state, &allocation);
    bool kept = cost != UINT64_MAX && charge_adjust(state, charge, cost);
    if (!kept) {
        if (cost != UINT64_MAX)
            erase(state, map_find(&state->allocations, address));
        charge_cancel(state, charge);
    }
    state_unlock(state);
    if (kept)
        return CUDA_SUCCESS;
    REAL(cuMemFree_v2)(address);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes)
{
    struct charge charge;
    CUresult result = charge_current(&charge, granules(bytes));
    if (result != CUDA_SUCCESS)
        return result;
    result = REAL(cuMemAlloc_v2)(address, bytes);
    return keep(&charge, result, result == CUDA_SUCCESS ? *address : 0, bytes, false);
}

/* The interface of before CUDA 3.2, with 32-bit addresses and sizes. */
EXPORT CUresult cuMemAlloc(CUdeviceptr_v1 *address, unsigned int bytes)
{
    struct charge charge;
    CUresult result = charge_current(&charge, granules(bytes));
    if (result != CUDA_SUCCESS)
        return result;
    result = REAL(cuMemAlloc)(address, bytes);
    return keep(&charge, result, result == CUDA_SUCCESS ? *address : 0, bytes, false);
}

/* Rows are padded to a multiple of 512 bytes on every GPU seen so far; if it is more, keep() charges the rest. */
#define PITCH 512

static uint64_t pitched(uint64_t width, uint64_t height)
{
    uint64_t pitch, bytes;
    if (__builtin_add_overflow(width, PITCH - 1, &pitch) || __builtin_mul_overflow(pitch & ~(uint64_t)(PITCH - 1), height, &bytes))
        return UINT64_MAX;
    return bytes;
}

EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *address, size_t *pitch, size_t width, size_t height, unsigned int element)
{
    struct charge charge;
    CUresult result = charge_current(&charge, granules(pitched(width, height)));
    if (result != CUDA_SUCCESS)
        return result;
    result = REAL(cuMemAllocPitch_v2)(address, pitch, width, height, element);
    bool ok = result == CUDA_SUCCESS;
    return keep(&charge, result, ok ? *address : 0, ok ? *pitch * height : 0, false);
}

EXPORT CUresult cuMemAllocPitch(CUdeviceptr_v1 *address, unsigned int *pitch, unsigned int width, unsigned int height,
                                unsigned int element)
{
    struct charge charge;
    CUresult result = charge_current(&charge, granules(pitched(width, height)));
    if (result != CUDA_SUCCESS)
        return result;
    result = REAL(cuMemAllocPitch)(address, pitch, width, height, element);
    bool ok = result == CUDA_SUCCESS;
    return keep(&charge, result, ok ? *address : 0, ok ? (uint64_t)*pitch * height : 0, false);
}

EXPORT CUresult cuMemAllocManaged(CUdeviceptr *address, size_t bytes, unsigned int flags)
{
    struct charge charge;
    CUresult result = charge_managed(&charge, granules(bytes));
    if (result != CUDA_SUCCESS)
        return result;
    result = REAL(cuMemAllocManaged)(address, bytes, flags);
    return keep(&charge, result, result == CUDA_SUCCESS ? *address : 0, bytes, true);
}

/* Out of the tables before the driver frees it, since the address may be somebody else's the moment after; out of
 * the account when the driver has. */
static bool begin_free(CUdeviceptr address, struct map_entry *allocation, struct charge *charge)
{
    struct state *state = may_be_known(address) ? state_lock() : NULL;
    if (!state)
        return false;
    struct map_entry *entry = map_find(&state->allocations, address);
    if (entry) {
        *allocation = *entry;
        *charge = (struct charge){.gpu = (int)word_gpu(entry->a), .granules = erase(state, entry)};
    }
    state_unlock(state);
    return entry != NULL;
}

static void end_free(CUresult result, const struct map_entry *allocation, struct charge *charge)
{
    if (result == CUDA_SUCCESS && !charge->granules)
        return; /* others are in its block still */
    struct state *state = state_lock();
    if (result != CUDA_SUCCESS) {
        uint64_t cost = record(state, allocation); /* still there */
        if (cost != UINT64_MAX && cost <= charge->granules)
            charge->granules -= cost;
        else
            charge->granules = 0;
    }
    charge_cancel(state, charge);
    state_unlock(state);
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr address)
{
    struct map_entry allocation;
    struct charge charge;
    bool ours = begin_free(address, &allocation, &charge);
    CUresult result = REAL(cuMemFree_v2)(address);
    if (ours)
        end_free(result, &allocation, &charge);
    return result;
}

EXPORT CUresult cuMemFree(CUdeviceptr_v1 address)
{
    struct map_entry allocation;
    struct charge charge;
    bool ours = begin_free(address, &allocation, &charge);
    CUresult result = REAL(cuMemFree)(address);
    if (ours)
        end_free(result, &allocation, &charge);
    return result;
}

/* Takes memory of cuMemAlloc too. It comes back when the stream gets there; until then it is found outside the
 * account (outside.c), where it matters. */
EXPORT CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream)
{
    struct map_entry allocation;
    struct charge charge;
    bool ours = begin_free(address, &allocation, &charge);
    CUresult result = REAL(cuMemFreeAsync)(address, stream);
    if (ours)
        end_free(result, &allocation, &charge);
    return result;
}

EXPORT CUresult cuMemFreeAsync_ptsz(CUdeviceptr address, CUstream stream)
{
    struct map_entry allocation;
    struct charge charge;
    bool ours = begin_free(address, &allocation, &charge);
    CUresult result = REAL(cuMemFreeAsync_ptsz)(address, stream);
    if (ours)
        end_free(result, &allocation, &charge);
    return result;
}

void linear_forget_context(struct state *state, CUcontext context, uint64_t before)
{
    struct map *map = &state->allocations;
    for (size_t i = 0; i < map->capacity;) {
        struct map_entry *entry = &map->entries[i];
        if (!entry->key || entry->b != (uintptr_t)context || entry->when >= before) {
            i++;
            continue;
        }
        unsigned gpu = word_gpu(entry->a);
        account_release(&state->member, gpu, erase(state, entry)); /* another entry may be at I now */
    }
}
