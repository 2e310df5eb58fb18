/* Contexts: the driver takes memory for each (about 0.5 GiB on an H100), and frees with it all that was allocated in
 * it. What a bare one takes is known from the host (share_limits.h) and charged before it is made; what it really took is
 * seen in the driver's figure (outside.c). */
#include "cuda/charge.h"
#include "cuda/linear.h"
#include "cuda/pool.h"
#include "outside.h"

static uint64_t cost(const struct state *state, unsigned gpu)
{
    return granules(state->limits->gpu[gpu].context);
}

static void count_context(struct state *state, unsigned gpu, int more)
{
    _Atomic uint64_t *aside = &state->member.page->slot[state->member.slot].aside[gpu];
    uint64_t seen = atomic_load(aside);
    atomic_store(aside, aside_word(aside_contexts(seen) + (uint64_t)(int64_t)more, aside_managed(seen)));
    state->outside_ms[gpu] = 0; /* what was seen of the outside is out of date */
}

static CUresult begin(struct charge *charge, CUdevice device)
{
    *charge = (struct charge){.gpu = NO_GPU};
    struct state *state = state_lock();
    if (!state)
        return CUDA_ERROR_OPERATING_SYSTEM;
    int count = 0;
    bool exists = REAL(cuDeviceGetCount)(&count) == CUDA_SUCCESS && device >= 0 && device < count;
    int gpu = exists ? state_gpu(state, device) : NO_GPU;
    CUresult result = CUDA_SUCCESS; /* for a device that isn't there, the driver has the right answer */
    if (exists && (gpu == NO_GPU || !charge_locked(state, (unsigned)gpu, cost(state, (unsigned)gpu))))
        result = CUDA_ERROR_OUT_OF_MEMORY;
    else if (exists)
        *charge = (struct charge){.gpu = gpu, .granules = cost(state, (unsigned)gpu)};
    state_unlock(state);
    return result;
}

/* Whether the container is above its share: a context may have taken more than was known. */
static bool above_share(struct state *state, unsigned gpu)
{
    uint64_t share = state->limits->gpu[gpu].bytes >> ACCOUNT_GRANULE_SHIFT;
    if (!cost(state, gpu) || charge_used(state, gpu) + granules((uint64_t)1 << 30) > share)
        charge_look_outside(state, gpu, false);
    return charge_used(state, gpu) > share;
}

/* Notes a new context in MAP under KEY. false when it can't stay. */
static bool enter(struct state *state, struct map *map, uint64_t key, CUcontext context, const struct charge *charge)
{
    struct map_entry *entry = map_put(map, key);
    if (!entry)
        return false;
    *entry = (struct map_entry){key, (uintptr_t)context, charge->granules << 8 | (unsigned)charge->gpu};
    count_context(state, (unsigned)charge->gpu, 1);
    return true;
}

/* The opposite: the context is gone, with all that was allocated in it. */
static void forget(struct state *state, struct map *map, struct map_entry *entry)
{
    struct charge charge = {.gpu = (int)(entry->b & 0xff), .granules = entry->b >> 8};
    linear_forget_context(state, (CUcontext)(uintptr_t)entry->a);
    state->last_context = NULL; /* its number may come again for another device's */
    count_context(state, (unsigned)charge.gpu, -1);
    map_remove(map, entry);
    charge_cancel(state, &charge);
}

