/* What one process has mapped of /dev/nvidia-uvm, as the kernel says: managed memory, whoever asked for it. */
#ifndef RUNAI_AGENT_MAPS_H
#define RUNAI_AGENT_MAPS_H

#include "config.h"
#include "process.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A process that is being looked at. */
struct look {
    struct process process; /* as it was at the beginning: the table may have another in that place later */
    int maps;               /* -1: none */
    uint64_t bytes;         /* of managed memory, so far */
};

/* Which file nvidia-uvm is. */
void maps_find_node(const struct config *config);

/* Begins with PROCESS. false where it has no maps any more. */
bool maps_begin(struct look *look, const struct process *process);

/* Reads on, at most *LEFT bytes of text, of which it takes off what it read. Whether that was the end. */
bool maps_read(struct look *look, size_t *left);

void maps_end(struct look *look);

#endif
