/* Memory by address: cuMemAlloc and its kin. */
#ifndef RUNAI_CUDA_LINEAR_H
#define RUNAI_CUDA_LINEAR_H

#include "cuda/charge.h"

/* Forgets the allocations that were noted BEFORE in a context that is gone, and gives their memory back to the
 * account. */
void linear_forget_context(struct state *state, CUcontext context, uint64_t before);

#endif
