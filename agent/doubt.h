/* What was freed and may still be there: an export, a mapping by nvidia-uvm, or an object of another container's keeps
 * memory of which the last handle here is gone, and then no process's figure has it. So what is freed stays charged until
 * the device itself leaves no room for doubt: what it has given out beyond all processes' figures is the most that can be
 * held like that. */
#ifndef RUNAI_AGENT_DOUBT_H
#define RUNAI_AGENT_DOUBT_H

#include "abi.h"

#include <stdbool.h>
#include <stdint.h>

/* Makes CALL, a free, on FD, as driver_call() does. Where the figures alone don't settle what is freed, it is looked at
 * from both sides. */
bool doubt_free(int fd, struct free_call *call);

/* Whether it would look: then memory is freed before what it lies below. */
bool doubt_needs_proof(void);

/* The last reference to BYTES on GPU was freed, by the latest doubt_free(). */
void doubt_add(unsigned gpu, uint64_t bytes);

/* Bytes on GPU that are in doubt, and those of them that the latest look found no answer to. */
uint64_t doubt_bytes(unsigned gpu);
uint64_t doubt_left(unsigned gpu);

/* Looks at what the device says. Whether less is in doubt now. */
bool doubt_settle(unsigned gpu);

#endif