static CUresult end(struct charge *charge, CUresult result, const CUcontext *context)
{
    if (charge->gpu == NO_GPU)
        return result;
    struct state *state = state_lock();
    bool stays = result == CUDA_SUCCESS && enter(state, &state->contexts, (uintptr_t)*context, *context, charge);
    bool fits = stays && !above_share(state, (unsigned)charge->gpu);
    if (stays && !fits)
        forget(state, &state->contexts, map_find(&state->contexts, (uintptr_t)*context));
    else if (!stays)
        charge_cancel(state, charge);
    state_unlock(state);
    if (result != CUDA_SUCCESS || fits)
        return result;
    REAL(cuCtxDestroy_v2)(*context);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

EXPORT CUresult cuCtxCreate_v4(CUcontext *context, CUctxCreateParams *params, unsigned int flags, CUdevice device)
{
    struct charge charge;
    CUresult result = begin(&charge, device);
    return result ? result : end(&charge, REAL(cuCtxCreate_v4)(context, params, flags, device), context);
}

EXPORT CUresult cuCtxCreate_v3(CUcontext *context, CUexecAffinityParam *params, int count, unsigned int flags,
                               CUdevice device)
{
    struct charge charge;
    CUresult result = begin(&charge, device);
    return result ? result : end(&charge, REAL(cuCtxCreate_v3)(context, params, count, flags, device), context);
}

EXPORT CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device)
{
    struct charge charge;
    CUresult result = begin(&charge, device);
    return result ? result : end(&charge, REAL(cuCtxCreate_v2)(context, flags, device), context);
}

EXPORT CUresult cuCtxCreate(CUcontext *context, unsigned int flags, CUdevice device)
{
    struct charge charge;
    CUresult result = begin(&charge, device);
    return result ? result : end(&charge, REAL(cuCtxCreate)(context, flags, device), context);
}

static CUresult destroyed(CUresult result, CUcontext context)
{
    struct state *state = result == CUDA_SUCCESS ? state_lock() : NULL;
    if (!state)
        return result;
    struct map_entry *entry = map_find(&state->contexts, (uintptr_t)context);
    if (entry)
        forget(state, &state->contexts, entry);
    state_unlock(state);
    return result;
}

EXPORT CUresult cuCtxDestroy_v2(CUcontext context)
{
    return destroyed(REAL(cuCtxDestroy_v2)(context), context);
}

EXPORT CUresult cuCtxDestroy(CUcontext context)
{
    return destroyed(REAL(cuCtxDestroy)(context), context);
}

/* Each device's primary context is made by whoever retains it first, and goes with the last release or a reset. */
static uint64_t primary_key(CUdevice device)
{
    return (uint64_t)(uint32_t)device + 1;
}

static bool primary_is_active(CUdevice device)
{
    unsigned int flags;
    int active = 0;
    return REAL(cuDevicePrimaryCtxGetState)(device, &flags, &active) == CUDA_SUCCESS && active;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    if (primary_is_active(device))
        return REAL(cuDevicePrimaryCtxRetain)(context, device);
    struct charge charge;
    CUresult result = begin(&charge, device);
    if (result != CUDA_SUCCESS)
        return result;
    result = REAL(cuDevicePrimaryCtxRetain)(context, device);
    if (charge.gpu == NO_GPU)
        return result;
    struct state *state = state_lock();
    uint64_t key = primary_key(device);
    bool first = result == CUDA_SUCCESS && !map_find(&state->primaries, key); /* another thread may have been faster */
    bool stays = first && enter(state, &state->primaries, key, *context, &charge);
    bool fits = stays && !above_share(state, (unsigned)charge.gpu);
    if (stays && !fits)
        forget(state, &state->primaries, map_find(&state->primaries, key));
    else if (!stays)
        charge_cancel(state, &charge);
    state_unlock(state);
    if (!first || fits)
        return result;
    REAL(cuDevicePrimaryCtxRelease_v2)(device);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult primary_released(CUresult result, CUdevice device)
{
    struct state *state = result == CUDA_SUCCESS && !primary_is_active(device) ? state_lock() : NULL;
    if (!state)
        return result;
    struct map_entry *entry = map_find(&state->primaries, primary_key(device));
    if (entry) {
        pools_forget(state, (unsigned)(entry->b & 0xff));
        forget(state, &state->primaries, entry);
    }
    state_unlock(state);
    return result;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    return primary_released(REAL(cuDevicePrimaryCtxRelease_v2)(device), device);
}

EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice device)
{
    return primary_released(REAL(cuDevicePrimaryCtxRelease)(device), device);
}

EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    return primary_released(REAL(cuDevicePrimaryCtxReset_v2)(device), device);
}

EXPORT CUresult cuDevicePrimaryCtxReset(CUdevice device)
{
    return primary_released(REAL(cuDevicePrimaryCtxReset)(device), device);
}
