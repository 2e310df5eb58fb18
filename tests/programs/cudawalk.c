/* Calls at random, in threads, on the two GPUs of the host. usage: cudawalk SEED CALLS THREADS [EVERY]
 *
 * One call in EVERY (1: each) may be any; the others are for small memory in blocks and pools that are there, which the
 * driver hands out by itself. Those take a microsecond where the simulated kernel side takes a hundred.
 *
 * Prints "walking" at the start, "done" after CALLS calls of each thread; then waits for a line of input, frees all that
 * it has, prints "emptied", and waits for another line. */
#define __CUDA_API_VERSION_INTERNAL /* every version under its own name */
#include <cuda.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MIB ((size_t)1 << 20)
#define GRANULE (2 * MIB)
#define THINGS 40
#define SMALL 60
#define SHELF 16 /* memory that threads leave for each other */
#define MOST_THREADS 16

enum kind { NOTHING, LINEAR, ASYNC, CREATED, MAPPED };

struct thing {
    enum kind kind;
    CUdeviceptr address;
    CUmemGenericAllocationHandle handle;
    size_t size;
};

struct walker {
    unsigned seed;
    long calls;
    CUdevice device;
    CUcontext primary;
    CUmemoryPool pool;
    struct thing things[THINGS];
    struct thing small[SMALL]; /* the first one stays, so that there is a block for the others */
};

static struct walker walkers[MOST_THREADS];
static unsigned every = 1;
static _Atomic(struct thing *) shelf[SHELF];

static unsigned dice(struct walker *walker, unsigned sides)
{
    return (unsigned)rand_r(&walker->seed) % sides;
}

static size_t some_size(struct walker *walker)
{
    switch (dice(walker, 8)) {
    case 0:
    case 1:
    case 2:
        return dice(walker, 300000) + 1;
    case 3:
    case 4:
        return (size_t)dice(walker, 8 * MIB) + 1;
    case 5:
        return (size_t)(dice(walker, 40) + 1) * GRANULE;
    case 6:
        return (size_t)dice(walker, 300) * MIB + dice(walker, 3);
    default:
        return dice(walker, 50) ? 4096 : SIZE_MAX - dice(walker, 4096);
    }
}

static void give(struct walker *walker, struct thing *thing)
{
    CUresult result = CUDA_SUCCESS;
    switch (thing->kind) {
    case LINEAR:
        result = dice(walker, 4) ? cuMemFree_v2(thing->address) : cuMemFreeAsync(thing->address, NULL);
        break;
    case ASYNC:
        result = dice(walker, 4) ? cuMemFreeAsync(thing->address, NULL) : cuMemFree_v2(thing->address);
        break;
    case CREATED:
        result = cuMemRelease(thing->handle);
        break;
    case MAPPED:
        result = cuMemUnmap(thing->address, thing->size);
        if (result == CUDA_SUCCESS)
            cuMemAddressFree(thing->address, thing->size);
        break;
    case NOTHING:
        break;
    }
    if (result != CUDA_SUCCESS && result != CUDA_ERROR_INVALID_VALUE) {
        fprintf(stderr, "cudawalk: %d from a free of kind %d\n", (int)result, (int)thing->kind);
        exit(1);
    }
    *thing = (struct thing){0};
}

static CUresult create(struct walker *walker, struct thing *thing)
{
    CUmemAllocationProp props = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = walker->device}};
    thing->size = (some_size(walker) % (64 * MIB) / GRANULE + 1) * GRANULE;
    CUresult result = cuMemCreate(&thing->handle, thing->size, &props, 0);
    thing->kind = result == CUDA_SUCCESS ? CREATED : NOTHING;
    if (result != CUDA_SUCCESS || dice(walker, 2))
        return result;
    if (cuMemAddressReserve(&thing->address, thing->size, 0, 0, 0) != CUDA_SUCCESS)
        return result;
    if (cuMemMap(thing->address, thing->size, 0, thing->handle, 0) != CUDA_SUCCESS) {
        cuMemAddressFree(thing->address, thing->size);
        return result;
    }
    CUmemGenericAllocationHandle again;
    if (dice(walker, 2) && cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)thing->address) == CUDA_SUCCESS)
        cuMemRelease(again);
    cuMemRelease(thing->handle);
    thing->kind = MAPPED;
    return result;
}

