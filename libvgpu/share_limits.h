/* The container's share: one line a GPU in /.runai/limits, "UUID BYTES CONTEXT\n", written by the shim.
 * BYTES is the most that the container may hold on that GPU; CONTEXT is what the driver takes for a bare
 * context there (measured on the host; 0 where it isn't known). */
#ifndef RUNAI_SHARE_LIMITS_H
#define RUNAI_SHARE_LIMITS_H

#include "account_page.h"
#include <stddef.h>
#include <stdint.h>

struct limit {
    char uuid[64]; /* as NVML writes it: "GPU-" or "MIG-" and 36 characters */
    uint64_t bytes;
    uint64_t context;
};

struct limits {
    unsigned count;
    struct limit gpu[ACCOUNT_GPUS];
};

/* Fills LIMITS from TEXT of LENGTH bytes. 0, or -1 when anything in it is not as above. */
int limits_parse(struct limits *limits, const char *text, size_t length);

/* The container's limits, read once. NULL when the file isn't there or is damaged: nothing may be taken then. */
const struct limits *limits_get(void);

/* The line of the GPU called UUID, or -1. */
int limits_find(const struct limits *limits, const char *uuid);

#endif
