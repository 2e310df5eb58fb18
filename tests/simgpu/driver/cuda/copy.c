/* Copies and sets, done at once. Device ranges are checked, as the real driver would answer a bad one. */
#include <string.h>

#include "memory.h"

static CUresult copy(CUdeviceptr to, CUdeviceptr from, size_t size, bool to_device, bool from_device)
{
    if ((to_device && !memory_covers(to, size)) || (from_device && !memory_covers(from, size)))
        return CUDA_ERROR_INVALID_VALUE;
    if (size)
        memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, size);
    return CUDA_SUCCESS;
}

#define COPY(to, from, size, to_device, from_device)                                                    \
    CUcontext context;                                                                                  \
    CUresult result = enter_context(&context);                                                          \
    return result ? result                                                                              \
                  : leave(copy((CUdeviceptr)(uintptr_t)(to), (CUdeviceptr)(uintptr_t)(from), size,      \
                               to_device, from_device))

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t size)
{
    COPY(to, from, size, true, false);
}
ALSO(cuMemcpyHtoD_v2, cuMemcpyHtoD_v2_ptds);

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t size)
{
    COPY(to, from, size, false, true);
}
ALSO(cuMemcpyDtoH_v2, cuMemcpyDtoH_v2_ptds);

CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t size)
{
    COPY(to, from, size, true, true);
}
ALSO(cuMemcpyDtoD_v2, cuMemcpyDtoD_v2_ptds);

/* Unified addresses: host memory may stand on either side. */
CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t size)
{
    COPY(to, from, size, false, false);
}
ALSO(cuMemcpy, cuMemcpy_ptds);

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream)
{
    (void)stream;
    COPY(to, from, size, true, false);
}
ALSO(cuMemcpyHtoDAsync_v2, cuMemcpyHtoDAsync_v2_ptsz);

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream)
{
    (void)stream;
    COPY(to, from, size, false, true);
}
ALSO(cuMemcpyDtoHAsync_v2, cuMemcpyDtoHAsync_v2_ptsz);

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream)
{
    (void)stream;
    COPY(to, from, size, true, true);
}
ALSO(cuMemcpyDtoDAsync_v2, cuMemcpyDtoDAsync_v2_ptsz);

CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream)
{
    (void)stream;
    COPY(to, from, size, false, false);
}
ALSO(cuMemcpyAsync, cuMemcpyAsync_ptsz);

/* `count` elements of `width` bytes, all of them `value`. */
static CUresult set(CUdeviceptr to, uint32_t value, size_t count, size_t width)
{
    CUcontext context;
    size_t size;
    if (__builtin_mul_overflow(count, width, &size) || to % width)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    if (!memory_covers(to, size))
        return leave(CUDA_ERROR_INVALID_VALUE);
    char *at = (char *)(uintptr_t)to;
    if (width == 1)
        memset(at, (int)value, count);
    else
        for (size_t i = 0; i < count; i++)
            memcpy(at + i * width, &value, width);
    return leave(CUDA_SUCCESS);
}

#define SET(name, type, also, also_async)                                                                   \
    CUresult name##_v2(CUdeviceptr to, type value, size_t count)                                           \
    {                                                                                                      \
        return set(to, value, count, sizeof(type));                                                       \
    }                                                                                                      \
    ALSO(name##_v2, also);                                                                                 \
    CUresult name##Async(CUdeviceptr to, type value, size_t count, CUstream stream)                       \
    {                                                                                                      \
        (void)stream;                                                                                      \
        return set(to, value, count, sizeof(type));                                                       \
    }                                                                                                      \
    ALSO(name##Async, also_async)

SET(cuMemsetD8, unsigned char, cuMemsetD8_v2_ptds, cuMemsetD8Async_ptsz);
SET(cuMemsetD16, unsigned short, cuMemsetD16_v2_ptds, cuMemsetD16Async_ptsz);
SET(cuMemsetD32, unsigned int, cuMemsetD32_v2_ptds, cuMemsetD32Async_ptsz);
