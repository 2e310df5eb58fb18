/* Stream-ordered memory: cuMemAllocAsync, cuMemAllocFromPoolAsync.
 *
 * A pool takes memory from the driver in steps (32 MiB on an H100), hands parts of it out in a microsecond, and
 * gives it back at some later synchronisation. What counts is what the pool has taken: the attribute
 * RESERVED_MEM_CURRENT, which costs 0.04 µs to read. Before a call the most that the pool can grow by is charged;
 * after it the pool's own figure says what stays. Frees go straight on: the pool keeps the memory, and when it has
 * given some back, the next one who needs it finds out (pools_refresh); where that isn't enough, it has the pools give
 * back all that isn't in use. Pools belong to the device: they keep their memory when the primary context is released,
 * and even when it is reset (seen on driver 580). Beside an agent, which sees each step, nothing is charged or noted. */
#include "cuda/pool.h"
#include "agent_view.h"

#include <stdlib.h>
#include <unistd.h>

#define STEP ((uint64_t)32 << 20) /* a pool never grows by more than the request rounded up to this (measured) */

#define FOREIGN (-2) /* instead of a GPU: what another process made, and the host's memory; not charged here */

struct pool {
    CUmemoryPool handle;
    int gpu;          /* NO_GPU: one without a share, from which nothing may be taken */
    bool made;        /* by cuMemPoolCreate, here */
    bool closed;      /* cuMemPoolDestroy was called while memory of it was in use */
    bool gone;        /* out of the table; the last call under way frees it */
    uint64_t charged; /* granules, those of calls under way included */
    uint64_t pending; /* granules by which the calls under way may still make it grow */
    unsigned calls;   /* calls under way */
};

static struct pool *pool_of(const struct map_entry *entry)
{
    return (struct pool *)(uintptr_t)entry->a;
}

