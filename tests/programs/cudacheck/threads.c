/* Threads, and children of a process that has some. */
#include "cudacheck.h"

#include <pthread.h>
#include <spawn.h>
#include <sys/wait.h>

#define THREADS 6

int rounds = 40;
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
    same(__FILE__, __LINE__, "primaries in threads");
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
    same(__FILE__, __LINE__, "contexts in threads");
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

const struct test_case thread_cases[] = {
    {"primaries_in_threads", primaries_in_threads},
    {"contexts_in_threads", contexts_in_threads},
    {"memory_in_threads", memory_in_threads},
    {"small_stacks", small_stacks},
    {"cancelled_threads", cancelled_threads},
    {"children_of_threads", children_of_threads},
    {0},
};
