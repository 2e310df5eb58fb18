/* Stream-ordered memory: cuMemAllocAsync, cuMemAllocFromPoolAsync.
 *
 * A pool takes memory from the driver in steps (32 MiB on an H100), hands parts of it out in a microsecond, and
 * gives it back at some later synchronisation. What counts is what the pool has taken: the attribute
 * RESERVED_MEM_CURRENT, which costs 0.04 µs to read. Before a call the most that the pool can grow by is charged;
 * after it the pool's own figure says what stays. Frees go straight on: the pool keeps the memory, and when it has
 * given some back, the next one who needs it finds out (pools_refresh). */
#include "cuda/pool.h"

#include <stdlib.h>

#define STEP ((uint64_t)32 << 20) /* a pool never grows by more than the request rounded up to this (measured) */

struct pool {
    CUmemoryPool handle;
    int gpu;
    uint64_t charged; /* granules, those of calls under way included */
    unsigned calls;   /* calls under way */
};

static struct pool *pool_of(const struct map_entry *entry)
{
    return (struct pool *)(uintptr_t)entry->a;
}

static uint64_t reserved(const struct pool *pool)
{
    cuuint64_t bytes = 0;
    if (REAL(cuMemPoolGetAttribute)(pool->handle, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &bytes))
        return pool->charged;
    return granules(bytes);
}

/* Bytes of the pool that are handed out. */
static uint64_t used(const struct pool *pool)
{
    cuuint64_t bytes = 0;
    REAL(cuMemPoolGetAttribute)(pool->handle, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &bytes);
    return bytes;
}

static bool has_room(const struct pool *pool, uint64_t bytes)
{
    uint64_t taken = reserved(pool) << ACCOUNT_GRANULE_SHIFT, out = used(pool);
    return taken > out && taken - out >= bytes;
}

static void shrink(struct state *state, struct pool *pool, uint64_t to)
{
    if (to >= pool->charged)
        return;
    account_release(&state->member, (unsigned)pool->gpu, pool->charged - to);
    pool->charged = to;
}

static struct pool *add(struct state *state, CUmemoryPool handle, int gpu)
{
    struct map_entry *entry = map_put(&state->pools, (uintptr_t)handle);
    if (!entry)
        return NULL;
    if (!entry->a) {
        struct pool *pool = malloc(sizeof *pool);
        if (!pool) {
            map_remove(&state->pools, entry);
            return NULL;
        }
        *pool = (struct pool){.handle = handle, .gpu = gpu};
        entry->a = (uintptr_t)pool;
    }
    return pool_of(entry);
}

/* The GPU whose default pool HANDLE is. */
static int default_pool_gpu(struct state *state, CUmemoryPool handle)
{
    int count = 0;
    CUmemoryPool its;
    REAL(cuDeviceGetCount)(&count);
    for (CUdevice device = 0; device < count; device++)
        if (REAL(cuDeviceGetDefaultMemPool)(&its, device) == CUDA_SUCCESS && its == handle)
            return state_gpu(state, device);
    return NO_GPU;
}

/* A pool that this process made, or a device's own. One that was imported is charged to the process that made it:
 * it stays in the table with NO_GPU, so that it isn't looked for again. */
static struct pool *find(struct state *state, CUmemoryPool handle)
{
    struct map_entry *entry = map_find(&state->pools, (uintptr_t)handle);
    return entry ? pool_of(entry) : add(state, handle, default_pool_gpu(state, handle));
}

void pools_refresh(struct state *state, unsigned gpu)
{
    for (size_t i = 0; i < state->pools.capacity; i++) {
        if (!state->pools.entries[i].key)
            continue;
        struct pool *pool = pool_of(&state->pools.entries[i]);
        if (pool->gpu == (int)gpu && !pool->calls)
            shrink(state, pool, reserved(pool));
    }
}

static void remove_pool(struct state *state, struct pool *pool)
{
    shrink(state, pool, 0);
    map_remove(&state->pools, map_find(&state->pools, (uintptr_t)pool->handle));
    free(pool);
}

void pools_forget(struct state *state, unsigned gpu)
{
    account_release(&state->member, gpu, state->orphans[gpu]);
    state->orphans[gpu] = 0;
    for (size_t i = 0; i < state->pools.capacity;) {
        struct map_entry *entry = &state->pools.entries[i];
        if (entry->key && pool_of(entry)->gpu == (int)gpu)
            remove_pool(state, pool_of(entry)); /* another entry may be at I now */
        else
            i++;
    }
}

/* A call under way that may make a pool grow. */
struct growth {
    struct pool *pool; /* NULL: nothing is charged */
};

/* Charges the most that POOL may grow by for BYTES. When the share has no room for that, the pool may still have
 * room of its own. */
static CUresult begin(struct growth *growth, CUmemoryPool handle, uint64_t bytes)
{
    struct state *state = state_lock();
    *growth = (struct growth){0};
    if (!state)
        return CUDA_ERROR_OPERATING_SYSTEM;
    struct pool *pool = find(state, handle);
    uint64_t most = granules(bytes > UINT64_MAX - STEP ? bytes : (bytes + STEP - 1) & ~(STEP - 1));
    CUresult result = CUDA_SUCCESS;
    if (!pool) {
        result = CUDA_ERROR_OUT_OF_MEMORY;
    } else if (pool->gpu != NO_GPU) {
        if (charge_locked(state, (unsigned)pool->gpu, most))
            pool->charged += most;
        else if (!has_room(pool, bytes))
            result = CUDA_ERROR_OUT_OF_MEMORY;
        if (result == CUDA_SUCCESS) {
            growth->pool = pool;
            pool->calls++;
        }
    }
    state_unlock(state);
    return result;
}

