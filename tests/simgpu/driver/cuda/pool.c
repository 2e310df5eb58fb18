/* Stream-ordered allocation. A pool grows from the driver in steps of 32 MiB; nothing here is asynchronous,
 * so what is freed can be handed out again at once, and goes back to the driver at a synchronisation.
 */
#include "pool.h"

#include <stdlib.h>

#include "memory.h"

#define POOL_STEP ((size_t)32 << 20)

struct chunk {
    struct block *block;
    struct chunk *next;
};

static struct CUmemPoolHandle_st *pools;

bool pool_is_live(CUmemoryPool wanted)
{
    for (CUmemoryPool pool = pools; pool; pool = pool->next)
        if (pool == wanted)
            return !pool->closed;
    return false;
}

static CUmemoryPool new_pool(struct device *device)
{
    CUmemoryPool pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    *pool = (struct CUmemPoolHandle_st){ .device = device, .reuse = { 1, 1, 1 }, .next = pools };
    pools = pool;
    return pool;
}

static CUmemoryPool default_pool(struct device *device)
{
    if (!device->default_pool)
        device->default_pool = new_pool(device);
    return device->default_pool;
}

static CUmemoryPool current_pool(struct device *device)
{
    return device->pool ? device->pool : default_pool(device);
}

/* Give back chunks that hold nothing until the pool has no more than `keep` bytes. */
static void trim(CUmemoryPool pool, cuuint64_t keep)
{
    for (struct chunk **link = &pool->chunks; *link && pool->reserved > keep;) {
        struct chunk *chunk = *link;
        if (chunk->block->arena.used) {
            link = &chunk->next;
            continue;
        }
        pool->reserved -= chunk->block->size;
        *link = chunk->next;
        block_give(chunk->block);
        free(chunk);
    }
}

static CUresult grow(CUmemoryPool pool, size_t size, struct chunk **grown)
{
    struct chunk *chunk = calloc(1, sizeof *chunk);
    if (!chunk)
        return CUDA_ERROR_OUT_OF_MEMORY;
    size_t whole = round_up(size, POOL_STEP);
    CUresult result = block_take(pool->device, NULL, POOLED, whole, &chunk->block);
    if (result == CUDA_ERROR_OUT_OF_MEMORY && pool->reserved > pool->used) {
        trim(pool, 0);
        result = block_take(pool->device, NULL, POOLED, whole, &chunk->block);
    }
    if (!result && !arena_init(&chunk->block->arena, whole)) {
        block_give(chunk->block);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result) {
        free(chunk);
        return result;
    }
    chunk->block->pool = pool;
    chunk->next = pool->chunks;
    pool->chunks = chunk;
    pool->reserved += whole;
    if (pool->reserved > pool->reserved_high)
        pool->reserved_high = pool->reserved;
    *grown = chunk;
    return CUDA_SUCCESS;
}

static CUresult alloc(CUmemoryPool pool, CUdeviceptr *address, size_t size)
{
    if (!pool)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!address || !size)
        return CUDA_ERROR_INVALID_VALUE;
    if (size > SIZE_MAX / 2)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct segment *segment = NULL;
    struct chunk *chunk = pool->chunks;
    for (; chunk && !segment; chunk = segment ? chunk : chunk->next)
        segment = arena_take(&chunk->block->arena, size);
    if (!segment) {
        CUresult result = grow(pool, size, &chunk);
        if (result)
            return result;
        segment = arena_take(&chunk->block->arena, size);
        if (!segment)
            return CUDA_ERROR_OUT_OF_MEMORY;
    }
    pool->used += segment->length;
    if (pool->used > pool->used_high)
        pool->used_high = pool->used;
    *address = (uintptr_t)chunk->block->base + segment->offset;
    return CUDA_SUCCESS;
}

static void unlink_pool(CUmemoryPool gone)
{
    for (CUmemoryPool *link = &pools; *link; link = &(*link)->next) {
        if (*link == gone) {
            *link = gone->next;
            free(gone);
            return;
        }
    }
}

