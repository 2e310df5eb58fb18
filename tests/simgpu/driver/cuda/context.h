/* Contexts, for those that live by primary.c too. */
#ifndef SIMGPU_CONTEXT_H
#define SIMGPU_CONTEXT_H

#include "driver.h"

CUresult context_create(CUcontext *context, struct device *device, unsigned flags);

/* Take the device memory of a context that has none, because it is new or was destroyed. */
CUresult context_activate(CUcontext context);

/* Give back all that it holds. The handle stays valid memory, so that a thread that has it on its stack is told
 * that it is destroyed. */
void context_destroy(CUcontext context);

#endif
