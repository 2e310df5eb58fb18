/* Stream-ordered memory: pools. */
#ifndef RUNAI_CUDA_POOL_H
#define RUNAI_CUDA_POOL_H

#include "cuda/charge.h"

/* Gives back what the pools on GPU have returned to the driver since they were last looked at. TRIM: after they have
 * returned all that isn't in use. */
void pools_refresh(struct state *state, unsigned gpu, bool trim);

#endif
