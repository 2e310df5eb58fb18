/* Objects of the driver's that aren't memory, and the end of those that are. */
#ifndef RUNAI_AGENT_OBJECT_H
#define RUNAI_AGENT_OBJECT_H

#include "held.h"

/* A device, made here where there are several: it tells the GPU of what is allocated below it. */
void object_device(const struct held *held, const struct alloc *call);

/* A context: the driver takes memory for one of which no call tells. */
void object_context(const struct held *held, struct alloc *call);

/* NV_ESC_RM_FREE and NV_ESC_RM_DUP_OBJECT. */
void object_free(const struct held *held);
void object_dup(const struct held *held);

#endif
