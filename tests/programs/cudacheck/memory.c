/* Memory by address. */
#include "cudacheck.h"

static void linear(void)
{
    CUdeviceptr a, b, c;
    size_t pitch;
    primary(0);
    OK(cuMemAlloc_v2(&a, 1));
    OK(cuMemAlloc_v2(&b, 3 * MIB));
    OK(cuMemAlloc_v2(&c, MIB + 1));
    CHECK(account(0) == CONTEXT + 8 * MIB);
    OK(cuMemFree_v2(b));
    STEP(cuMemFree_v2(b), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemFree_v2(c + 1), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemFree_v2(0), CUDA_SUCCESS);
    OK(cuMemFree_v2(a));
    OK(cuMemFree_v2(c));
    CHECK(account(0) == CONTEXT);
    OK(cuMemAllocPitch_v2(&a, &pitch, 1000, 10000, 4));
    CHECK(pitch == 1024);
    OK(cuMemAllocManaged(&b, 5 * MIB, CU_MEM_ATTACH_GLOBAL));
    OK(cuMemFree_v2(a));
    OK(cuMemFree_v2(b));
    /* The stream-ordered free takes all kinds. */
    OK(cuMemAlloc_v2(&a, 64 * MIB));
    OK(cuMemAlloc_v2(&b, 4096));
    OK(cuMemFreeAsync(a, NULL));
    OK(cuMemFreeAsync_ptsz(b, NULL));
    CHECK(account(0) == CONTEXT);
    OK(cuMemAllocAsync(&a, 5 * MIB, NULL));
    OK(cuMemFree_v2(a));
    OK(cuCtxSynchronize());
    CHECK(account(0) == CONTEXT);
}

static void packed(void)
{
    enum { MANY = 3000 };
    static CUdeviceptr some[MANY];
    primary(0);
    for (int i = 0; i < MANY; i++)
        IS(cuMemAlloc_v2(&some[i], (size_t)(i * 7919) % (300 << 10) + 1), 0);
    same(__FILE__, __LINE__, "many small ones");
    for (int i = 0; i < MANY; i++)
        IS(cuMemFree_v2(some[i * 1009 % MANY]), 0);
    same(__FILE__, __LINE__, "their end");
    CHECK(account(0) == CONTEXT);
}

