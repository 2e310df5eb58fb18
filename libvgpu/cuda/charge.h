/* Taking device memory: first the account, then the driver, then what the driver really gave. Where an agent bounds the
 * container (agent_view.h), the driver's answer is the agent's already, and nothing but managed memory is charged.
 *
 *     struct charge charge;
 *     CUresult result = charge_current(&charge, granules(bytes));
 *     if (result == CUDA_SUCCESS)
 *         result = ..._keep(&charge, REAL(cuMemAlloc_v2)(address, bytes), ...);
 */
#ifndef RUNAI_CUDA_CHARGE_H
#define RUNAI_CUDA_CHARGE_H

#include "cuda/state.h"

struct charge {
    int gpu; /* NO_GPU: nothing is charged (the driver will refuse the call by itself) */
    uint64_t granules;
    CUcontext context; /* that was current, where that was asked */
};

/* Reserves COUNT granules on the current context's device. CUDA_ERROR_OUT_OF_MEMORY past the share. */
CUresult charge_current(struct charge *charge, uint64_t count);

/* The same for managed memory, which no agent sees. */
CUresult charge_managed(struct charge *charge, uint64_t count);

/* As charge_current on DEVICE. For one that isn't there nothing is charged. */
CUresult charge_device(struct charge *charge, CUdevice device, uint64_t count);

/* The rest is for callers that hold the state's lock. */

/* Reserves COUNT more granules on GPU; asks the driver what is held outside the account where it gets near. */
bool charge_locked(struct state *state, unsigned gpu, uint64_t count);

/* Whether the share has room for COUNT more, as far as is known. */
bool charge_fits(struct state *state, unsigned gpu, uint64_t count);

/* As charge_locked, but without making room where there is none. */
bool charge_quickly(struct state *state, unsigned gpu, uint64_t count);

/* Takes back what nobody uses any more: ended processes' parts, pools' spare memory. */
void charge_make_room(struct state *state, unsigned gpu);

/* Makes CHARGE ACTUAL granules. false when it would have to grow and can't; it is as it was then. */
bool charge_adjust(struct state *state, struct charge *charge, uint64_t actual);

/* Gives all of CHARGE back. */
void charge_cancel(struct state *state, struct charge *charge);

/* Granules that the container holds on GPU, as far as is known without asking the driver. */
uint64_t charge_used(struct state *state, unsigned gpu);

/* Asks the driver for what is held outside the account on GPU, at most every STALE_MS unless ALWAYS. */
void charge_look_outside(struct state *state, unsigned gpu, bool always);

#endif
