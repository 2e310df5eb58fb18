/* The table of blocks. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memory.h"

static struct block **table;
static size_t count, capacity;

/* Index of the first block that begins behind the address. */
static size_t behind(CUdeviceptr address)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if ((uintptr_t)table[middle]->base <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct block *block_at(CUdeviceptr address)
{
    size_t place = behind(address);
    if (!place)
        return NULL;
    struct block *block = table[place - 1];
    return address - (uintptr_t)block->base < block->size ? block : NULL;
}

bool block_add(struct block *block)
{
    if (count == capacity) {
        size_t wider = capacity ? 2 * capacity : 64;
        struct block **grown = realloc(table, wider * sizeof(struct block *));
        if (!grown)
            return false;
        table = grown;
        capacity = wider;
    }
    size_t place = behind((uintptr_t)block->base);
    memmove(table + place + 1, table + place, (count - place) * sizeof(struct block *));
    table[place] = block;
    count++;
    return true;
}

void block_remove(struct block *block)
{
    size_t place = behind((uintptr_t)block->base);
    memmove(table + place - 1, table + place, (count - place) * sizeof(struct block *));
    count--;
}

/* Managed memory is a mapping of nvidia-uvm, as on a real host, and asked for there. */
static CUresult take_managed(struct block *block)
{
    struct sim_uvm message = {
        .base = (uintptr_t)block->base, .length = block->size, .first = block->device->info.index
    };
    uint32_t status = uvm_call(driver.uvm, SIM_UVM_MANAGED, &message);
    if (status)
        return status_to_result(status);
    /* As the real one it wants the address for the offset. */
    if (mmap(block->base, block->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, driver.uvm,
             (off_t)(uintptr_t)block->base) == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    return CUDA_SUCCESS;
}

static CUresult take(struct block *block)
{
    if (block->kind == MANAGED)
        return take_managed(block);
    if (block->kind == HOST)
        return CUDA_SUCCESS;
    return status_to_result(rm_alloc_memory(&driver.rm, block->device->handle, block->size, &block->handle));
}

CUresult block_take(struct device *device, CUcontext context, enum kind kind, size_t size, struct block **made)
{
    struct block *block = calloc(1, sizeof *block);
    if (!block)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *block = (struct block){ .size = size, .asked = size, .kind = kind, .context = context, .device = device };
    /* Addresses first: they cost nothing, and a size that is out of all bounds fails here. */
    block->base = size < (size_t)1 << 46 ? backing_map(size, PROT_READ | PROT_WRITE) : NULL;
    CUresult result = block->base ? take(block) : CUDA_ERROR_OUT_OF_MEMORY;
    if (!result && !block_add(block)) {
        if (block->handle)
            rm_free(&driver.rm, device->handle, block->handle);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result) {
        if (block->base)
            backing_unmap(block->base, size);
        free(block);
        return result;
    }
    *made = block;
    return CUDA_SUCCESS;
}

void block_give(struct block *block)
{
    block_remove(block);
    backing_unmap(block->base, block->size);
    if (block->kind == MANAGED) {
        struct sim_uvm message = { .base = (uintptr_t)block->base, .length = block->size };
        uvm_call(driver.uvm, UVM_FREE, &message);
    }
    if (block->handle)
        rm_free(&driver.rm, block->device->handle, block->handle);
    arena_end(&block->arena);
    free(block);
}

bool memory_covers(CUdeviceptr address, size_t size)
{
    while (size) {
        const struct block *block = block_at(address);
        if (!block)
            return false;
        size_t here = block->size - (address - (uintptr_t)block->base);
        if (here >= size)
            return true;
        address += here;
        size -= here;
    }
    return true;
}

void memory_free_all(CUcontext context)
{
    for (size_t i = count; i-- > 0;)
        if (table[i]->context == context)
            block_give(table[i]);
}
