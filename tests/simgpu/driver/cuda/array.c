/* CUDA arrays: device memory without an address. */
#include <stdlib.h>

#include "memory.h"

struct CUarray_st {
    struct device *device;
    uint32_t handle;
    CUDA_ARRAY3D_DESCRIPTOR descriptor;
};

static size_t element_size(CUarray_format format)
{
    switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8: return 1;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF: return 2;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT: return 4;
    default: return 0;
    }
}

static CUresult create(CUcontext context, CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
    size_t size = element_size(descriptor->Format) * descriptor->NumChannels;
    size_t height = descriptor->Height ? descriptor->Height : 1, depth = descriptor->Depth ? descriptor->Depth : 1;
    if (!size || !descriptor->Width)
        return CUDA_ERROR_INVALID_VALUE;
    if (__builtin_mul_overflow(size, descriptor->Width, &size) || __builtin_mul_overflow(size, height, &size) ||
        __builtin_mul_overflow(size, depth, &size))
        return CUDA_ERROR_INVALID_VALUE;
    CUarray made = calloc(1, sizeof *made);
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    made->device = context->device;
    made->descriptor = *descriptor;
    uint32_t status = rm_alloc_memory(&driver.rm, made->device->handle, size, &made->handle);
    if (status) {
        free(made);
        return status_to_result(status);
    }
    *array = made;
    return CUDA_SUCCESS;
}

CUresult cuArray3DCreate_v2(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
    CUcontext context;
    if (!array || !descriptor)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = enter_context(&context);
    return result ? result : leave(create(context, array, descriptor));
}

CUresult cuArrayCreate_v2(CUarray *array, const CUDA_ARRAY_DESCRIPTOR *descriptor)
{
    if (!array || !descriptor)
        return CUDA_ERROR_INVALID_VALUE;
    CUDA_ARRAY3D_DESCRIPTOR whole = {
        .Width = descriptor->Width,
        .Height = descriptor->Height,
        .Format = descriptor->Format,
        .NumChannels = descriptor->NumChannels,
    };
    return cuArray3DCreate_v2(array, &whole);
}

CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR *descriptor, CUarray array)
{
    if (!descriptor || !array)
        return CUDA_ERROR_INVALID_VALUE;
    *descriptor = array->descriptor;
    return CUDA_SUCCESS;
}

CUresult cuArrayDestroy(CUarray array)
{
    CUresult result = enter();
    if (result)
        return result;
    if (!array)
        return leave(CUDA_ERROR_INVALID_HANDLE);
    rm_free(&driver.rm, array->device->handle, array->handle);
    free(array);
    return leave(CUDA_SUCCESS);
}
