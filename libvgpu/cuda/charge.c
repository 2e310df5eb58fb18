#include "cuda/charge.h"
#include "agent_view.h"
#include "cancel.h"
#include "cuda/pool.h"
#include "cuda/real_nvml.h"
#include "outside.h"

#include <stdlib.h>
#include <time.h>

/* Memory that moves outside the allocation calls is looked for when less than this is left, and not more often than
 * every STALE_MS: a look costs 25 to 55 µs, the first one of a process 20 ms (NVML starts). */
#define NEAR ((uint64_t)512) /* granules: 1 GiB */
#define STALE_MS 100

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t share(const struct state *state, unsigned gpu)
{
    return state->limits->gpu[gpu].bytes >> ACCOUNT_GRANULE_SHIFT;
}

/* What the account may come to: the share less what is held outside it. */
static uint64_t ceiling(const struct state *state, unsigned gpu)
{
    uint64_t all = share(state, gpu);
    return state->outside[gpu] < all ? all - state->outside[gpu] : 0;
}

uint64_t charge_used(struct state *state, unsigned gpu)
{
    return account_total(state->member.page, gpu) + state->outside[gpu];
}

void charge_look_outside(struct state *state, unsigned gpu, bool always)
{
    const struct account_page *page = state->member.page;
    uint64_t now = now_ms();
    if (!always && state->outside_ms[gpu] && now - state->outside_ms[gpu] < STALE_MS)
        return;
    state->outside_ms[gpu] = now;
    if (!outside_possible(page, gpu)) {
        state->outside[gpu] = 0;
        return;
    }
    struct held_snapshot before;
    struct figures figures;
    outside_snapshot(page, gpu, &before);
    int cancel = forbid_cancel();
    if (real_nvml_figures(state->limits->gpu[gpu].uuid, &figures)) {
        state->outside[gpu] = outside_granules(page, &state->member.self, gpu, &before, &figures);
        free(figures.list);
    }
    allow_cancel(cancel);
}

bool charge_fits(struct state *state, unsigned gpu, uint64_t count)
{
    if (charge_used(state, gpu) + count + NEAR > share(state, gpu))
        charge_look_outside(state, gpu, false);
    return charge_used(state, gpu) + count <= share(state, gpu);
}

bool charge_quickly(struct state *state, unsigned gpu, uint64_t count)
{
    return charge_fits(state, gpu, count) && account_reserve(&state->member, gpu, count, ceiling(state, gpu));
}

void charge_make_room(struct state *state, unsigned gpu)
{
    int cancel = forbid_cancel();
    account_reclaim(&state->member);
    allow_cancel(cancel);
    pools_refresh(state, gpu, true);
    charge_look_outside(state, gpu, true);
}

/* Managed memory beside an agent, which bounds all the rest. */
static bool charge_beside(const struct agent_page *agent, struct state *state, unsigned gpu, uint64_t count)
{
    uint64_t left = agent_left_for_managed(agent, state->member.page, gpu);
    if (account_reserve(&state->member, gpu, count, left))
        return true;
    int cancel = forbid_cancel();
    account_reclaim(&state->member);
    allow_cancel(cancel);
    return account_reserve(&state->member, gpu, count, left);
}

bool charge_locked(struct state *state, unsigned gpu, uint64_t count)
{
    const struct agent_page *agent = agent_view();
    if (agent)
        return charge_beside(agent, state, gpu, count);
    if (charge_quickly(state, gpu, count))
        return true;
    charge_make_room(state, gpu);
    return account_reserve(&state->member, gpu, count, ceiling(state, gpu));
}

static CUresult charge_gpu(struct state *state, struct charge *charge, int gpu, uint64_t count)
{
    if (gpu == NO_GPU || !charge_locked(state, (unsigned)gpu, count))
        return CUDA_ERROR_OUT_OF_MEMORY;
    charge->gpu = gpu;
    charge->granules = count;
    return CUDA_SUCCESS;
}

CUresult charge_device(struct charge *charge, CUdevice device, uint64_t count)
{
    *charge = (struct charge){.gpu = NO_GPU};
    if (agent_view() || !state_has_device(device))
        return CUDA_SUCCESS;
    real_nvml_load();
    struct state *state = state_lock();
    if (!state)
        return CUDA_ERROR_OPERATING_SYSTEM;
    CUresult result = charge_gpu(state, charge, state_gpu(state, device), count);
    state_unlock(state);
    return result;
}

CUresult charge_current(struct charge *charge, uint64_t count)
{
    *charge = (struct charge){.gpu = NO_GPU};
    return agent_view() ? CUDA_SUCCESS : charge_managed(charge, count);
}

CUresult charge_managed(struct charge *charge, uint64_t count)
{
    *charge = (struct charge){.gpu = NO_GPU};
    if (REAL(cuCtxGetCurrent)(&charge->context) != CUDA_SUCCESS || !charge->context)
        return CUDA_SUCCESS; /* no context: the call that follows says so itself */
    struct state *state = state_lock();
    if (!state)
        return CUDA_ERROR_OPERATING_SYSTEM;
    int gpu;
    CUresult result = state_gpu_of_current(state, charge->context, &gpu);
    if (result == CUDA_SUCCESS)
        result = charge_gpu(state, charge, gpu, count);
    state_unlock(state);
    return result;
}

bool charge_adjust(struct state *state, struct charge *charge, uint64_t actual)
{
    unsigned gpu = (unsigned)charge->gpu;
    if (actual > charge->granules && !charge_locked(state, gpu, actual - charge->granules))
        return false;
    if (actual < charge->granules)
        account_release(&state->member, gpu, charge->granules - actual);
    charge->granules = actual;
    return true;
}

void charge_cancel(struct state *state, struct charge *charge)
{
    if (charge->gpu != NO_GPU)
        charge_adjust(state, charge, 0);
}