static uint64_t reserved(const struct pool *pool)
{
    cuuint64_t bytes = 0;
    if (pool->gone)
        return 0;
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

static void shrink(struct state *state, struct pool *pool, uint64_t to)
{
    if (to >= pool->charged)
        return;
    account_release(&state->member, (unsigned)pool->gpu, pool->charged - to);
    pool->charged = to;
}

/* Gives back what is charged beyond what POOL has and what the calls under way may still take: there may always be one
 * under way, where many threads allocate, so nothing waits for the last of them. */
static void settle(struct state *state, struct pool *pool)
{
    shrink(state, pool, reserved(pool) + pool->pending);
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
    return FOREIGN;
}

/* A pool that this process made, or a device's own. One that was imported stays in the table as FOREIGN, so that it
 * isn't looked for again. */
static struct pool *find(struct state *state, CUmemoryPool handle)
{
    struct map_entry *entry = map_find(&state->pools, (uintptr_t)handle);
    return entry ? pool_of(entry) : add(state, handle, default_pool_gpu(state, handle));
}

/* Takes POOL out of the table, and what is charged for it back. */
static void remove_pool(struct state *state, struct pool *pool)
{
    if (pool->gpu >= 0)
        shrink(state, pool, 0);
    map_remove(&state->pools, map_find(&state->pools, (uintptr_t)pool->handle));
    pool->gone = true;
    if (!pool->calls)
        free(pool);
}

/* A closed pool whose memory isn't in use any more goes for good. */
static bool bury(struct state *state, struct pool *pool)
{
    if (!pool->closed || pool->calls || used(pool) || REAL(cuMemPoolDestroy)(pool->handle) != CUDA_SUCCESS)
        return false;
    remove_pool(state, pool);
    return true;
}

void pools_refresh(struct state *state, unsigned gpu, bool trim)
{
    for (size_t i = 0; i < state->pools.capacity;) {
        struct map_entry *entry = &state->pools.entries[i];
        if (entry->key && pool_of(entry)->gpu == (int)gpu) {
            if (bury(state, pool_of(entry)))
                continue; /* another entry may be at I now */
            if (trim && reserved(pool_of(entry)) > granules(used(pool_of(entry))))
                REAL(cuMemPoolTrimTo)(pool_of(entry)->handle, 0);
            settle(state, pool_of(entry));
        }
        i++;
    }
}

/* A call under way that may make a pool grow. */
struct growth {
    struct pool *pool; /* NULL: nothing is charged */
    CUmemoryPool handle;
    uint64_t most; /* granules that were charged for it */
    bool spare;    /* for the case that the pool grows although it shouldn't */
    bool may_wait; /* out of memory, but the pool has room that its streams may not have set free yet */
};

static bool has_room(const struct pool *pool, uint64_t bytes)
{
    uint64_t taken = reserved(pool) << ACCOUNT_GRANULE_SHIFT, out = used(pool);
    return taken > out && taken - out >= bytes;
}

/* Lets POOL grow by MOST, if that leaves one more step of the share free. */
static bool charge_step(struct state *state, struct pool *pool, uint64_t most)
{
    unsigned gpu = (unsigned)pool->gpu;
    return charge_fits(state, gpu, most + granules(STEP)) && charge_quickly(state, gpu, most);
}

/* How far the search for room has come. */
enum effort {
    AT_ONCE, /* what can be had without waiting */
    IDLE,    /* the stream has done all its work: what it freed can be trimmed */
    BUSY,    /* it has not, after a wait: what it freed can only be had in the pool */
};

/* Charges the most that POOL may grow by for BYTES. Pools leave one step of the share free. Where they have come to
 * that, a pool may still have room of its own, between what is in use; nobody can tell whether the driver finds it there
 * or takes more, and the free step is what covers the second case until the growth is given back (end, undo).
 * A larger request gets the pool's free steps (the driver maps them together, seen on an H100) by trimming them first. */
static CUresult charge_growth(struct state *state, struct growth *growth, struct pool *pool, uint64_t bytes,
                              enum effort effort)
{
    uint64_t most = granules(bytes > UINT64_MAX - STEP ? bytes : (bytes + STEP - 1) & ~(STEP - 1));
    if (!charge_step(state, pool, most)) {
        if (has_room(pool, bytes) && charge_quickly(state, (unsigned)pool->gpu, most)) {
            growth->spare = true;
        } else {
            charge_make_room(state, (unsigned)pool->gpu);
            if (!charge_step(state, pool, most)) {
                growth->may_wait = has_room(pool, bytes);
                if (!growth->may_wait || effort != BUSY)
                    return CUDA_ERROR_OUT_OF_MEMORY;
                most = 0;
            }
        }
    }
    pool->charged += most;
    pool->pending += most;
    growth->most = most;
    growth->pool = pool;
    pool->calls++;
    return CUDA_SUCCESS;
}

static CUresult attempt(struct growth *growth, CUmemoryPool handle, uint64_t bytes, enum effort effort)
{
    *growth = (struct growth){.handle = handle};
    if (!handle)
        return CUDA_SUCCESS; /* the call that follows says so itself */
    struct state *state = state_lock();
    if (!state)
        return CUDA_ERROR_OPERATING_SYSTEM;
    struct pool *pool = find(state, handle);
    CUresult result = CUDA_SUCCESS;
    if (!pool || pool->gpu == NO_GPU)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    else if (pool->closed)
        result = CUDA_ERROR_INVALID_VALUE;
    else if (pool->gpu != FOREIGN)
        result = charge_growth(state, growth, pool, bytes, effort);
    state_unlock(state);
    return result;
}

#define WAIT_US 100
#define WAITS 10000 /* a second in all */

/* Waits for STREAM's work, not for ever: it may hang on something that this thread is going to do. */
static enum effort wait_for(CUstream stream)
{
    CUstreamCaptureStatus capturing;
    if (REAL(cuStreamIsCapturing)(stream, &capturing) != CUDA_SUCCESS || capturing != CU_STREAM_CAPTURE_STATUS_NONE)
        return IDLE;
    for (int i = 0; i < WAITS; i++) {
        if (REAL(cuStreamQuery)(stream) != CUDA_ERROR_NOT_READY) {
            REAL(cuStreamSynchronize)(stream); /* takes no time now, and is when pools notice what was freed */
            return IDLE;
        }
        usleep(WAIT_US);
    }
    return BUSY;
}

static CUresult begin(struct growth *growth, CUmemoryPool handle, uint64_t bytes, CUstream stream)
{
    *growth = (struct growth){0};
    if (agent_view())
        return CUDA_SUCCESS;
    CUresult result = attempt(growth, handle, bytes, AT_ONCE);
    if (result == CUDA_ERROR_OUT_OF_MEMORY && growth->may_wait)
        result = attempt(growth, handle, bytes, wait_for(stream));
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
    pool->pending -= growth->most;
    if (pool->gone) {
        account_release(&state->member, (unsigned)pool->gpu, pool->charged);
        pool->charged = 0;
        if (!pool->calls)
            free(pool);
    } else if (growth->spare && now + growth->most > pool->charged) {
        ok = false; /* it did grow */
    } else if (now > pool->charged) {
        ok = charge_locked(state, (unsigned)pool->gpu, now - pool->charged);
        pool->charged += ok ? now - pool->charged : 0;
    } else {
        settle(state, pool);
    }
    state_unlock(state);
    return ok;
}

/* The pool took more than it ever did before. It gives the growth back at once. */
static CUresult undo(const struct growth *growth, CUdeviceptr address, CUstream stream)
{
    REAL(cuMemFreeAsync)(address, stream);
    REAL(cuStreamSynchronize)(stream);
    cuMemPoolTrimTo(growth->handle, 0);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

/* The current pool of the stream's device. No context: the driver says so itself. */
static CUresult begin_current(struct growth *growth, CUstream stream, uint64_t bytes)
{
    CUdevice device;
    CUmemoryPool handle;
    *growth = (struct growth){0};
    if (agent_view())
        return CUDA_SUCCESS;
    bool named = (uintptr_t)stream > 2; /* not one of CU_STREAM_LEGACY and CU_STREAM_PER_THREAD */
    if (!(named && REAL(cuStreamGetDevice)(stream, &device) == CUDA_SUCCESS) &&
        REAL(cuCtxGetDevice)(&device) != CUDA_SUCCESS)
        return CUDA_SUCCESS;
    if (REAL(cuDeviceGetMemPool)(&handle, device) != CUDA_SUCCESS)
        return CUDA_SUCCESS;
    return begin(growth, handle, bytes, stream);
}

static CUresult finish(const struct growth *growth, CUresult result, const CUdeviceptr *address, CUstream stream)
{
    if (!end(growth) && result == CUDA_SUCCESS)
        return undo(growth, *address, stream);
    return result;
}

/* What stream 0 is for the functions with _ptsz. */
static CUstream per_thread(CUstream stream)
{
    return stream ? stream : CU_STREAM_PER_THREAD;
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
    CUresult result = begin_current(&growth, per_thread(stream), bytes);
    return result ? result : finish(&growth, REAL(cuMemAllocAsync_ptsz)(address, bytes, stream), address, stream);
}

EXPORT CUresult cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    struct growth growth;
    CUresult result = begin(&growth, pool, bytes, stream);
    return result ? result : finish(&growth, REAL(cuMemAllocFromPoolAsync)(address, bytes, pool, stream), address, stream);
}

EXPORT CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *address, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    struct growth growth;
    CUresult result = begin(&growth, pool, bytes, per_thread(stream));
    return result ? result
                  : finish(&growth, REAL(cuMemAllocFromPoolAsync_ptsz)(address, bytes, pool, stream), address, stream);
}

