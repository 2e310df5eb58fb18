/* Requests for device memory: made here, within the share. */
#ifndef RUNAI_AGENT_MEMORY_H
#define RUNAI_AGENT_MEMORY_H

#include "held.h"

/* Class 0x40, of which CALL says what and where the parameters lie. MESSAGE of SIZE bytes is written back with the handle
 * at the place where all forms have it, and the status at STATUS_AT. */
void memory_alloc(const struct held *held, const struct alloc *call, uint8_t *message, size_t size, size_t status_at);

/* NV_ESC_RM_VID_HEAP_CONTROL: memory by three of its functions, and their end. */
void memory_vid_heap(const struct held *held);

/* NV_ESC_RM_ALLOC_MEMORY of class 0x40 gives no memory to a caller without CAP_SYS_ADMIN, as we are: it tells how large the
 * heap is (Vulkan's and OpenGL's libraries begin with that), with a handle that stands for nothing. The share is answered. */
void memory_heap_size(const struct held *held, struct alloc_memory *call);

#endif
