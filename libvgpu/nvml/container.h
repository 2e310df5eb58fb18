/* The container as NVML's functions need it: who asks, for which GPU, and what its processes use there. NVML never takes
 * memory, so the account is only looked at. */
#ifndef RUNAI_NVML_CONTAINER_H
#define RUNAI_NVML_CONTAINER_H

#include "account.h"
#include "agent_view.h"
#include "outside.h"
#include "real.h"

struct container {
    const struct agent_page *agent; /* NULL: none bounds it, and the account is what counts */
    const struct account_page *page;
    struct identity self;
    unsigned gpu;   /* DEVICE's line of the limits file */
    uint64_t share; /* bytes */
};

/* NVML_ERROR_OPERATING_SYSTEM when the limits or, without an agent, the account can't be read, NVML_ERROR_NO_PERMISSION for a GPU without a
 * share. */
nvmlReturn_t container_find(nvmlDevice_t device, struct container *container);

/* Bytes that the container's processes use on DEVICE: the agent's figure. Without one, what the account says is of this moment; what it doesn't say
 * (memory that moved outside the allocation calls, processes that have ended) as of 100 ms ago at most. */
uint64_t container_used(const struct container *container, nvmlDevice_t device);

/* Bytes of managed memory that the process PID has in the account, where the agent counts everything else. */
uint64_t container_managed(const struct container *container, uint32_t pid);

#endif
