#ifndef SIMGPU_POOL_H
#define SIMGPU_POOL_H

#include "driver.h"

/* Give an allocation of a pool back to it. */
CUresult pool_free(CUdeviceptr address);

/* A synchronisation: every pool of the device gives unused memory back, down to its release threshold. */
void pools_settle(const struct device *device);

/* Give back everything that the device's default pool holds. */
void pool_reset(struct device *device);

#endif