CUresult pool_free(CUdeviceptr address)
{
    struct block *block = block_at(address);
    if (!block || block->kind != POOLED)
        return CUDA_ERROR_INVALID_VALUE;
    size_t offset = address - (uintptr_t)block->base;
    struct segment *segment = arena_at(&block->arena, offset);
    if (!segment || segment->offset != offset)
        return CUDA_ERROR_INVALID_VALUE;
    CUmemoryPool pool = block->pool;
    pool->used -= segment->length;
    arena_give(&block->arena, segment);
    if (pool->closed && !pool->used) {
        trim(pool, 0);
        unlink_pool(pool);
    }
    return CUDA_SUCCESS;
}

void pools_settle(const struct device *device)
{
    for (CUmemoryPool pool = pools; pool; pool = pool->next)
        if (pool->device == device && pool->reserved > pool->threshold)
            trim(pool, pool->threshold);
}

void pool_reset(struct device *device)
{
    CUmemoryPool pool = device->default_pool;
    if (!pool)
        return;
    for (struct chunk *chunk = pool->chunks; chunk; chunk = chunk->next) {
        arena_end(&chunk->block->arena);
        chunk->block->arena.used = 0;
    }
    pool->used = 0;
    trim(pool, 0);
}

CUresult cuMemAllocAsync(CUdeviceptr *address, size_t size, CUstream stream)
{
    (void)stream;
    CUcontext context;
    CUresult result = enter_context(&context);
    return result ? result : leave(alloc(current_pool(context->device), address, size));
}
ALSO(cuMemAllocAsync, cuMemAllocAsync_ptsz);

CUresult cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t size, CUmemoryPool pool, CUstream stream)
{
    (void)stream;
    CUcontext context;
    CUresult result = enter_context(&context);
    return result ? result : leave(pool_is_live(pool) ? alloc(pool, address, size) : CUDA_ERROR_INVALID_VALUE);
}
ALSO(cuMemAllocFromPoolAsync, cuMemAllocFromPoolAsync_ptsz);

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream)
{
    (void)stream;
    CUcontext context;
    CUresult result = enter_context(&context);
    return result ? result : leave(memory_free(address));
}
ALSO(cuMemFreeAsync, cuMemFreeAsync_ptsz);

static CUresult give_pool(CUdevice ordinal, CUmemoryPool *pool, CUmemoryPool (*choose)(struct device *))
{
    struct device *device = device_of(ordinal);
    if (!device)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!pool)
        return CUDA_ERROR_INVALID_VALUE;
    *pool = choose(device);
    return *pool ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device)
{
    CUresult result = enter();
    return result ? result : leave(give_pool(device, pool, default_pool));
}

CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device)
{
    CUresult result = enter();
    return result ? result : leave(give_pool(device, pool, current_pool));
}

CUresult cuDeviceSetMemPool(CUdevice ordinal, CUmemoryPool pool)
{
    CUresult result = enter();
    if (result)
        return result;
    struct device *device = device_of(ordinal);
    if (!device)
        return leave(CUDA_ERROR_INVALID_DEVICE);
    if (!pool_is_live(pool) || pool->device != device)
        return leave(CUDA_ERROR_INVALID_VALUE);
    device->pool = pool;
    return leave(CUDA_SUCCESS);
}

static CUresult create(CUmemoryPool *pool, const CUmemPoolProps *props)
{
    if (!pool || !props || props->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return pool && props ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
    struct device *device = device_of(props->location.id);
    if (!device)
        return CUDA_ERROR_INVALID_DEVICE;
    *pool = new_pool(device);
    return *pool ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props)
{
    CUresult result = enter();
    return result ? result : leave(create(pool, props));
}

static CUresult destroy(CUmemoryPool pool)
{
    if (!pool_is_live(pool) || pool == pool->device->default_pool)
        return CUDA_ERROR_INVALID_VALUE;
    if (pool->device->pool == pool)
        pool->device->pool = NULL;
    pool->closed = true;
    trim(pool, 0);
    if (!pool->used)
        unlink_pool(pool);
    return CUDA_SUCCESS;
}

CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    CUresult result = enter();
    return result ? result : leave(destroy(pool));
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    CUresult result = enter();
    if (result)
        return result;
    if (!pool_is_live(pool))
        return leave(CUDA_ERROR_INVALID_VALUE);
    trim(pool, keep);
    return leave(CUDA_SUCCESS);
}

CUresult cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc *access, size_t count)
{
    (void)access;
    (void)count;
    CUresult result = enter();
    return result ? result : leave(pool_is_live(pool) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}
