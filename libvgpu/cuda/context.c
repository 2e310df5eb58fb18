/* Contexts: the driver takes memory for each (about 0.5 GiB on an H100), and frees with it all that was allocated in
 * it. What a bare one takes is known from the host (share_limits.h) and charged before it is made; what it really took is
 * seen in the driver's figure (outside.c). Beside an agent, which counts them, contexts are noted but cost nothing:
 * managed memory goes with its context. */
#include "agent_view.h"
#include "cuda/charge.h"
#include "cuda/linear.h"
#include "cuda/real_nvml.h"
#include "outside.h"

static uint64_t cost(const struct state *state, unsigned gpu)
{
    return granules(state->limits->gpu[gpu].context);
}

static void count_context(struct state *state, unsigned gpu, int more)
{
    if (agent_view())
        return; /* this process may have no slot, and nobody asks for its figure */
    _Atomic uint64_t *aside = &state->member.page->slot[state->member.slot].aside[gpu];
    uint64_t seen = atomic_load(aside);
    atomic_store(aside, aside_word(aside_contexts(seen) + (uint64_t)(int64_t)more, aside_managed(seen)));
    state->outside_ms[gpu] = 0; /* what was seen of the outside is out of date */
}

static CUresult charge_bare(struct state *state, struct charge *charge, CUdevice device)
{
    int gpu = state_gpu(state, device);
    uint64_t count = gpu == NO_GPU || agent_view() ? 0 : cost(state, (unsigned)gpu);
    if (gpu == NO_GPU || (count && !charge_locked(state, (unsigned)gpu, count)))
        return CUDA_ERROR_OUT_OF_MEMORY;
    *charge = (struct charge){.gpu = gpu, .granules = count};
    return CUDA_SUCCESS;
}

static CUresult begin(struct charge *charge, CUdevice device)
{
    *charge = (struct charge){.gpu = NO_GPU};
    if (!state_has_device(device))
        return CUDA_SUCCESS;
    if (!agent_view())
        real_nvml_load();
    struct state *state = state_lock();
    if (!state)
        return CUDA_ERROR_OPERATING_SYSTEM;
    CUresult result = charge_bare(state, charge, device);
    state_unlock(state);
    return result;
}

/* Whether the container is above its share: a context may have taken more than was known. */
static bool above_share(struct state *state, unsigned gpu)
{
    uint64_t share = state->limits->gpu[gpu].bytes >> ACCOUNT_GRANULE_SHIFT;
    if (agent_view())
        return false; /* it would have been refused */
    if (!cost(state, gpu) || charge_used(state, gpu) + granules((uint64_t)1 << 30) > share)
        charge_look_outside(state, gpu, false);
    return charge_used(state, gpu) > share;
}

/* An entry's b: how often it was attached to, the granules that it cost, its GPU. */
#define ATTACHED ((uint64_t)1 << 40)

static uint64_t word(const struct charge *charge)
{
    return charge->granules << 8 | (unsigned)charge->gpu;
}

static struct charge charge_of(const struct map_entry *entry)
{
    return (struct charge){.gpu = (int)(entry->b & 0xff), .granules = (entry->b & (ATTACHED - 1)) >> 8};
}

/* The context is gone, with all that had been allocated in it BEFORE. */
static void forget(struct state *state, struct map *map, struct map_entry *entry, uint64_t before)
{
    struct charge charge = charge_of(entry);
    linear_forget_context(state, (CUcontext)(uintptr_t)entry->a, before);
    state->last_context = NULL; /* its number may come again for another device's */
    count_context(state, (unsigned)charge.gpu, -1);
    map_remove(map, entry);
    charge_cancel(state, &charge);
}

/* Notes a new context in MAP under KEY. false when it can't stay. */
static bool enter(struct state *state, struct map *map, uint64_t key, CUcontext context, const struct charge *charge)
{
    uint64_t now = state_tick(state);
    struct map_entry *entry = map_find(map, key);
    if (entry)
        forget(state, map, entry, now); /* one that another thread is about to forget */
    entry = map_put(map, key);
    if (!entry)
        return false;
    *entry = (struct map_entry){key, (uintptr_t)context, word(charge), now};
    count_context(state, (unsigned)charge->gpu, 1);
    return true;
}