static void take(struct walker *walker, struct thing *thing)
{
    size_t size = some_size(walker), pitch;
    CUresult result;
    CUmemoryPool standard;
    switch (dice(walker, 8)) {
    case 0:
    case 1:
        result = cuMemAlloc_v2(&thing->address, size);
        thing->kind = LINEAR;
        break;
    case 2:
        result = cuMemAllocManaged(&thing->address, size, CU_MEM_ATTACH_GLOBAL);
        thing->kind = LINEAR;
        break;
    case 3:
        result = cuMemAllocPitch_v2(&thing->address, &pitch, size % 5000, dice(walker, 4000), 4);
        thing->kind = LINEAR;
        break;
    case 4:
        result = cuMemAllocAsync(&thing->address, size, NULL);
        thing->kind = ASYNC;
        break;
    case 5:
        result = cuMemAllocFromPoolAsync(&thing->address, size, walker->pool, NULL);
        thing->kind = ASYNC;
        break;
    case 6:
        result = cuDeviceGetDefaultMemPool(&standard, walker->device);
        if (result == CUDA_SUCCESS)
            result = cuMemAllocFromPoolAsync(&thing->address, size, standard, NULL);
        thing->kind = ASYNC;
        break;
    default:
        result = create(walker, thing);
        break;
    }
    if (result != CUDA_SUCCESS)
        *thing = (struct thing){0};
}

/* Memory changes hands: what another thread had is this one's now. */
static void exchange(struct walker *walker, struct thing *thing)
{
    struct thing *mine = malloc(sizeof *mine);
    if (!mine)
        return;
    *mine = *thing;
    struct thing *theirs = atomic_exchange(&shelf[dice(walker, SHELF)], mine);
    *thing = theirs ? *theirs : (struct thing){0};
    free(theirs);
}

/* A context of the thread's own, with memory in it that goes with it. */
static void visit_a_context(struct walker *walker)
{
    CUcontext context;
    CUdeviceptr address;
    if (cuCtxCreate_v2(&context, 0, walker->device) != CUDA_SUCCESS)
        return;
    for (unsigned i = dice(walker, 5); i > 0; i--)
        cuMemAlloc_v2(&address, some_size(walker));
    if (dice(walker, 5))
        cuCtxDestroy_v2(context);
    else
        cuCtxDetach(context);
}

static void visit_a_primary(struct walker *walker)
{
    CUcontext context;
    if (cuDevicePrimaryCtxRetain(&context, walker->device) == CUDA_SUCCESS)
        cuDevicePrimaryCtxRelease_v2(walker->device);
}

static void new_pool(struct walker *walker)
{
    CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = walker->device}};
    if (walker->pool)
        cuMemPoolDestroy(walker->pool);
    if (cuMemPoolCreate(&walker->pool, &props) != CUDA_SUCCESS)
        walker->pool = NULL;
}

static void nonsense(struct walker *walker)
{
    CUdeviceptr address;
    size_t pitch;
    cuMemFree_v2(dice(walker, 1 << 30));
    cuMemAlloc_v2(NULL, 1);
    cuMemAlloc_v2(&address, 0);
    cuMemAllocPitch_v2(&address, &pitch, SIZE_MAX, dice(walker, 3), 4);
    cuMemRelease(dice(walker, 1000));
    cuMemUnmap(GRANULE, GRANULE * dice(walker, 10));
    cuMemAllocFromPoolAsync(&address, 1, NULL, NULL);
    cuMemPoolDestroy(NULL);
    cuCtxDestroy_v2(NULL);
}

static void step(struct walker *walker)
{
    struct thing *thing = &walker->things[dice(walker, THINGS)];
    size_t available, total;
    switch (dice(walker, 40)) {
    case 0:
        visit_a_context(walker);
        break;
    case 1:
        visit_a_primary(walker);
        break;
    case 2:
        new_pool(walker);
        break;
    case 3:
        nonsense(walker);
        break;
    case 4:
        cuCtxSynchronize();
        break;
    case 5:
        if (walker->pool)
            cuMemPoolTrimTo(walker->pool, dice(walker, 2) ? 0 : some_size(walker));
        break;
    case 6:
        cuMemGetInfo_v2(&available, &total);
        break;
    case 7:
    case 8:
    case 9:
        exchange(walker, thing);
        break;
    default:
        if (thing->kind != NOTHING)
            give(walker, thing);
        else
            take(walker, thing);
    }
}

