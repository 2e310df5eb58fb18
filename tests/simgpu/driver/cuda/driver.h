/* What the simulated libcuda knows. Everything here is under driver_lock(): an API function is a thin wrapper,
 *
 *     CUresult cuX(…) { CUresult r = enter(); return r ? r : leave(x(…)); }
 *
 * and what does the work runs with the lock held and never calls an exported function.
 */
#ifndef SIMGPU_DRIVER_H
#define SIMGPU_DRIVER_H

#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rm.h"

/* Another exported name for a function: the per-thread-default-stream variants differ in nothing here. */
#define ALSO(function, name) extern __typeof__(function) name __attribute__((alias(#function)))

struct device {
    CUdevice ordinal;
    int node; /* nvidiaN */
    struct sim_gpu info;
    struct sim_mig mig;
    bool instance; /* a part of a GPU (MIG) */
    uint32_t handle; /* of class 0x80 */
    struct CUctx_st *primary;
    unsigned primary_flags;
    int primary_references;
    struct CUmemPoolHandle_st *default_pool, *pool;
};

struct driver {
    struct rm rm;
    int uvm;
    int count;
    struct device *devices;
};

#define CONTEXT_BLOCKS 4
#define SMALL_HINTS 8

struct CUctx_st {
    struct device *device;
    uint32_t handle;
    uint32_t memory[CONTEXT_BLOCKS];
    unsigned flags;
    bool alive, primary;
    unsigned long long id;
    struct block *small[SMALL_HINTS]; /* blocks in which small allocations look for room */
    unsigned small_next;
};

extern struct driver driver;

/* Lock, or say why the driver can't be used; with a context: the calling thread's, which must be alive. */
CUresult enter(void);
CUresult enter_context(CUcontext *context);
CUresult leave(CUresult result);
CUresult status_to_result(uint32_t status);

/* The device of an ordinal; NULL where there is none. */
struct device *device_of(CUdevice ordinal);
CUresult device_free_bytes(const struct device *device, size_t *bytes);

CUcontext context_current(void);

/* Host memory that stands for device memory: aligned to a granule, no page of it taken before it is touched. */
void *backing_map(size_t size, int protection);
void backing_unmap(void *base, size_t size);

#endif
