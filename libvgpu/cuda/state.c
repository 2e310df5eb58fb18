#include "cuda/state.h"
#include "cancel.h"
#include "process_memory.h"

#include <stdio.h>

static struct state *the_state;

__attribute__((constructor)) static void take_memory(void)
{
    the_state = process_memory(sizeof *the_state);
}

static void open_account(struct state *state)
{
    state->ready = true;
    state->limits = limits_get();
    state->member.slot = -1;
    state->member.self = identity_self();
    state->member.page = account_map(RUNAI_DIR "/account/page", true);
    if (state->member.page)
        account_join(&state->member);
}

const struct state *state_peek(void)
{
    return the_state;
}

struct state *state_lock(void)
{
    struct state *state = the_state;
    if (!state)
        return NULL;
    pthread_mutex_lock(&state->lock);
    if (!state->ready) {
        int cancel = forbid_cancel();
        open_account(state);
        allow_cancel(cancel);
    }
    if (state->limits && state->member.page)
        return state;
    state_unlock(state);
    return NULL;
}

void state_unlock(struct state *state)
{
    pthread_mutex_unlock(&state->lock);
}

uint64_t state_now(void)
{
    struct state *state = state_lock();
    if (!state)
        return 0;
    uint64_t now = state_tick(state);
    state_unlock(state);
    return now;
}

bool state_has_device(CUdevice device)
{
    int count = 0;
    return REAL(cuDeviceGetCount)(&count) == CUDA_SUCCESS && device >= 0 && device < count;
}

/* NVML's way to write a UUID, which is how the limits file names GPUs. KIND: "GPU", or "MIG" for an instance. */
static void write_uuid(char text[64], const char *kind, const CUuuid *uuid)
{
    const unsigned char *b = (const unsigned char *)uuid->bytes;
    snprintf(text, 64, "%s-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", kind, b[0], b[1], b[2],
             b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static int look_up(const struct state *state, CUdevice device)
{
    CUuuid uuid;
    char text[64];
    if (REAL(cuDeviceGetUuid_v2)(&uuid, device) != CUDA_SUCCESS && REAL(cuDeviceGetUuid)(&uuid, device) != CUDA_SUCCESS)
        return NO_GPU;
    write_uuid(text, "GPU", &uuid);
    int gpu = limits_find(state->limits, text);
    if (gpu >= 0)
        return gpu;
    /* In MIG mode _v2 answers the instance's (cuda.h). The older one answers the GPU's, which has no share then. */
    write_uuid(text, "MIG", &uuid);
    return limits_find(state->limits, text);
}

int state_gpu(struct state *state, CUdevice device)
{
    if (device < 0 || device >= DEVICES)
        return look_up(state, device);
    if (!state->gpu_of_device[device]) {
        int gpu = look_up(state, device);
        if (gpu == NO_GPU)
            return NO_GPU;
        state->gpu_of_device[device] = (int8_t)(gpu + 1);
    }
    return state->gpu_of_device[device] - 1;
}

CUresult state_gpu_of_current(struct state *state, CUcontext context, int *gpu)
{
    CUdevice device;
    if (context != state->last_context) {
        CUresult result = REAL(cuCtxGetDevice)(&device);
        if (result != CUDA_SUCCESS)
            return result;
        state->last_context = context;
        state->last_gpu = state_gpu(state, device);
    }
    *gpu = state->last_gpu;
    return CUDA_SUCCESS;
}
