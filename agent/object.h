/* Objects of the driver's that aren't memory, and the end of those that are. */
#ifndef RUNAI_AGENT_OBJECT_H
#define RUNAI_AGENT_OBJECT_H

#include "held.h"

/* A device, made here where there are several: it tells the GPU of what is allocated below it. */
void object_device(const struct held *held, const struct alloc *call);

/* A group of channels, or a channel that is in none and gets one of its own. For one of the graphics engine, which also
 * computes, the driver takes memory of which no call tells; for the others next to none. What is in a group takes none. */
void object_group(const struct held *held, struct alloc *call);
void object_channel(const struct held *held, struct alloc *call);

/* A free, in whichever form: MESSAGE of SIZE bytes is written back with its *STATUS. */
void object_free(const struct held *held, struct free_call *call, void *message, size_t size, uint32_t *status);

/* NV_ESC_RM_DUP_OBJECT. */
void object_dup(const struct held *held);

#endif
