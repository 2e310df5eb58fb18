/* What is known about an address, and host memory that the driver gives out. */
#include <string.h>

#include "memory.h"

static CUresult attribute(void *data, CUpointer_attribute what, CUdeviceptr address)
{
    const struct block *block = block_at(address);
    CUdeviceptr start;
    size_t length;
    if (!data)
        return CUDA_ERROR_INVALID_VALUE;
    if (!block || memory_range(address, &start, &length))
        return CUDA_ERROR_INVALID_VALUE;
    switch (what) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        *(CUcontext *)data = block->context;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned *)data = block->kind == HOST ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *(CUdeviceptr *)data = address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (block->kind != HOST && block->kind != MANAGED)
            return CUDA_ERROR_INVALID_VALUE;
        *(CUdeviceptr *)data = address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        *(unsigned *)data = block->kind == MANAGED;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)data = block->device->ordinal;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(CUdeviceptr *)data = start;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)data = length;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPED:
        *(unsigned *)data = 1;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
        *(CUmemoryPool *)data = block->pool;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute what, CUdeviceptr address)
{
    CUresult result = enter();
    return result ? result : leave(attribute(data, what, address));
}

CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute *what, void **data, CUdeviceptr address)
{
    if (!what || !data)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = enter();
    if (result)
        return result;
    /* An address that isn't the driver's is no error here: its attributes stay as they are. */
    for (unsigned i = 0; i < count; i++)
        attribute(data[i], what[i], address);
    return leave(CUDA_SUCCESS);
}

static CUresult host_alloc(CUcontext context, void **pointer, size_t size)
{
    if (!pointer || !size || size > SIZE_MAX / 2)
        return CUDA_ERROR_INVALID_VALUE;
    struct block *block;
    CUresult result = block_take(context->device, context, HOST, round_up(size, GRANULE), &block);
    if (result)
        return result;
    block->asked = size;
    *pointer = block->base;
    return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **pointer, size_t size, unsigned int flags)
{
    (void)flags;
    CUcontext context;
    CUresult result = enter_context(&context);
    return result ? result : leave(host_alloc(context, pointer, size));
}

CUresult cuMemAllocHost_v2(void **pointer, size_t size)
{
    CUcontext context;
    CUresult result = enter_context(&context);
    return result ? result : leave(host_alloc(context, pointer, size));
}

CUresult cuMemFreeHost(void *pointer)
{
    CUcontext context;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    struct block *block = block_at((uintptr_t)pointer);
    if (!block || block->kind != HOST || block->base != (char *)pointer)
        return leave(CUDA_ERROR_INVALID_VALUE);
    block_give(block);
    return leave(CUDA_SUCCESS);
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *pointer, unsigned int flags)
{
    (void)flags;
    if (!address)
        return CUDA_ERROR_INVALID_VALUE;
    *address = (uintptr_t)pointer;
    return CUDA_SUCCESS;
}
