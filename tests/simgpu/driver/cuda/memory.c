/* cuMemAlloc and what belongs to it. Small allocations share blocks of one granule, as the real driver packs
 * them: the address tells the block, and a block goes back with its last allocation.
 */
#include "memory.h"

#include "pool.h"

#define SMALL_MOST ((size_t)1 << 20)
#define PITCH_STEP 512

/* From one of the context's newest blocks that has room, else from a new block. */
static CUresult alloc_small(CUcontext context, size_t size, CUdeviceptr *address)
{
    struct block *block = NULL;
    struct segment *segment = NULL;
    for (int i = 0; i < SMALL_HINTS && !segment; i++) {
        block = context->small[i];
        if (block && GRANULE - block->arena.used >= size)
            segment = arena_take(&block->arena, size);
    }
    if (!segment) {
        CUresult result = block_take(context->device, context, SMALL, GRANULE, &block);
        if (result)
            return result;
        if (!arena_init(&block->arena, GRANULE) || !(segment = arena_take(&block->arena, size))) {
            block_give(block);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        context->small[context->small_next++ % SMALL_HINTS] = block;
    }
    *address = (uintptr_t)block->base + segment->offset;
    return CUDA_SUCCESS;
}

CUresult memory_alloc(CUcontext context, size_t size, CUdeviceptr *address)
{
    if (!address || !size)
        return CUDA_ERROR_INVALID_VALUE;
    if (size <= SMALL_MOST)
        return alloc_small(context, size, address);
    if (size > SIZE_MAX / 2)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct block *block;
    CUresult result = block_take(context->device, context, LARGE, round_up(size, GRANULE), &block);
    if (result)
        return result;
    block->asked = size;
    *address = (uintptr_t)block->base;
    return CUDA_SUCCESS;
}

static void forget_hint(const struct block *block)
{
    for (int i = 0; i < SMALL_HINTS; i++)
        if (block->context->small[i] == block)
            block->context->small[i] = NULL;
}

static CUresult free_small(struct block *block, size_t offset)
{
    struct segment *segment = arena_at(&block->arena, offset);
    if (!segment || segment->offset != offset)
        return CUDA_ERROR_INVALID_VALUE;
    arena_give(&block->arena, segment);
    if (!block->arena.used) {
        forget_hint(block);
        block_give(block);
    }
    return CUDA_SUCCESS;
}

CUresult memory_free(CUdeviceptr address)
{
    if (!address)
        return CUDA_SUCCESS;
    struct block *block = block_at(address);
    if (!block || block->kind == MAPPED || block->kind == HOST)
        return CUDA_ERROR_INVALID_VALUE;
    if (block->kind == POOLED)
        return pool_free(address);
    if (block->kind == SMALL)
        return free_small(block, address - (uintptr_t)block->base);
    if (address != (uintptr_t)block->base)
        return CUDA_ERROR_INVALID_VALUE;
    block_give(block);
    return CUDA_SUCCESS;
}

CUresult memory_range(CUdeviceptr address, CUdeviceptr *start, size_t *length)
{
    const struct block *block = block_at(address);
    if (!block)
        return CUDA_ERROR_NOT_FOUND;
    CUdeviceptr from = (uintptr_t)block->base;
    size_t size = block->asked;
    if (block->kind == SMALL || block->kind == POOLED) {
        const struct segment *segment = arena_at(&block->arena, address - from);
        if (!segment)
            return CUDA_ERROR_NOT_FOUND;
        from += segment->offset;
        size = segment->asked;
    }
    if (start)
        *start = from;
    if (length)
        *length = size;
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size)
{
    CUcontext context;
    CUresult result = enter_context(&context);
    return result ? result : leave(memory_alloc(context, size, address));
}

CUresult cuMemFree_v2(CUdeviceptr address)
{
    CUcontext context;
    CUresult result = enter_context(&context);
    return result ? result : leave(memory_free(address));
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *address, size_t *pitch, size_t width, size_t height, unsigned element)
{
    CUcontext context;
    if (!pitch || !width || !height || (element != 4 && element != 8 && element != 16))
        return CUDA_ERROR_INVALID_VALUE;
    size_t row = round_up(width, PITCH_STEP), size;
    if (__builtin_mul_overflow(row, height, &size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    *pitch = row;
    return leave(memory_alloc(context, size, address));
}

static CUresult alloc_managed(CUcontext context, CUdeviceptr *address, size_t size, unsigned flags)
{
    if (!address || !size || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
        return CUDA_ERROR_INVALID_VALUE;
    if (size > SIZE_MAX / 2)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct block *block;
    CUresult result = block_take(context->device, context, MANAGED, round_up(size, GRANULE), &block);
    if (result)
        return result;
    block->asked = size;
    *address = (uintptr_t)block->base;
    return CUDA_SUCCESS;
}

CUresult cuMemAllocManaged(CUdeviceptr *address, size_t size, unsigned int flags)
{
    CUcontext context;
    CUresult result = enter_context(&context);
    return result ? result : leave(alloc_managed(context, address, size, flags));
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *start, size_t *length, CUdeviceptr address)
{
    CUcontext context;
    CUresult result = enter_context(&context);
    return result ? result : leave(memory_range(address, start, length));
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    CUcontext context;
    size_t unwanted; /* driver 580 takes NULL for either */
    CUresult result = enter_context(&context);
    if (result)
        return result;
    if (total)
        *total = context->device->info.total - context->device->info.reserved;
    return leave(device_free_bytes(context->device, free_bytes ? free_bytes : &unwanted));
}
