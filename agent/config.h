/* agent.conf: what the shim tells the agent (docs/architecture.md). */
#ifndef RUNAI_AGENT_CONFIG_H
#define RUNAI_AGENT_CONFIG_H

#include "account_page.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NODES (ACCOUNT_GPUS + 1)

struct config {
    pid_t creator;       /* the process that makes the container */
    size_t params_bytes; /* of NV_MEMORY_ALLOCATION_PARAMS in this driver */
    unsigned gpus, nodes;
    struct {
        char uuid[64];
        uint64_t share, reserved; /* bytes; reserved: what the driver keeps of the GPU for itself */
    } gpu[ACCOUNT_GPUS];
    char node[NODES][256]; /* paths of the granted device files */
    char uvm[256];         /* that of nvidia-uvm, of which managed memory is mapped */
};

/* Reads agent.conf in FOLDER. false where anything in it is not as written down. */
bool config_read(int folder, struct config *config);

#endif