static CUresult end(struct charge *charge, CUresult result, const CUcontext *context)
{
    if (charge->gpu == NO_GPU)
        return result;
    struct state *state = state_lock();
    bool stays = result == CUDA_SUCCESS && enter(state, &state->contexts, (uintptr_t)*context, *context, charge);
    bool fits = stays && !above_share(state, (unsigned)charge->gpu);
    if (stays && !fits)
        forget(state, &state->contexts, map_find(&state->contexts, (uintptr_t)*context), state_tick(state));
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

/* After a call that ended CONTEXT, all of it or, for DETACH, one attachment. BEFORE: when the call began. */
static CUresult ended(CUresult result, CUcontext context, uint64_t before, bool detach)
{
    struct state *state = result == CUDA_SUCCESS ? state_lock() : NULL;
    if (!state)
        return result;
    struct map_entry *entry = map_find(&state->contexts, (uintptr_t)context);
    if (entry && entry->when < before) {
        if (detach && entry->b >= ATTACHED)
            entry->b -= ATTACHED;
        else
            forget(state, &state->contexts, entry, before);
    }
    state_unlock(state);
    return result;
}

EXPORT CUresult cuCtxDestroy_v2(CUcontext context)
{
    uint64_t before = state_now();
    return ended(REAL(cuCtxDestroy_v2)(context), context, before, false);
}

EXPORT CUresult cuCtxDestroy(CUcontext context)
{
    uint64_t before = state_now();
    return ended(REAL(cuCtxDestroy)(context), context, before, false);
}

EXPORT CUresult cuCtxDetach(CUcontext context)
{
    uint64_t before = state_now();
    return ended(REAL(cuCtxDetach)(context), context, before, true);
}

EXPORT CUresult cuCtxAttach(CUcontext *context, unsigned int flags)
{
    CUresult result = REAL(cuCtxAttach)(context, flags);
    struct state *state = result == CUDA_SUCCESS ? state_lock() : NULL;
    if (!state)
        return result;
    struct map_entry *entry = map_find(&state->contexts, (uintptr_t)*context);
    if (entry)
        entry->b += ATTACHED;
    state_unlock(state);
    return result;
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

/* Brings what is noted of DEVICE's primary context in line with what the driver has, whatever other threads did to it
 * meanwhile: the last one to come here sees how it ended. CHARGE is what was charged for a new one; what isn't needed
 * goes back. false when there is one and it can't stay. BEFORE: when the caller's call began. */
static bool settle(struct state *state, CUdevice device, CUcontext context, struct charge *charge, uint64_t before)
{
    struct map_entry *entry = map_find(&state->primaries, primary_key(device));
    bool active = primary_is_active(device), fits = true;
    if (entry && !active)
        forget(state, &state->primaries, entry, before);
    if (!entry && active && context) {
        if (charge->gpu == NO_GPU) /* somebody ended the one that this thread had seen */
            fits = charge_bare(state, charge, device) == CUDA_SUCCESS;
        fits = fits && enter(state, &state->primaries, primary_key(device), context, charge);
        if (fits) {
            unsigned gpu = (unsigned)charge->gpu;
            charge->gpu = NO_GPU; /* kept */
            fits = !above_share(state, gpu);
        }
    }
    charge_cancel(state, charge);
    return fits;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    struct charge charge = {.gpu = NO_GPU};
    CUresult result = primary_is_active(device) ? CUDA_SUCCESS : begin(&charge, device);
    if (result != CUDA_SUCCESS)
        return result;
    result = REAL(cuDevicePrimaryCtxRetain)(context, device);
    struct state *state = result == CUDA_SUCCESS || charge.gpu != NO_GPU ? state_lock() : NULL;
    if (!state)
        return result;
    bool fits = settle(state, device, result == CUDA_SUCCESS ? *context : NULL, &charge, state_tick(state));
    state_unlock(state);
    if (fits)
        return result;
    cuDevicePrimaryCtxRelease_v2(device);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult primary_ended(CUresult result, CUdevice device, uint64_t before)
{
    struct charge none = {.gpu = NO_GPU};
    struct state *state = result == CUDA_SUCCESS ? state_lock() : NULL;
    if (!state)
        return result;
    settle(state, device, NULL, &none, before);
    state_unlock(state);
    return result;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    uint64_t before = state_now();
    return primary_ended(REAL(cuDevicePrimaryCtxRelease_v2)(device), device, before);
}

EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice device)
{
    uint64_t before = state_now();
    return primary_ended(REAL(cuDevicePrimaryCtxRelease)(device), device, before);
}

EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    uint64_t before = state_now();
    return primary_ended(REAL(cuDevicePrimaryCtxReset_v2)(device), device, before);
}

EXPORT CUresult cuDevicePrimaryCtxReset(CUdevice device)
{
    uint64_t before = state_now();
    return primary_ended(REAL(cuDevicePrimaryCtxReset)(device), device, before);
}
