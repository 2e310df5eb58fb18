/* Stream-ordered memory: pools. */
#ifndef RUNAI_CUDA_POOL_H
#define RUNAI_CUDA_POOL_H

#include "cuda/charge.h"

/* Gives back what the pools on GPU have returned to the driver since they were last looked at. */
void pools_refresh(struct state *state, unsigned gpu);

/* Forgets the pools of a GPU whose primary context is gone. */
void pools_forget(struct state *state, unsigned gpu);

#endif
