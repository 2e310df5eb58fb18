/* What libcuda.so.1 of libvgpu knows about this process. It lies in memory that the kernel wipes in a forked child,
 * which has no CUDA of its own: there it starts from nothing, with an unlocked lock. */
#ifndef RUNAI_CUDA_STATE_H
#define RUNAI_CUDA_STATE_H

#include "account.h"
#include "share_limits.h"
#include "cuda/map.h"
#include "real.h"
#include <pthread.h>

#define DEVICES 64 /* CUDA device numbers that are remembered; a higher one is looked up each time */

struct state {
    pthread_mutex_t lock; /* for all that follows; never held while the driver is asked for memory */
    bool ready;
    struct account_member member;
    const struct limits *limits;
    int8_t gpu_of_device[DEVICES]; /* line of the limits file + 1; 0: not looked up yet */
    CUcontext last_context;        /* the context that was current last, and its GPU */
    int last_gpu;
    uint64_t outside[ACCOUNT_GPUS];    /* granules, as of outside_ms */
    uint64_t outside_ms[ACCOUNT_GPUS]; /* 0: never */
    uint64_t clock;         /* state_tick() */
    struct map allocations; /* linear.c: address -> word, context */
    _Atomic uint64_t lowest_complement, highest; /* linear.c: no address in allocations is outside; see state_peek */
    struct map blocks;      /* linear.c: number of a 2 MiB block at an allocation's end -> allocations in it */
    struct map contexts;    /* context.c: context -> itself, GPU and granules */
    struct map primaries;   /* context.c: device + 1 -> context, GPU and granules */
    struct map handles;     /* vmm.c: allocation handle -> physical memory, references */
    struct map mappings;    /* vmm.c: address -> physical memory, bytes */
    struct map pools;       /* pool.c: pool -> struct pool */
};

/* Locks the state; NULL, with nothing locked, when the container's limits or account can't be read: then nothing
 * may be taken. */
struct state *state_lock(void);
void state_unlock(struct state *state);

/* The state without the lock, for its atomic fields. */
const struct state *state_peek(void);

/* No GPU: nothing to charge, or nothing may be taken. */
#define NO_GPU (-1)

/* The line of the limits file for DEVICE, or NO_GPU: a GPU without a share. */
int state_gpu(struct state *state, CUdevice device);

/* Whether the driver has a DEVICE of that number; for one that isn't there it has the right answer itself. */
bool state_has_device(CUdevice device);

/* GPU becomes the line of the limits file for the device of CONTEXT, which is the current one, or NO_GPU. */
CUresult state_gpu_of_current(struct state *state, CUcontext context, int *gpu);

/* The next number of a clock that counts what happens in the tables. The driver gives an address or a handle to the next
 * one as soon as it is free, and that one may have the lock first: what is noted under it is the old one's if it was
 * noted before the call that ended the old one began. */
static inline uint64_t state_tick(struct state *state)
{
    return ++state->clock;
}

/* The clock now; 0 where there is nothing to note anything in. */
uint64_t state_now(void);

#endif