static void limit(void)
{
    CUdeviceptr address;
    CUmemGenericAllocationHandle handle;
    CUmemoryPool pool;
    CUmemPoolProps pool_props = pool_on(0);
    CUmemAllocationProp props = on(0);
    size_t pitch, room = SHARE - CONTEXT;
    primary(0);
    STEP(cuMemAlloc_v2(&address, room + 1), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuMemAllocManaged(&address, room + 1, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuMemAllocPitch_v2(&address, &pitch, 512, room / 512 + 1, 4), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuMemCreate(&handle, room + GRANULE, &props, 0), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuMemAllocAsync(&address, room + 1, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemPoolCreate(&pool, &pool_props));
    STEP(cuMemAllocFromPoolAsync(&address, room + 1, pool, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemPoolDestroy(pool));
    for (int i = 0; i < 3; i++) { /* to the last byte, again and again */
        OK(cuMemAlloc_v2(&address, room));
        STEP(cuMemCreate(&handle, GRANULE, &props, 0), CUDA_ERROR_OUT_OF_MEMORY);
        OK(cuMemFree_v2(address));
        OK(cuMemAllocManaged(&address, room, CU_MEM_ATTACH_GLOBAL));
        STEP(cuMemAllocAsync(&address, 1, NULL), CUDA_ERROR_OUT_OF_MEMORY);
        OK(cuMemFree_v2(address));
        OK(cuMemCreate(&handle, room, &props, 0));
        STEP(cuMemAlloc_v2(&address, 1), CUDA_ERROR_OUT_OF_MEMORY);
        OK(cuMemRelease(handle));
        OK(cuMemAllocPitch_v2(&address, &pitch, 512, room / 512, 4));
        OK(cuMemFree_v2(address));
    }
    /* A pool that is full to the share still serves from its own room. */
    CUdeviceptr all[64];
    int count = 0;
    while (cuMemAllocAsync(&all[count], 32 * MIB, NULL) == CUDA_SUCCESS)
        count++;
    CHECK(count == 29 && account(0) == SHARE - 32 * MIB); /* one step stays free */
    for (int i = 0; i < 100; i++) {
        OK(cuMemFreeAsync(all[i % count], NULL));
        IS(cuMemAllocAsync(&all[i % count], 32 * MIB, NULL), CUDA_SUCCESS);
    }
    /* Nor does it matter that the room is scattered, as long as the pool finds it. */
    for (int i = 0; i < count; i++)
        OK(cuMemFreeAsync(all[i], NULL));
    for (count = 0; cuMemAllocAsync(&all[count], 16 * MIB, NULL) == CUDA_SUCCESS; count++) {
    }
    CHECK(count == 58);
    for (int i = 0; i < count; i += 2)
        OK(cuMemFreeAsync(all[i], NULL));
    for (int i = 0; i < count; i += 2)
        IS(cuMemAllocAsync(&all[i], 8 * MIB, NULL), CUDA_SUCCESS);
    CHECK(account(0) == SHARE - 32 * MIB);
}

static void odd_arguments(void)
{
    CUdeviceptr address;
    CUmemGenericAllocationHandle handle;
    CUmemoryPool pool;
    CUcontext context;
    CUmemAllocationProp props = on(0), nowhere = on(7);
    CUmemPoolProps no_pool = pool_on(7);
    size_t pitch, bytes;
    STEP(cuMemAlloc_v2(&address, 1), CUDA_ERROR_INVALID_CONTEXT);
    STEP(cuMemFree_v2(0x1000), CUDA_ERROR_INVALID_CONTEXT);
    STEP(cuCtxCreate_v2(&context, 0, 7), CUDA_ERROR_INVALID_DEVICE);
    STEP(cuCtxCreate_v2(&context, 0, -1), CUDA_ERROR_INVALID_DEVICE);
    STEP(cuCtxCreate_v2(NULL, 0, 0), CUDA_ERROR_INVALID_VALUE);
    STEP(cuDevicePrimaryCtxRetain(&context, 7), CUDA_ERROR_INVALID_DEVICE);
    STEP(cuDevicePrimaryCtxRetain(NULL, 0), CUDA_ERROR_INVALID_VALUE);
    STEP(cuDevicePrimaryCtxRelease_v2(0), CUDA_ERROR_INVALID_CONTEXT);
    primary(0);
    STEP(cuMemAlloc_v2(&address, 0), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemAlloc_v2(&address, SIZE_MAX), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuMemAlloc_v2(NULL, 1), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemAllocManaged(&address, 0, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemAllocManaged(&address, SIZE_MAX, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuMemAllocManaged(NULL, 1, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemAllocManaged(&address, 1, 77), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemAllocPitch_v2(&address, &pitch, 0, 1, 4), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemAllocPitch_v2(&address, &pitch, SIZE_MAX, 1, 4), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuMemAllocPitch_v2(&address, &pitch, 1, SIZE_MAX, 4), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuMemAllocPitch_v2(&address, &pitch, SIZE_MAX / 2, 3, 4), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuMemAllocPitch_v2(&address, NULL, 1, 1, 4), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemAllocPitch_v2(&address, &pitch, 1, 1, 5), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemAllocAsync(&address, SIZE_MAX, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuMemAllocAsync(NULL, 1, NULL), CUDA_ERROR_INVALID_VALUE);
    for (int i = 0; i < 200; i++)
        IS(cuMemAllocFromPoolAsync(&address, 1, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemAllocFromPoolAsync(&address, 1, (CUmemoryPool)&pool, NULL), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemPoolCreate(NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemPoolCreate(&pool, &no_pool), CUDA_ERROR_INVALID_DEVICE);
    STEP(cuMemPoolDestroy(NULL), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemPoolTrimTo(NULL, 0), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemCreate(&handle, GRANULE, NULL, 0), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemCreate(NULL, GRANULE, &props, 0), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemCreate(&handle, 1, &props, 0), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemCreate(&handle, 0, &props, 0), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemCreate(&handle, SIZE_MAX & ~(GRANULE - 1), &props, 0), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuMemCreate(&handle, GRANULE, &nowhere, 0), CUDA_ERROR_INVALID_DEVICE);
    STEP(cuMemRelease(0), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemRelease(77), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemMap(GRANULE, GRANULE, 0, 77, 0), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemUnmap(GRANULE, 0), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemUnmap(GRANULE, SIZE_MAX & ~(GRANULE - 1)), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemRetainAllocationHandle(&handle, &handle), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemRetainAllocationHandle(NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    STEP(cuCtxDestroy_v2(NULL), CUDA_ERROR_INVALID_CONTEXT);
    STEP(cuDeviceTotalMem_v2(NULL, 0), CUDA_ERROR_INVALID_VALUE);
    STEP(cuDeviceTotalMem_v2(&bytes, 7), CUDA_ERROR_INVALID_DEVICE);
    OK(cuMemGetInfo_v2(NULL, &bytes)); /* as on driver 580 */
    CHECK(bytes == SHARE);
    OK(cuMemGetInfo_v2(&bytes, NULL));
    CHECK(bytes == SHARE - CONTEXT);
    void *function;
    CUdriverProcAddressQueryResult status;
    STEP(cuGetProcAddress_v2("cuMemAlloc", NULL, 12000, 0, &status), CUDA_ERROR_INVALID_VALUE);
    IS(cuGetProcAddress_v2("cuNothing", &function, 12000, 0, NULL) != 0, 1);
    CHECK(account(0) == CONTEXT);
}

/* The interface of before CUDA 3.2: this driver answers none of it, and nothing stays charged. */
static void version_1(void)
{
    CUdeviceptr_v1 address;
    unsigned pitch, available, total;
    primary(0);
    IS(cuMemAlloc(&address, 1 << 20) != 0, 1);
    IS(cuMemAllocPitch(&address, &pitch, 1000, 1000, 4) != 0, 1);
    IS(cuMemFree(1 << 21) != 0, 1);
    if (cuMemGetInfo(&available, &total) == CUDA_SUCCESS)
        CHECK(total == SHARE);
    if (cuDeviceTotalMem(&total, 0) == CUDA_SUCCESS)
        CHECK(total == SHARE);
    same(__FILE__, __LINE__, "version 1");
    CHECK(account(0) == CONTEXT);
}

/* Arrays aren't in the account: they are seen in the driver's figure, and bound what else can be had. */
static void outside(void)
{
    CUarray array;
    CUdeviceptr address;
    CUDA_ARRAY_DESCRIPTOR wanted = {.Width = 1 << 20, .Height = 512, .Format = CU_AD_FORMAT_UNSIGNED_INT8, .NumChannels = 1};
    size_t available, total;
    primary(0);
    IS(cuArrayCreate_v2(&array, &wanted), 0);
    usleep(150000); /* longer than a look is good for */
    IS(cuMemGetInfo_v2(&available, &total), 0);
    CHECK(available == (1024 - 512 - 64) * MIB);
    IS(cuMemAlloc_v2(&address, 450 * MIB), CUDA_ERROR_OUT_OF_MEMORY);
    IS(cuMemAlloc_v2(&address, 448 * MIB), 0);
    CHECK(given(0) == SHARE);
    IS(cuMemAlloc_v2(&address, 1), CUDA_ERROR_OUT_OF_MEMORY);
    IS(cuArrayDestroy(array), 0);
    IS(cuMemAlloc_v2(&address, 512 * MIB), 0);
    same(__FILE__, __LINE__, "the array's end");
}

const struct test_case memory_cases[] = {
    {"linear", linear},
    {"packed", packed},
    {"limit", limit},
    {"odd_arguments", odd_arguments},
    {"version_1", version_1},
    {"outside", outside},
    {0},
};