#define SMALL_MOST 2048

static int pool_has_room(const struct walker *walker)
{
    cuuint64_t reserved = 0, used = 0;
    if (!walker->pool)
        return 0;
    cuMemPoolGetAttribute(walker->pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved);
    cuMemPoolGetAttribute(walker->pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used);
    return reserved - used >= 64 * SMALL_MOST;
}

static void take_small(struct walker *walker, struct thing *thing)
{
    size_t size = dice(walker, SMALL_MOST) + 1;
    thing->kind = !dice(walker, 64) && pool_has_room(walker) ? ASYNC : LINEAR;
    CUresult result = thing->kind == ASYNC ? cuMemAllocFromPoolAsync(&thing->address, size, walker->pool, NULL)
                                           : cuMemAlloc_v2(&thing->address, size);
    if (result != CUDA_SUCCESS)
        *thing = (struct thing){0};
}

static void small_step(struct walker *walker)
{
    struct thing *thing = &walker->small[1 + dice(walker, SMALL - 1)];
    if (thing->kind == NOTHING)
        take_small(walker, thing);
    else
        give(walker, thing);
}

static void *walk(void *argument)
{
    struct walker *walker = argument;
    while (cuDevicePrimaryCtxRetain(&walker->primary, walker->device) != CUDA_SUCCESS)
        ; /* others have all there is, for the moment */
    cuCtxSetCurrent(walker->primary);
    while (walker->small[0].kind == NOTHING)
        take_small(walker, &walker->small[0]);
    new_pool(walker);
    while (walker->calls-- > 0)
        if (dice(walker, every))
            small_step(walker);
        else
            step(walker);
    return NULL;
}

/* What the account has of pools is as old as the last look at them. */
static void look_at_pools(void)
{
    CUcontext contexts[2] = {0};
    size_t available, total;
    for (int i = 0; i < MOST_THREADS; i++)
        if (walkers[i].primary)
            contexts[walkers[i].device] = walkers[i].primary;
    for (int device = 0; device < 2; device++)
        if (contexts[device]) {
            cuCtxSetCurrent(contexts[device]);
            cuMemGetInfo_v2(&available, &total);
        }
}

static void empty(struct walker *walker)
{
    if (!walker->primary)
        return;
    cuCtxSetCurrent(walker->primary);
    for (int i = 0; i < THINGS; i++)
        give(walker, &walker->things[i]);
    for (int i = 0; i < SMALL; i++)
        give(walker, &walker->small[i]);
    for (int i = 0; i < SHELF; i++) {
        struct thing *left = atomic_exchange(&shelf[i], NULL);
        if (left)
            give(walker, left);
        free(left);
    }
    cuMemPoolDestroy(walker->pool);
}

int main(int argc, char **argv)
{
    pthread_t threads[MOST_THREADS];
    if (argc < 4 || cuInit(0) != CUDA_SUCCESS)
        return 2;
    if (argc > 4)
        every = (unsigned)atoi(argv[4]);
    int count = atoi(argv[3]);
    for (int i = 0; i < count; i++) {
        walkers[i] = (struct walker){
            .seed = (unsigned)atoi(argv[1]) * MOST_THREADS + (unsigned)i, .calls = atol(argv[2]), .device = i % 3 == 1};
        pthread_create(&threads[i], NULL, walk, &walkers[i]);
    }
    puts("walking");
    fflush(stdout);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    look_at_pools();
    puts("done");
    fflush(stdout);
    getchar();
    for (int i = 0; i < count; i++)
        empty(&walkers[i]);
    cuCtxSynchronize();
    look_at_pools();
    for (int i = 0; i < count; i++) {
        cuCtxSetCurrent(walkers[i].primary);
        cuCtxSynchronize();
    }
    look_at_pools();
    for (int i = 0; i < count; i++)
        cuDevicePrimaryCtxRelease_v2(walkers[i].device);
    puts("emptied");
    fflush(stdout);
    getchar();
    return 0;
}
