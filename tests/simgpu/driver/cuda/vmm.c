/* Virtual memory management: addresses, physical memory and mappings apart. Physical memory goes back when both
 * its handle references and its mappings are gone.
 *
 * The bytes of an allocation are a shared mapping of this process (`master`); a mapping at a reserved address is
 * the same pages once more (mremap with an old size of 0), so data outlives an unmap as on a real GPU. Between
 * processes an imported handle shares the accounting, not the bytes.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "vmm.h"

struct reservation {
    char *base;
    size_t size;
    struct reservation *next;
};

static struct allocation *allocations;
static struct reservation *reservations;

struct allocation *allocation_of(CUmemGenericAllocationHandle handle)
{
    struct allocation *allocation = allocations;
    while (allocation && (uintptr_t)allocation != handle)
        allocation = allocation->next;
    return allocation && allocation->references ? allocation : NULL;
}

static void drop_unused(struct allocation *gone)
{
    if (gone->references || gone->mappings)
        return;
    struct allocation **link = &allocations;
    while (*link != gone)
        link = &(*link)->next;
    *link = gone->next;
    if (gone->master)
        munmap(gone->master, gone->size);
    if (gone->handle)
        rm_free(&driver.rm, gone->device->handle, gone->handle);
    free(gone);
}

CUresult allocation_add(const struct allocation *what, CUmemGenericAllocationHandle *handle)
{
    struct allocation *made = malloc(sizeof *made);
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *made = *what;
    made->references = 1;
    made->next = allocations;
    allocations = made;
    *handle = (uintptr_t)made;
    return CUDA_SUCCESS;
}

static CUresult create(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *props,
                       unsigned long long flags)
{
    if (!handle || !props || flags || !size || size % GRANULE || props->type != CU_MEM_ALLOCATION_TYPE_PINNED)
        return CUDA_ERROR_INVALID_VALUE;
    struct allocation what = { .props = *props, .size = size };
    if (props->location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
        what.device = device_of(props->location.id);
        if (!what.device)
            return CUDA_ERROR_INVALID_DEVICE;
        uint32_t status = rm_alloc_memory(&driver.rm, what.device->handle, size, &what.handle);
        if (status)
            return status_to_result(status);
    }
    CUresult result = allocation_add(&what, handle);
    if (result && what.handle)
        rm_free(&driver.rm, what.device->handle, what.handle);
    return result;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *props,
                     unsigned long long flags)
{
    CUresult result = enter();
    return result ? result : leave(create(handle, size, props, flags));
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    CUresult result = enter();
    if (result)
        return result;
    struct allocation *allocation = allocation_of(handle);
    if (!allocation)
        return leave(CUDA_ERROR_INVALID_VALUE);
    allocation->references--;
    drop_unused(allocation);
    return leave(CUDA_SUCCESS);
}

CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *props,
                                       CUmemAllocationGranularity_flags option)
{
    (void)option;
    CUresult result = enter();
    if (result)
        return result;
    if (!granularity || !props)
        return leave(CUDA_ERROR_INVALID_VALUE);
    *granularity = GRANULE;
    return leave(CUDA_SUCCESS);
}

static CUresult reserve(CUdeviceptr *address, size_t size, size_t alignment)
{
    if (!address || !size || size % GRANULE || (alignment & (alignment - 1)))
        return CUDA_ERROR_INVALID_VALUE;
    struct reservation *made = malloc(sizeof *made);
    char *base = size < (size_t)1 << 46 ? backing_map(size, PROT_NONE) : NULL;
    if (!made || !base) {
        free(made);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *made = (struct reservation){ .base = base, .size = size, .next = reservations };
    reservations = made;
    *address = (uintptr_t)base;
    return CUDA_SUCCESS;
}

CUresult cuMemAddressReserve(CUdeviceptr *address, size_t size, size_t alignment, CUdeviceptr wish,
                             unsigned long long flags)
{
    (void)wish;
    CUresult result = enter();
    return result ? result : leave(flags ? CUDA_ERROR_INVALID_VALUE : reserve(address, size, alignment));
}

/* Does a mapping lie in the range? */
static bool has_mapping(CUdeviceptr address, size_t size)
{
    for (size_t at = 0; at < size; at += GRANULE)
        if (block_at(address + at))
            return true;
    return false;
}

