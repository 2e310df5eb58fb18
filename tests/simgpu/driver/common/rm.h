/* The way to the kernel side, for both libraries. A status is the driver's own: 0 or an ERR_ of abi.h; RM_IO
 * where the ioctl itself failed. Nothing here keeps state, so it needs no lock.
 */
#ifndef SIMGPU_RM_H
#define SIMGPU_RM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"

#define RM_IO 0xFFFFFFFF

struct rm {
    int fd; /* nvidiactl */
    uint32_t client;
};

/* Open a device node: DIR/dev/NAME for a library that lies at DIR/lib, else /dev/NAME. -1 with errno. */
int rm_open_node(const char *name);

/* Open nvidiactl and make a root client. */
uint32_t rm_open(struct rm *rm);
void rm_close(struct rm *rm);

/* Make an object; *handle is 0 or the one wanted, and then the one given. */
uint32_t rm_alloc(const struct rm *rm, uint32_t parent, uint32_t cls, void *params, size_t size, uint32_t *handle);
uint32_t rm_alloc_memory(const struct rm *rm, uint32_t device, uint64_t size, uint32_t *handle);
uint32_t rm_free(const struct rm *rm, uint32_t parent, uint32_t handle);
uint32_t rm_control_on(int fd, uint32_t client, uint32_t command, void *params, size_t size);
uint32_t rm_control(const struct rm *rm, uint32_t command, void *params, size_t size);
uint32_t rm_gpu(const struct rm *rm, uint32_t index, struct sim_gpu *gpu);
uint32_t rm_mig(const struct rm *rm, uint32_t index, struct sim_mig *mig);

/* May this process use the instance? It may if it can open the nodes of both its capabilities. */
bool rm_may_use(const struct sim_mig *instance);

/* A call of nvidia-uvm: number and message. */
uint32_t uvm_call(int fd, unsigned long number, struct sim_uvm *message);

#endif