EXPORT CUresult cuMemPoolCreate(CUmemoryPool *handle, const CUmemPoolProps *props)
{
    CUresult result = REAL(cuMemPoolCreate)(handle, props);
    struct state *state = result == CUDA_SUCCESS && !agent_view() ? state_lock() : NULL;
    if (!state)
        return result;
    bool of_device = props->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
    struct map_entry *stale = map_find(&state->pools, (uintptr_t)*handle); /* was asked for before it was there */
    if (stale)
        remove_pool(state, pool_of(stale));
    struct pool *pool = add(state, *handle, of_device ? state_gpu(state, props->location.id) : FOREIGN);
    if (pool)
        pool->made = true;
    state_unlock(state);
    if (pool)
        return CUDA_SUCCESS;
    REAL(cuMemPoolDestroy)(*handle);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

/* A pool of which memory is in use lives on, and nothing says when its end comes. So it is closed here, and
 * destroyed when that memory is back. What the driver does at once is done: it gives back what isn't in use, and
 * the device gets its default pool again if this one was its current one. */
static void close_pool(struct state *state, struct pool *pool)
{
    CUmemoryPool its;
    CUdevice device;
    cuuint64_t nothing = 0;
    int count = 0;
    pool->closed = true;
    REAL(cuMemPoolSetAttribute)(pool->handle, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &nothing);
    REAL(cuMemPoolTrimTo)(pool->handle, 0);
    REAL(cuDeviceGetCount)(&count);
    for (device = 0; device < count; device++)
        if (REAL(cuDeviceGetMemPool)(&its, device) == CUDA_SUCCESS && its == pool->handle &&
            REAL(cuDeviceGetDefaultMemPool)(&its, device) == CUDA_SUCCESS)
            REAL(cuDeviceSetMemPool)(device, its);
    settle(state, pool);
}

EXPORT CUresult cuMemPoolDestroy(CUmemoryPool handle)
{
    struct state *state = handle && !agent_view() ? state_lock() : NULL;
    if (!state)
        return REAL(cuMemPoolDestroy)(handle);
    struct map_entry *entry = map_find(&state->pools, (uintptr_t)handle);
    struct pool *pool = entry ? pool_of(entry) : NULL;
    CUresult result;
    if (pool && pool->closed) {
        result = CUDA_ERROR_INVALID_VALUE;
    } else if (pool && pool->made && pool->gpu >= 0 && (pool->calls || used(pool))) {
        close_pool(state, pool);
        result = CUDA_SUCCESS;
    } else {
        result = REAL(cuMemPoolDestroy)(handle);
        if (pool && result == CUDA_SUCCESS)
            remove_pool(state, pool);
    }
    state_unlock(state);
    return result;
}

EXPORT CUresult cuMemPoolTrimTo(CUmemoryPool handle, size_t keep)
{
    CUresult result = REAL(cuMemPoolTrimTo)(handle, keep);
    struct state *state = result == CUDA_SUCCESS && !agent_view() ? state_lock() : NULL;
    if (!state)
        return result;
    struct map_entry *entry = map_find(&state->pools, (uintptr_t)handle);
    if (entry && pool_of(entry)->gpu >= 0)
        pools_refresh(state, (unsigned)pool_of(entry)->gpu, false);
    state_unlock(state);
    return result;
}