/* false when the pool grew by more than was charged and the share has no room for it. */
static bool end(const struct growth *growth)
{
    struct pool *pool = growth->pool;
    if (!pool)
        return true;
    bool ok = true;
    struct state *state = state_lock();
    uint64_t now = reserved(pool);
    pool->calls--;
    if (now > pool->charged) {
        ok = charge_locked(state, (unsigned)pool->gpu, now - pool->charged);
        pool->charged += ok ? now - pool->charged : 0;
    } else if (!pool->calls) {
        shrink(state, pool, now); /* calls under way have charged what they may need */
    }
    state_unlock(state);
    return ok;
}

/* The pool fell back on the driver although it seemed to have room. It gives the growth back at once. */
static CUresult undo(const struct growth *growth, CUdeviceptr address, CUstream stream)
{
    REAL(cuMemFreeAsync)(address, stream);
    REAL(cuStreamSynchronize)(stream);
    REAL(cuMemPoolTrimTo)(growth->pool->handle, 0);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

/* The current pool of the stream's device. No context: the driver says so itself. */
static CUresult begin_current(struct growth *growth, CUstream stream, uint64_t bytes)
{
    CUdevice device;
    CUmemoryPool handle;
    *growth = (struct growth){0};
    bool named = (uintptr_t)stream > 2; /* not one of CU_STREAM_LEGACY and CU_STREAM_PER_THREAD */
    if (!(named && REAL(cuStreamGetDevice)(stream, &device) == CUDA_SUCCESS) &&
        REAL(cuCtxGetDevice)(&device) != CUDA_SUCCESS)
        return CUDA_SUCCESS;
    if (REAL(cuDeviceGetMemPool)(&handle, device) != CUDA_SUCCESS)
        return CUDA_SUCCESS;
    return begin(growth, handle, bytes);
}

static CUresult finish(const struct growth *growth, CUresult result, const CUdeviceptr *address, CUstream stream)
{
    if (!end(growth) && result == CUDA_SUCCESS)
        return undo(growth, *address, stream);
    return result;
}

EXPORT CUresult cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream stream)
{
    struct growth growth;
    CUresult result = begin_current(&growth, stream, bytes);
    return result ? result : finish(&growth, REAL(cuMemAllocAsync)(address, bytes, stream), address, stream);
}

EXPORT CUresult cuMemAllocAsync_ptsz(CUdeviceptr *address, size_t bytes, CUstream stream)
{
    struct growth growth;
    CUresult result = begin_current(&growth, stream, bytes);
    return result ? result : finish(&growth, REAL(cuMemAllocAsync_ptsz)(address, bytes, stream), address, stream);
}

EXPORT CUresult cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    struct growth growth;
    CUresult result = begin(&growth, pool, bytes);
    return result ? result : finish(&growth, REAL(cuMemAllocFromPoolAsync)(address, bytes, pool, stream), address, stream);
}

EXPORT CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *address, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    struct growth growth;
    CUresult result = begin(&growth, pool, bytes);
    return result ? result
                  : finish(&growth, REAL(cuMemAllocFromPoolAsync_ptsz)(address, bytes, pool, stream), address, stream);
}

EXPORT CUresult cuMemPoolCreate(CUmemoryPool *handle, const CUmemPoolProps *props)
{
    CUresult result = REAL(cuMemPoolCreate)(handle, props);
    struct state *state = result == CUDA_SUCCESS ? state_lock() : NULL;
    if (!state)
        return result;
    bool of_device = props->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
    bool known = add(state, *handle, of_device ? state_gpu(state, props->location.id) : NO_GPU) != NULL;
    state_unlock(state);
    if (known)
        return CUDA_SUCCESS;
    REAL(cuMemPoolDestroy)(*handle);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

/* Memory of the pool that is still handed out outlives it, and nothing says when it is given back: it stays charged
 * until the GPU's primary context or the process ends. */
EXPORT CUresult cuMemPoolDestroy(CUmemoryPool handle)
{
    struct state *state = state_lock();
    struct map_entry *entry = state ? map_find(&state->pools, (uintptr_t)handle) : NULL;
    struct pool *pool = entry ? pool_of(entry) : NULL;
    uint64_t left = pool && pool->gpu != NO_GPU ? granules(used(pool)) : 0;
    if (state)
        state_unlock(state);
    CUresult result = REAL(cuMemPoolDestroy)(handle);
    state = pool && result == CUDA_SUCCESS ? state_lock() : NULL;
    if (!state)
        return result;
    if (left > pool->charged)
        left = pool->charged;
    if (left) {
        state->orphans[pool->gpu] += left;
        shrink(state, pool, left);
        pool->charged = 0;
    }
    remove_pool(state, pool);
    state_unlock(state);
    return result;
}

EXPORT CUresult cuMemPoolTrimTo(CUmemoryPool handle, size_t keep)
{
    CUresult result = REAL(cuMemPoolTrimTo)(handle, keep);
    struct state *state = result == CUDA_SUCCESS ? state_lock() : NULL;
    if (!state)
        return result;
    struct map_entry *entry = map_find(&state->pools, (uintptr_t)handle);
    if (entry && pool_of(entry)->gpu != NO_GPU)
        pools_refresh(state, (unsigned)pool_of(entry)->gpu);
    state_unlock(state);
    return result;
}
