/* Every range of addresses that stands for device memory, in one table sorted by address. */
#ifndef SIMGPU_MEMORY_H
#define SIMGPU_MEMORY_H

#include "arena.h"
#include "driver.h"

enum kind { LARGE, SMALL, MANAGED, POOLED, MAPPED, HOST };

struct block {
    char *base;
    size_t size;  /* as taken */
    size_t asked; /* bytes that the program asked for; LARGE, MANAGED, HOST */
    enum kind kind;
    CUcontext context; /* NULL: the device's own (pools, mappings) */
    struct device *device;
    uint32_t handle;
    struct arena arena;                /* SMALL, POOLED */
    struct CUmemPoolHandle_st *pool;   /* POOLED */
    struct allocation *allocation;     /* MAPPED */
};

/* The block that an address lies in; NULL where there is none. */
struct block *block_at(CUdeviceptr address);
bool block_add(struct block *block);
void block_remove(struct block *block);

/* Device memory of its own with addresses for it. Takes a multiple of the granule. */
CUresult block_take(struct device *device, CUcontext context, enum kind kind, size_t size, struct block **block);
void block_give(struct block *block);

/* Does the range lie in device memory altogether? */
bool memory_covers(CUdeviceptr address, size_t size);
CUresult memory_alloc(CUcontext context, size_t size, CUdeviceptr *address);
CUresult memory_free(CUdeviceptr address);
void memory_free_all(CUcontext context);
/* Start and length of the allocation that an address lies in. */
CUresult memory_range(CUdeviceptr address, CUdeviceptr *start, size_t *length);

static inline size_t round_up(size_t size, size_t step)
{
    return (size + step - 1) / step * step;
}

#endif
