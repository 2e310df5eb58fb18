#ifndef SIMGPU_VMM_H
#define SIMGPU_VMM_H

#include "memory.h"

struct allocation {
    struct device *device; /* NULL: host memory */
    CUmemAllocationProp props;
    uint32_t handle;
    size_t size;
    char *master;
    unsigned references, mappings;
    struct allocation *next;
};

/* The allocation of a handle that is held; NULL where it is none. */
struct allocation *allocation_of(CUmemGenericAllocationHandle handle);
CUresult allocation_add(const struct allocation *what, CUmemGenericAllocationHandle *handle);

#endif
