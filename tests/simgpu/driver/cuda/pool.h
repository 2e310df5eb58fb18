#ifndef SIMGPU_POOL_H
#define SIMGPU_POOL_H

#include "driver.h"

struct CUmemPoolHandle_st {
    struct device *device;
    struct chunk *chunks;
    bool closed; /* destroyed by the program, kept until its last allocation is freed */
    cuuint64_t threshold, reserved, reserved_high, used, used_high;
    int reuse[3];
    struct CUmemPoolHandle_st *next;
};

/* Is it a pool that the program may use? */
bool pool_is_live(CUmemoryPool pool);

/* Give an allocation of a pool back to it. */
CUresult pool_free(CUdeviceptr address);

/* A synchronisation: every pool of the device gives unused memory back, down to its release threshold. */
void pools_settle(const struct device *device);

/* Give back everything that the device's default pool holds. */
void pool_reset(struct device *device);

#endif
