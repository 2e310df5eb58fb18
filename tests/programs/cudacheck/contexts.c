/* Contexts: what they cost, on GPUs with and without a share. */
#include "cudacheck.h"

static void contexts(void)
{
    CUcontext first, second, primary_context, again;
    CUdeviceptr a, b, c;
    OK(cuCtxCreate_v2(&first, 0, 0));
    OK(cuMemAlloc_v2(&a, 10 * MIB));
    OK(cuMemAlloc_v2(&b, 100));
    OK(cuMemAllocManaged(&c, 6 * MIB, CU_MEM_ATTACH_GLOBAL));
    OK(cuCtxCreate_v3(&second, NULL, 0, 0, 0));
    OK(cuMemAlloc_v2(&a, 20 * MIB));
    OK(cuMemAlloc_v2(&b, 100));
    CHECK(account(0) == 2 * CONTEXT + (10 + 2 + 6 + 20 + 2) * MIB);
    OK(cuCtxDestroy_v2(second));
    CHECK(account(0) == CONTEXT + (10 + 2 + 6) * MIB);
    STEP(cuCtxDestroy_v2(second), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    OK(cuCtxDestroy_v2(first));
    CHECK(account(0) == 0);
    OK(cuCtxCreate_v4(&first, NULL, 0, 0));
    OK(cuMemAlloc_v2(&a, 10 * MIB));
    OK(cuCtxDetach(first));
    CHECK(account(0) == 0);

    /* One that is destroyed while it is current, elsewhere on the stack: the driver says what is wrong. */
    OK(cuCtxCreate_v2(&first, 0, 0));
    OK(cuCtxCreate_v2(&second, 0, 0));
    OK(cuCtxDestroy_v2(first));
    OK(cuCtxPopCurrent_v2(&again));
    STEP(cuMemAlloc_v2(&a, MIB), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    OK(cuCtxDestroy_v2(second));

    OK(cuDevicePrimaryCtxRetain(&primary_context, 0));
    OK(cuDevicePrimaryCtxRetain(&again, 0));
    CHECK(again == primary_context && account(0) == CONTEXT);
    OK(cuCtxSetCurrent(again));
    OK(cuMemAlloc_v2(&a, 10 * MIB));
    OK(cuDevicePrimaryCtxRelease_v2(0));
    CHECK(account(0) == CONTEXT + 10 * MIB);
    STEP(cuCtxDestroy_v2(primary_context), CUDA_ERROR_INVALID_CONTEXT);
    OK(cuDevicePrimaryCtxRelease_v2(0));
    CHECK(account(0) == 0);
    primary(0);
    OK(cuMemAlloc_v2(&a, 10 * MIB));
    OK(cuDevicePrimaryCtxReset_v2(0));
    CHECK(account(0) == 0);
    primary(0);
    OK(cuDevicePrimaryCtxReset(0));
    CHECK(account(0) == 0);

    /* As many as there is room for. */
    int count = 0;
    while (cuCtxCreate_v2(&first, 0, 0) == CUDA_SUCCESS)
        count++;
    CHECK(count == SHARE / CONTEXT && account(0) == SHARE);
    STEP(cuDevicePrimaryCtxRetain(&first, 0), CUDA_ERROR_OUT_OF_MEMORY);
}

/* The host's figure for a context was too low, or missing: what it takes beyond is found, and bounded. */
static void contexts_cost_more(void)
{
    CUcontext context;
    CUdeviceptr address;
    size_t available, total;
    int count = 0;
    while (cuCtxCreate_v2(&context, 0, 0) == CUDA_SUCCESS) {
        count++;
        CHECK(given(0) <= SHARE);
    }
    CHECK(given(0) <= SHARE && count == SHARE / CONTEXT);
    usleep(150000); /* longer than a look is good for */
    IS(cuMemGetInfo_v2(&available, &total), 0);
    CHECK(available == SHARE - given(0) && total == SHARE);
    IS(cuMemAlloc_v2(&address, available + 1), CUDA_ERROR_OUT_OF_MEMORY);
    IS(cuDevicePrimaryCtxRetain(&context, 0), CUDA_ERROR_OUT_OF_MEMORY);
    CHECK(given(0) <= SHARE);
}

static void two_gpus(void)
{
    CUdeviceptr a, b;
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp props = on(1);
    size_t available, total;
    CUcontext first = primary(0), second = primary(1);
    OK(cuMemAlloc_v2(&b, 448 * MIB));
    STEP(cuMemAlloc_v2(&a, 1), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuMemCreate(&handle, GRANULE, &props, 0), CUDA_ERROR_OUT_OF_MEMORY);
    IS(cuMemGetInfo_v2(&available, &total), 0);
    CHECK(available == 0 && total == 512 * MIB);
    OK(cuCtxSetCurrent(first));
    OK(cuMemAlloc_v2(&a, 960 * MIB));
    IS(cuDeviceTotalMem_v2(&total, 1), 0);
    CHECK(total == 512 * MIB);
    OK(cuMemFree_v2(b)); /* the other one's, from here */
    OK(cuMemCreate(&handle, 448 * MIB, &props, 0));
    OK(cuMemFree_v2(a));
    OK(cuMemRelease(handle));
    OK(cuCtxSetCurrent(second));
    OK(cuMemAllocAsync(&b, 100 * MIB, NULL));
    CHECK(account(0) == CONTEXT && account(1) == CONTEXT + 128 * MIB);
}

/* The second GPU isn't in the limits file. */
static void no_share(void)
{
    CUcontext context;
    CUdeviceptr address;
    CUmemGenericAllocationHandle handle;
    CUmemoryPool pool;
    CUmemAllocationProp props = on(1);
    CUmemPoolProps pool_props = pool_on(1);
    size_t total;
    STEP(cuCtxCreate_v2(&context, 0, 1), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuDevicePrimaryCtxRetain(&context, 1), CUDA_ERROR_OUT_OF_MEMORY);
    STEP(cuMemCreate(&handle, GRANULE, &props, 0), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuDeviceTotalMem_v2(&total, 1));
    CHECK(total == 0);
    primary(0);
    OK(cuMemPoolCreate(&pool, &pool_props));
    STEP(cuMemAllocFromPoolAsync(&address, 1, pool, NULL), CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemPoolDestroy(pool));
    OK(cuDeviceGetDefaultMemPool(&pool, 1));
    STEP(cuMemAllocFromPoolAsync(&address, 1, pool, NULL), CUDA_ERROR_OUT_OF_MEMORY);
}

/* Limits or account can't be used: everything is there to be asked, and nothing can be taken. */
static void nothing_allowed(void)
{
    CUcontext context;
    CUdeviceptr address;
    CUmemGenericAllocationHandle handle;
    CUmemoryPool pool;
    CUmemAllocationProp props = on(0);
    CUmemPoolProps pool_props = pool_on(0);
    size_t total;
    int count;
    IS(cuDeviceGetCount(&count), 0);
    CHECK(count == 2);
    IS(cuCtxCreate_v2(&context, 0, 0), CUDA_ERROR_OPERATING_SYSTEM);
    IS(cuDevicePrimaryCtxRetain(&context, 0), CUDA_ERROR_OPERATING_SYSTEM);
    IS(cuMemCreate(&handle, GRANULE, &props, 0), CUDA_ERROR_OPERATING_SYSTEM);
    IS(cuDeviceTotalMem_v2(&total, 0), CUDA_ERROR_OPERATING_SYSTEM);
    IS(cuMemAlloc_v2(&address, 1), CUDA_ERROR_INVALID_CONTEXT);
    IS(cuMemFree_v2(0x200000), CUDA_ERROR_INVALID_CONTEXT);
    IS(cuMemFreeAsync(0x200000, NULL), CUDA_ERROR_INVALID_CONTEXT);
    IS(cuMemPoolCreate(&pool, &pool_props), 0);
    IS(cuMemAllocFromPoolAsync(&address, 1, pool, NULL), CUDA_ERROR_OPERATING_SYSTEM);
    IS(cuMemPoolTrimTo(pool, 0), 0);
    IS(cuMemPoolDestroy(pool), 0);
    IS(cuMemUnmap(0x200000, GRANULE), CUDA_ERROR_INVALID_VALUE);
    IS(cuCtxDestroy_v2(NULL), CUDA_ERROR_INVALID_CONTEXT);
    CHECK(given(0) == 0);
}

const struct test_case context_cases[] = {
    {"contexts", contexts},
    {"contexts_cost_more", contexts_cost_more},
    {"two_gpus", two_gpus},
    {"no_share", no_share},
    {"nothing_allowed", nothing_allowed},
    {0},
};
