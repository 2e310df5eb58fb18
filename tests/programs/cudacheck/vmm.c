/* Virtual memory management. */
#include "cudacheck.h"

static void vmm(void)
{
    CUmemGenericAllocationHandle handle, same_handle, other;
    CUmemAllocationProp props = on(0);
    CUdeviceptr place, second;
    primary(0);
    OK(cuMemAddressReserve(&place, 16 * MIB, 0, 0, 0));
    OK(cuMemAddressReserve(&second, 4 * MIB, 0, 0, 0));

    OK(cuMemCreate(&handle, 4 * MIB, &props, 0)); /* released while mapped */
    OK(cuMemMap(place, 4 * MIB, 0, handle, 0));
    STEP(cuMemMap(place, 4 * MIB, 0, handle, 0), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemRelease(handle));
    STEP(cuMemRelease(handle), CUDA_ERROR_INVALID_VALUE);
    CHECK(account(0) == CONTEXT + 4 * MIB);
    STEP(cuMemUnmap(place, 2 * MIB), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemUnmap(place, 4 * MIB));
    CHECK(account(0) == CONTEXT);

    OK(cuMemCreate(&handle, 4 * MIB, &props, 0)); /* mapped twice, at two addresses */
    OK(cuMemMap(place, 4 * MIB, 0, handle, 0));
    OK(cuMemMap(second, 2 * MIB, 2 * MIB, handle, 0));
    OK(cuMemRelease(handle));
    OK(cuMemUnmap(place, 4 * MIB));
    CHECK(account(0) == CONTEXT + 4 * MIB);
    OK(cuMemRetainAllocationHandle(&same_handle, (void *)(uintptr_t)(second + MIB)));
    OK(cuMemUnmap(second, 2 * MIB));
    CHECK(account(0) == CONTEXT + 4 * MIB);
    OK(cuMemRelease(same_handle));
    CHECK(account(0) == CONTEXT);

    OK(cuMemCreate(&handle, 2 * MIB, &props, 0)); /* one unmap for several mappings */
    OK(cuMemCreate(&other, 6 * MIB, &props, 0));
    OK(cuMemMap(place + 2 * MIB, 2 * MIB, 0, handle, 0));
    OK(cuMemMap(place + 4 * MIB, 6 * MIB, 0, other, 0));
    OK(cuMemMap(place + 10 * MIB, 2 * MIB, 0, handle, 0));
    OK(cuMemRelease(handle));
    OK(cuMemRelease(other));
    STEP(cuMemUnmap(place, 12 * MIB), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemUnmap(place + 2 * MIB, 10 * MIB));
    CHECK(account(0) == CONTEXT);
    OK(cuMemAddressFree(place, 16 * MIB));
    OK(cuMemCreate(&handle, 4 * MIB, &props, 0)); /* no context keeps it */
    OK(cuDevicePrimaryCtxRelease_v2(0));
    CHECK(account(0) == 4 * MIB);
    OK(cuMemRelease(handle));
}

const struct test_case vmm_cases[] = {
    {"vmm", vmm},
    {0},
};
