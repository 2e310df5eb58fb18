#ifndef SIMGPU_VISIBLE_H
#define SIMGPU_VISIBLE_H

#include "driver.h"

/* Order and choose devices as CUDA_VISIBLE_DEVICES says; the number that is left. */
int visible_devices(struct device *devices, int count);

/* A process that has an instance (MIG) has that one alone: the number that is left. */
int one_instance(struct device *devices, int count);

#endif
