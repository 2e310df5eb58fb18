/* What a program sees of the device: its share, and what the container uses of it. */
#include "agent_view.h"
#include "cuda/charge.h"
#include "cuda/pool.h"

#include <limits.h>

static uint64_t share_of(const struct state *state, unsigned gpu)
{
    const struct agent_page *agent = agent_view();
    return agent ? agent_share(agent, gpu) : state->limits->gpu[gpu].bytes;
}

/* Bytes that the container holds. */
static uint64_t used_of(struct state *state, unsigned gpu)
{
    const struct agent_page *agent = agent_view();
    if (agent)
        return agent_used(agent, gpu);
    pools_refresh(state, gpu, false);
    charge_look_outside(state, gpu, false);
    return charge_used(state, gpu) << ACCOUNT_GRANULE_SHIFT;
}

/* The share on DEVICE in bytes; 0 for a GPU without one. */
static CUresult share_bytes(CUdevice device, uint64_t *bytes)
{
    struct state *state = state_lock();
    if (!state)
        return CUDA_ERROR_OPERATING_SYSTEM;
    int gpu = state_gpu(state, device);
    *bytes = gpu == NO_GPU ? 0 : share_of(state, (unsigned)gpu);
    state_unlock(state);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    uint64_t share;
    CUresult result = REAL(cuDeviceTotalMem_v2)(bytes, device);
    if (result == CUDA_SUCCESS)
        result = share_bytes(device, &share);
    if (result == CUDA_SUCCESS && share < *bytes)
        *bytes = share;
    return result;
}

static unsigned int clamp(uint64_t bytes)
{
    return bytes > UINT_MAX ? UINT_MAX : (unsigned int)bytes;
}

EXPORT CUresult cuDeviceTotalMem(unsigned int *bytes, CUdevice device)
{
    uint64_t share;
    CUresult result = REAL(cuDeviceTotalMem)(bytes, device);
    if (result == CUDA_SUCCESS)
        result = share_bytes(device, &share);
    if (result == CUDA_SUCCESS && share < *bytes)
        *bytes = clamp(share);
    return result;
}

/* Turns the device's figures into the container's. Less may be free than the share leaves: somebody else on the
 * host can have it. Either may be NULL, as the driver allows it (seen on driver 580). */
static CUresult container_info(size_t *free, size_t *total)
{
    CUdevice device;
    CUresult result = REAL(cuCtxGetDevice)(&device);
    if (result != CUDA_SUCCESS)
        return result;
    struct state *state = state_lock();
    if (!state)
        return CUDA_ERROR_OPERATING_SYSTEM;
    int gpu = state_gpu(state, device);
    uint64_t share = 0, used = 0;
    if (gpu != NO_GPU) {
        share = share_of(state, (unsigned)gpu);
        used = used_of(state, (unsigned)gpu);
    }
    state_unlock(state);
    uint64_t left = used < share ? share - used : 0;
    if (free)
        *free = left < *free ? left : *free;
    if (total)
        *total = share < *total ? share : *total;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemGetInfo_v2(size_t *free, size_t *total)
{
    CUresult result = REAL(cuMemGetInfo_v2)(free, total);
    return result == CUDA_SUCCESS ? container_info(free, total) : result;
}

EXPORT CUresult cuMemGetInfo(unsigned int *free, unsigned int *total)
{
    CUresult result = REAL(cuMemGetInfo)(free, total);
    size_t wide_free = SIZE_MAX, wide_total = SIZE_MAX;
    if (result == CUDA_SUCCESS)
        result = container_info(&wide_free, &wide_total);
    if (result == CUDA_SUCCESS && free)
        *free = clamp(wide_free < *free ? wide_free : *free);
    if (result == CUDA_SUCCESS && total)
        *total = clamp(wide_total < *total ? wide_total : *total);
    return result;
}
