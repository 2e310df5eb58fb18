/* Physical memory for another process, by a descriptor. */
#include <unistd.h>

#include "vmm.h"

/* A descriptor of nvidiactl carries the memory: it holds a reference for as long as it is open anywhere. */
static CUresult export_to(int *descriptor, const struct allocation *allocation)
{
    struct sim_share share = { .client = driver.rm.client, .parent_or_object = allocation->handle };
    int fd = rm_open_node("nvidiactl");
    if (fd < 0)
        return CUDA_ERROR_UNKNOWN;
    if (rm_control_on(fd, driver.rm.client, SIM_CTRL_EXPORT, &share, sizeof share)) {
        close(fd);
        return CUDA_ERROR_UNKNOWN;
    }
    *descriptor = fd;
    return CUDA_SUCCESS;
}

CUresult cuMemExportToShareableHandle(void *shareable, CUmemGenericAllocationHandle handle,
                                      CUmemAllocationHandleType type, unsigned long long flags)
{
    CUresult result = enter();
    if (result)
        return result;
    const struct allocation *allocation = allocation_of(handle);
    if (!shareable || flags || !allocation || !allocation->handle)
        return leave(CUDA_ERROR_INVALID_VALUE);
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return leave(CUDA_ERROR_NOT_SUPPORTED);
    return leave(export_to(shareable, allocation));
}

static CUresult import_from(CUmemGenericAllocationHandle *handle, int descriptor)
{
    struct sim_share share = { .client = driver.rm.client, .parent_or_object = driver.devices[0].handle };
    if (rm_control_on(descriptor, driver.rm.client, SIM_CTRL_IMPORT, &share, sizeof share))
        return CUDA_ERROR_INVALID_VALUE;
    struct allocation what = { .size = (size_t)share.granules * GRANULE, .handle = share.handle };
    for (int i = 0; i < driver.count; i++)
        if (driver.devices[i].info.index == share.parent_or_object)
            what.device = &driver.devices[i];
    if (!what.device) {
        rm_free(&driver.rm, driver.devices[0].handle, share.handle);
        return CUDA_ERROR_INVALID_DEVICE;
    }
    what.props.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    what.props.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    what.props.location.id = what.device->ordinal;
    return allocation_add(&what, handle);
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *shareable,
                                        CUmemAllocationHandleType type)
{
    CUresult result = enter();
    if (result)
        return result;
    if (!handle)
        return leave(CUDA_ERROR_INVALID_VALUE);
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return leave(CUDA_ERROR_NOT_SUPPORTED);
    return leave(import_from(handle, (int)(intptr_t)shareable));
}
