/* libvgpu's account against what the driver really gave, after every call. usage: cudacheck CASE
 *
 * Compiled for the tests of libvgpu alone: RUNAI_DIR is where its limits, account and real libraries are. The host has
 * two GPUs: the first with a share of 1 GiB, the second with 512 MiB or, in some cases, none. Nobody else uses them. */
#define __CUDA_API_VERSION_INTERNAL /* every version under its own name */
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <cuda.h>
#include <nvml.h>

#include "account_page.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define GRANULE (2 * MIB)
#define SHARE (1024 * MIB)
#define CONTEXT (64 * MIB)

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            _exit(1);                                                               \
        }                                                                           \
    } while (0)

#define IS(call, expected)                                                                                   \
    do {                                                                                                     \
        int is = (int)(call);                                                                                \
        if (is != (int)(expected)) {                                                                         \
            fprintf(stderr, "%s:%d: %d instead of %d: %s\n", __FILE__, __LINE__, is, (int)(expected), #call); \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

/* The call answers that, and the account is what the driver gave. */
#define STEP(call, expected)        \
    do {                            \
        IS(call, expected);         \
        same(__LINE__, #call);      \
    } while (0)
#define OK(call) STEP(call, CUDA_SUCCESS)

static const struct account_page *page;
static nvmlReturn_t (*real_memory)(nvmlDevice_t, nvmlMemory_v2_t *);
static nvmlDevice_t real_device[2];

static void look_at_the_truth(void)
{
    int fd = open(RUNAI_DIR "/account/page", O_RDONLY | O_CLOEXEC);
    page = mmap(NULL, sizeof *page, PROT_READ, MAP_SHARED, fd, 0);
    close(fd); /* where there is no page, the case looks at the driver's side only */
    nvmlReturn_t (*init)(void), (*handle)(unsigned, nvmlDevice_t *);
    CHECK(dlopen("libnvidia-ml.so.1", RTLD_NOW)); /* ours, which brings the real one along */
    void *real = dlopen(RUNAI_DIR "/real/libnvidia-ml.so.1", RTLD_NOW | RTLD_NOLOAD);
    CHECK(real);
    *(void **)&init = dlsym(real, "nvmlInit_v2");
    *(void **)&handle = dlsym(real, "nvmlDeviceGetHandleByIndex_v2");
    *(void **)&real_memory = dlsym(real, "nvmlDeviceGetMemoryInfo_v2");
    CHECK(init() == 0 && handle(0, &real_device[0]) == 0 && handle(1, &real_device[1]) == 0);
}

static size_t given(int gpu)
{
    nvmlMemory_v2_t memory = {.version = nvmlMemory_v2};
    CHECK(real_memory(real_device[gpu], &memory) == 0);
    return memory.used;
}

static size_t account(int gpu)
{
    return (size_t)(atomic_load(&page->total[gpu]) >> 40) * GRANULE;
}

/* What a process takes besides its contexts, it takes once, and it is charged with each of them. */
static size_t charged_again(int gpu)
{
    size_t contexts = 0;
    for (size_t i = 0; i < atomic_load(&page->slots); i++)
        contexts += atomic_load(&page->slot[i].aside[gpu]) >> 32;
    return contexts > 1 ? (contexts - 1) * GRANULE : 0;
}

static void same(int line, const char *what)
{
    size_t available, all;
    cuMemGetInfo_v2(&available, &all); /* pools are looked at */
    for (int gpu = 0; gpu < 2; gpu++)
        if (account(gpu) != given(gpu) + charged_again(gpu)) {
            fprintf(stderr, "cudacheck.c:%d: GPU %d: account %zu MiB, given %zu MiB after %s\n", line, gpu,
                    account(gpu) / MIB, given(gpu) / MIB, what);
            _exit(1);
        }
}

static CUmemAllocationProp on(int device)
{
    return (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
}

static CUmemPoolProps pool_on(int device)
{
    return (CUmemPoolProps){.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
}

static CUcontext primary(CUdevice device)
{
    CUcontext context;
    OK(cuDevicePrimaryCtxRetain(&context, device));
    OK(cuCtxSetCurrent(context));
    return context;
}

/* ---- memory by address ---------------------------------------------------------------------------------------- */

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
    same(__LINE__, "many small ones");
    for (int i = 0; i < MANY; i++)
        IS(cuMemFree_v2(some[i * 1009 % MANY]), 0);
    same(__LINE__, "their end");
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
    same(__LINE__, "version 1");
    CHECK(account(0) == CONTEXT);
}

/* ---- contexts ------------------------------------------------------------------------------------------------- */

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

/* ---- pools ---------------------------------------------------------------------------------------------------- */

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
    same(__LINE__, "reset");
}

/* ---- virtual memory management -------------------------------------------------------------------------------- */

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
    same(__LINE__, "the array's end");
}

/* ---- threads -------------------------------------------------------------------------------------------------- */

#define THREADS 6

static int rounds = 40;
static pthread_barrier_t barrier;

static void in_threads(void *(*work)(void *), size_t stack)
{
    pthread_t threads[THREADS];
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (stack)
        CHECK(pthread_attr_setstacksize(&attributes, stack) == 0);
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (intptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], &attributes, work, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* Everybody retains and releases the primary context at once, with memory in it. */
static void *retain_and_release(void *unused)
{
    CUcontext context;
    CUdeviceptr address;
    for (int i = 0; i < rounds; i++) {
        pthread_barrier_wait(&barrier);
        IS(cuDevicePrimaryCtxRetain(&context, 0), 0);
        IS(cuCtxSetCurrent(context), 0);
        if (i % 3) {
            IS(cuMemAlloc_v2(&address, GRANULE), 0);
            IS(cuMemFree_v2(address), 0);
        }
        CHECK(account(0) >= CONTEXT && account(0) <= SHARE);
        IS(cuDevicePrimaryCtxRelease_v2(0), 0);
    }
    return unused;
}

static void primaries_in_threads(void)
{
    in_threads(retain_and_release, 0);
    same(__LINE__, "primaries in threads");
    CHECK(account(0) == 0);
}

/* Contexts and what is in them: their handles and addresses go from thread to thread. */
static void *create_and_destroy(void *number)
{
    CUcontext context;
    CUdeviceptr address;
    for (int i = 0; i < rounds; i++) {
        IS(cuCtxCreate_v2(&context, 0, 0), 0);
        IS(cuMemAlloc_v2(&address, ((size_t)(intptr_t)number + 1) * GRANULE), 0);
        IS(cuMemAlloc_v2(&address, 100), 0);
        IS(cuCtxDestroy_v2(context), 0);
    }
    return NULL;
}

static void contexts_in_threads(void)
{
    in_threads(create_and_destroy, 0);
    same(__LINE__, "contexts in threads");
    CHECK(account(0) == 0);
}

/* All kinds of memory, and the pools' last moments. */
static void *take_and_free(void *number)
{
    CUcontext context;
    CUdeviceptr a, b, place;
    CUmemoryPool pool;
    CUmemPoolProps pool_props = pool_on(0);
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp props = on(0);
    size_t available, total, mine = ((size_t)(intptr_t)number % 3 + 1) * GRANULE;
    IS(cuDevicePrimaryCtxRetain(&context, 0), 0);
    IS(cuCtxSetCurrent(context), 0);
    for (int i = 0; i < rounds; i++) {
        IS(cuMemAlloc_v2(&a, mine), 0);
        IS(cuMemAllocAsync(&b, MIB, NULL), 0);
        IS(cuMemFreeAsync(a, NULL), 0);
        IS(cuMemFree_v2(b), 0);
        IS(cuMemPoolCreate(&pool, &pool_props), 0);
        IS(cuMemAllocFromPoolAsync(&b, MIB, pool, NULL), 0);
        IS(cuMemPoolDestroy(pool), 0);
        IS(cuMemFreeAsync(b, NULL), 0);
        IS(cuMemAddressReserve(&place, mine, 0, 0, 0), 0);
        IS(cuMemCreate(&handle, mine, &props, 0), 0);
        IS(cuMemMap(place, mine, 0, handle, 0), 0);
        IS(cuMemRelease(handle), 0);
        IS(cuMemUnmap(place, mine), 0);
        IS(cuMemAddressFree(place, mine), 0);
        IS(cuMemGetInfo_v2(&available, &total), 0);
        IS(cuMemAlloc_v2(&a, SHARE), CUDA_ERROR_OUT_OF_MEMORY);
    }
    return NULL;
}

static void memory_in_threads(void)
{
    in_threads(take_and_free, 0);
    primary(0);
    OK(cuCtxSynchronize());
    CHECK(account(0) == CONTEXT);
}

/* Threads with little stack, near the limit, where libvgpu has most to do. */
static void small_stacks(void)
{
    rounds = 3;
    in_threads(take_and_free, 64 << 10);
}

/* A thread that is cancelled leaves nothing locked: its own calls aren't places where that can happen. */
static void *until_cancelled(void *unused)
{
    CUcontext context;
    CUdeviceptr address;
    cuDevicePrimaryCtxRetain(&context, 0);
    cuCtxSetCurrent(context);
    for (;;) {
        cuMemAlloc_v2(&address, SHARE); /* looks for ended processes: opens files */
        pthread_testcancel();
    }
    return unused;
}

static void cancelled_threads(void)
{
    for (int i = 0; i < rounds; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, until_cancelled, NULL) == 0);
        usleep((useconds_t)(i * 100));
        pthread_cancel(thread);
        pthread_join(thread, NULL);
    }
    primary(0);
}

/* ---- what a process keeps to itself --------------------------------------------------------------------------- */

static int descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static int maps(void)
{
    int count = 0, c;
    FILE *file = fopen("/proc/self/maps", "re");
    while ((c = getc(file)) != EOF)
        count += c == '\n';
    fclose(file);
    return count;
}

static void print_handlers(void)
{
    for (int number = 1; number < 65; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL)
            printf("handler of %d\n", number);
    }
}

/* Prints what anyone can see of this process; the same with and without libvgpu. */
static void footprint(void)
{
    CUdeviceptr address;
    CUcontext context;
    sigset_t mask;
    IS(cuDevicePrimaryCtxRetain(&context, 0), 0);
    IS(cuCtxSetCurrent(context), 0);
    IS(cuMemAlloc_v2(&address, SHARE * 10), CUDA_ERROR_OUT_OF_MEMORY); /* all that is lazy happens */
    IS(cuMemFree_v2(address = 0), 0);
    int fds = descriptors(), areas = maps();
    for (int i = 0; i < 1000; i++) {
        IS(cuMemAlloc_v2(&address, GRANULE), 0);
        IS(cuMemFree_v2(address), 0);
    }
    printf("descriptors more: %d, maps more: %d\n", descriptors() - fds, maps() > areas + 2);
    print_handlers();
    mode_t old = umask(0);
    printf("umask %o\n", (unsigned)old);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    for (int number = 1; number < 65; number++)
        if (sigismember(&mask, number) == 1)
            printf("blocked %d\n", number);
    for (char **variable = environ; *variable; variable++)
        if (strncmp(*variable, "LD_", 3) != 0)
            printf("%s\n", *variable);
}

static void loaded_again(void)
{
    CUresult (*init)(unsigned), (*retain)(CUcontext *, CUdevice), (*set)(CUcontext), (*alloc)(CUdeviceptr *, size_t);
    CUcontext context;
    CUdeviceptr address;
    for (int i = 0; i < 3; i++) {
        void *library = dlopen("libcuda.so.1", RTLD_NOW);
        CHECK(library);
        *(void **)&init = dlsym(library, "cuInit");
        *(void **)&retain = dlsym(library, "cuDevicePrimaryCtxRetain");
        *(void **)&set = dlsym(library, "cuCtxSetCurrent");
        *(void **)&alloc = dlsym(library, "cuMemAlloc_v2");
        CHECK(init(0) == 0 && retain(&context, 0) == 0 && set(context) == 0 && alloc(&address, 100 * MIB) == 0);
        CHECK(account(0) == CONTEXT + (size_t)(i + 1) * 100 * MIB && given(0) == account(0));
        dlclose(library);
        CHECK(account(0) == CONTEXT + (size_t)(i + 1) * 100 * MIB);
    }
}

/* A child that was forked while other threads were inside libvgpu: nothing is locked there, and nothing is its own. */
static void forked(void)
{
    CUdeviceptr address;
    CUcontext context;
    size_t available, total;
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        IS(cuMemAlloc_v2(&address, MIB), CUDA_ERROR_NOT_INITIALIZED);
        IS(cuMemGetInfo_v2(&available, &total), CUDA_ERROR_NOT_INITIALIZED);
        IS(cuMemFree_v2(GRANULE), CUDA_ERROR_NOT_INITIALIZED);
        IS(cuMemAllocAsync(&address, MIB, NULL), CUDA_ERROR_NOT_INITIALIZED);
        IS(cuDevicePrimaryCtxRetain(&context, 0), CUDA_ERROR_NOT_INITIALIZED);
        _exit(0);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(status == 0);
}

/* A child that shares all memory with its parent until it has become another program, as most ways to start one do. */
static void spawned(void)
{
    pid_t child;
    int status = -1;
    char *command[] = {"true", NULL};
    CHECK(posix_spawn(&child, "/bin/true", NULL, NULL, command, NULL) == 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void children_of_threads(void)
{
    pthread_t threads[3];
    for (intptr_t i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, take_and_free, (void *)i) == 0);
    for (int i = 0; i < rounds; i++) {
        forked();
        spawned();
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    primary(0);
    OK(cuCtxSynchronize());
    CHECK(account(0) == CONTEXT);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"linear", linear},
    {"packed", packed},
    {"limit", limit},
    {"odd_arguments", odd_arguments},
    {"version_1", version_1},
    {"contexts", contexts},
    {"contexts_cost_more", contexts_cost_more},
    {"two_gpus", two_gpus},
    {"no_share", no_share},
    {"nothing_allowed", nothing_allowed},
    {"pools", pools},
    {"vmm", vmm},
    {"outside", outside},
    {"primaries_in_threads", primaries_in_threads},
    {"contexts_in_threads", contexts_in_threads},
    {"memory_in_threads", memory_in_threads},
    {"small_stacks", small_stacks},
    {"cancelled_threads", cancelled_threads},
    {"children_of_threads", children_of_threads},
    {"footprint", footprint},
};

int main(int argc, char **argv)
{
    (void)argc;
    if (argv[2])
        rounds = atoi(argv[2]);
    if (strcmp(argv[1], "footprint") != 0)
        look_at_the_truth();
    if (strcmp(argv[1], "loaded_again") == 0) {
        loaded_again();
        return 0;
    }
    IS(cuInit(0), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (strcmp(cases[i].name, argv[1]) == 0) {
            cases[i].run();
            return 0;
        }
    return 2;
}
