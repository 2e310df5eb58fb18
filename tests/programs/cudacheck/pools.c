/* Pools, and memory that is taken from them in the order of a stream. */
#include "cudacheck.h"

static void pools(void)
{
    CUdeviceptr a, b, c;
    CUmemoryPool own, standard, again;
    CUmemPoolProps props = pool_on(0);
    primary(0);
    OK(cuDeviceGetDefaultMemPool(&standard, 0));
    OK(cuMemAllocFromPoolAsync(&a, 5 * MIB, standard, NULL)); /* before any cuMemAllocAsync */
    CHECK(account(0) == CONTEXT + 32 * MIB);
    OK(cuMemAllocAsync(&b, 5 * MIB, NULL));
    CHECK(account(0) == CONTEXT + 32 * MIB);
    OK(cuMemAllocAsync_ptsz(&c, 33 * MIB, NULL));
    CHECK(account(0) == CONTEXT + 96 * MIB);
    OK(cuMemFreeAsync(c, NULL));
    OK(cuMemPoolTrimTo(standard, 0));
    CHECK(account(0) == CONTEXT + 32 * MIB);
    STEP(cuMemPoolDestroy(standard), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemFreeAsync(a, NULL));
    OK(cuMemFreeAsync(b, NULL));
    OK(cuCtxSynchronize());
    CHECK(account(0) == CONTEXT);

    OK(cuMemPoolCreate(&own, &props));
    OK(cuMemAllocFromPoolAsync(&a, MIB, own, NULL));
    OK(cuMemAllocFromPoolAsync_ptsz(&b, 40 * MIB, own, NULL));
    OK(cuMemFreeAsync(b, NULL));
    OK(cuDeviceSetMemPool(0, own));
    OK(cuMemPoolDestroy(own)); /* with memory in use: that stays, and the default pool is the current one again */
    CHECK(account(0) == CONTEXT + 32 * MIB);
    OK(cuDeviceGetMemPool(&again, 0));
    CHECK(again == standard);
    STEP(cuMemAllocFromPoolAsync(&b, MIB, own, NULL), CUDA_ERROR_INVALID_VALUE);
    STEP(cuMemPoolDestroy(own), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemFreeAsync(a, NULL));
    CHECK(account(0) == CONTEXT);
    STEP(cuMemAllocFromPoolAsync(&b, MIB, own, NULL), CUDA_ERROR_INVALID_VALUE);
    for (int i = 0; i < 50; i++) { /* a number that comes again is a new pool */
        OK(cuMemPoolCreate(&own, &props));
        OK(cuMemAllocFromPoolAsync(&a, MIB, own, NULL));
        CHECK(account(0) == CONTEXT + 32 * MIB);
        OK(cuMemFreeAsync(a, NULL));
        OK(cuMemPoolDestroy(own));
    }

    /* Pools are the device's: what is in them outlives the context. */
    OK(cuMemAllocAsync(&a, 5 * MIB, NULL));
    OK(cuDevicePrimaryCtxRelease_v2(0));
    CHECK(account(0) == 32 * MIB);
    primary(0);
    OK(cuMemFreeAsync(a, NULL));
    OK(cuMemAllocAsync(&a, 5 * MIB, NULL));
    OK(cuMemPoolCreate(&own, &props));
    OK(cuMemAllocFromPoolAsync(&b, MIB, own, NULL));
    IS(cuDevicePrimaryCtxReset_v2(0), 0);
    primary(0);
    same(__FILE__, __LINE__, "reset");
}

const struct test_case pool_cases[] = {
    {"pools", pools},
    {0},
};