CUresult cuMemAddressFree(CUdeviceptr address, size_t size)
{
    CUresult result = enter();
    if (result)
        return result;
    for (struct reservation **link = &reservations; *link; link = &(*link)->next) {
        struct reservation *gone = *link;
        if ((uintptr_t)gone->base != address || gone->size != size)
            continue;
        if (has_mapping(address, size))
            return leave(CUDA_ERROR_INVALID_VALUE);
        *link = gone->next;
        backing_unmap(gone->base, gone->size);
        free(gone);
        return leave(CUDA_SUCCESS);
    }
    return leave(CUDA_ERROR_INVALID_VALUE);
}

static bool is_reserved(CUdeviceptr address, size_t size)
{
    for (const struct reservation *area = reservations; area; area = area->next)
        if (address >= (uintptr_t)area->base && address + size <= (uintptr_t)area->base + area->size)
            return true;
    return false;
}

/* The allocation's pages at an address, not accessible before cuMemSetAccess. */
static bool place(struct allocation *allocation, char *address, size_t size, size_t offset)
{
    if (!allocation->master) {
        char *pages = mmap(NULL, allocation->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
                           -1, 0);
        if (pages == MAP_FAILED)
            return false;
        allocation->master = pages;
    }
    if (mremap(allocation->master + offset, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, address) == MAP_FAILED)
        return false;
    return mprotect(address, size, PROT_NONE) == 0;
}

static CUresult map(CUdeviceptr address, size_t size, size_t offset, CUmemGenericAllocationHandle handle)
{
    struct allocation *allocation = allocation_of(handle);
    if (!allocation || !size || size % GRANULE || offset % GRANULE || address % GRANULE ||
        offset > allocation->size || size > allocation->size - offset)
        return CUDA_ERROR_INVALID_VALUE;
    if (!is_reserved(address, size) || has_mapping(address, size))
        return CUDA_ERROR_INVALID_VALUE;
    struct block *block = calloc(1, sizeof *block);
    if (!block || !place(allocation, (char *)(uintptr_t)address, size, offset)) {
        free(block);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *block = (struct block){
        .base = (char *)(uintptr_t)address,
        .size = size,
        .asked = size,
        .kind = MAPPED,
        .device = allocation->device ? allocation->device : &driver.devices[0],
        .allocation = allocation,
    };
    if (!block_add(block)) {
        free(block);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    allocation->mappings++;
    return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr address, size_t size, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags)
{
    CUresult result = enter();
    return result ? result : leave(flags ? CUDA_ERROR_INVALID_VALUE : map(address, size, offset, handle));
}

/* Is the range made of whole mappings, without a hole? */
static bool whole_mappings(CUdeviceptr address, size_t size)
{
    while (size) {
        const struct block *block = block_at(address);
        if (!block || block->kind != MAPPED || (uintptr_t)block->base != address || block->size > size)
            return false;
        address += block->size;
        size -= block->size;
    }
    return true;
}

CUresult cuMemUnmap(CUdeviceptr address, size_t size)
{
    CUresult result = enter();
    if (result)
        return result;
    if (!size || !whole_mappings(address, size))
        return leave(CUDA_ERROR_INVALID_VALUE);
    mmap((void *)(uintptr_t)address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    while (size) {
        struct block *block = block_at(address);
        struct allocation *allocation = block->allocation;
        address += block->size;
        size -= block->size;
        block_remove(block);
        free(block);
        allocation->mappings--;
        drop_unused(allocation);
    }
    return leave(CUDA_SUCCESS);
}

CUresult cuMemSetAccess(CUdeviceptr address, size_t size, const CUmemAccessDesc *access, size_t count)
{
    CUresult result = enter();
    if (result)
        return result;
    if (!access || !count || !size || !whole_mappings(address, size))
        return leave(CUDA_ERROR_INVALID_VALUE);
    int protection = PROT_NONE;
    for (size_t i = 0; i < count; i++) {
        if (access[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READ)
            protection |= PROT_READ;
        if (access[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
            protection |= PROT_READ | PROT_WRITE;
    }
    int failed = mprotect((void *)(uintptr_t)address, size, protection);
    return leave(failed ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS);
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *address)
{
    CUresult result = enter();
    if (result)
        return result;
    const struct block *block = block_at((uintptr_t)address);
    if (!handle || !block || block->kind != MAPPED)
        return leave(CUDA_ERROR_INVALID_VALUE);
    block->allocation->references++;
    *handle = (uintptr_t)block->allocation;
    return leave(CUDA_SUCCESS);
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *props, CUmemGenericAllocationHandle handle)
{
    CUresult result = enter();
    if (result)
        return result;
    const struct allocation *allocation = allocation_of(handle);
    if (!props || !allocation)
        return leave(CUDA_ERROR_INVALID_VALUE);
    *props = allocation->props;
    return leave(CUDA_SUCCESS);
}
