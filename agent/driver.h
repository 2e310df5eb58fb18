/* The driver, asked by the agent for itself: which device a UUID is, and what it gave to whom. Nothing is opened before
 * the container asks for something: a GPU that is idle may sleep. */
#ifndef RUNAI_AGENT_DRIVER_H
#define RUNAI_AGENT_DRIVER_H

#include "abi.h"
#include "config.h"

#include <stdbool.h>
#include <stdint.h>

/* Looks at the granted device files, by which descriptors are told. */
bool driver_find_nodes(const struct config *config);

/* Whether FD is one of them. */
bool driver_is_node(int fd);

/* Our own client, once. false where the driver doesn't answer as expected. */
bool driver_open(const struct config *config);

/* Makes CALL with MESSAGE on FD. false where the driver doesn't take it: errno. */
bool driver_call(int fd, uint32_t call, void *message);

/* How many GPUs it has. */
unsigned driver_gpus(void);

/* The GPU whose device instance that is; -1. */
int driver_gpu(uint32_t instance);

/* Fills in what the driver gave to the processes of INFOS on GPU, in bytes; the figure of one: what it has by handles,
 * and no other process for it. */
bool driver_figures(unsigned gpu, struct pid_infos *infos);
uint64_t driver_figure(const struct pid_info *info);

/* Which processes use GPU, of whatever container. */
bool driver_pids(unsigned gpu, struct pids *pids);

/* Bytes of GPU that are given out, without what the driver keeps for itself. */
bool driver_used(unsigned gpu, uint64_t *bytes);

#endif
