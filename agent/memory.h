/* Requests for device memory: made here, within the share. */
#ifndef RUNAI_AGENT_MEMORY_H
#define RUNAI_AGENT_MEMORY_H

#include "held.h"

/* Class 0x40, of which CALL says what and where the parameters lie. MESSAGE of SIZE bytes is written back with the handle
 * at the place where all forms have it, and the status at STATUS_AT. */
void memory_alloc(const struct held *held, const struct alloc *call, uint8_t *message, size_t size, size_t status_at);

/* NV_ESC_RM_VID_HEAP_CONTROL. */
void memory_vid_heap(const struct held *held);

#endif
