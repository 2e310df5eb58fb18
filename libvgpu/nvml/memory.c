/* What NVML says of a GPU's memory: the container's share, and what the container uses of it. */
#include "nvml/container.h"

struct view {
    uint64_t total, used, free; /* bytes */
};

/* DEVICE_FREE: what the whole device has free; the container can't have more than that. */
static nvmlReturn_t view_of(nvmlDevice_t device, uint64_t device_free, struct view *view)
{
    struct container container;
    nvmlReturn_t result = container_find(device, &container);
    if (result != NVML_SUCCESS)
        return result;
    view->total = container.share;
    view->used = container_used(&container, device);
    if (view->used > view->total)
        view->used = view->total;
    view->free = view->total - view->used;
    if (view->free > device_free)
        view->free = device_free;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    struct view view;
    nvmlReturn_t result = REAL(nvmlDeviceGetMemoryInfo)(device, memory);
    if (result == NVML_SUCCESS)
        result = view_of(device, memory->free, &view);
    if (result == NVML_SUCCESS) {
        memory->total = view.total;
        memory->used = view.used;
        memory->free = view.free;
    }
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    struct view view;
    nvmlReturn_t result = REAL(nvmlDeviceGetMemoryInfo_v2)(device, memory);
    if (result == NVML_SUCCESS)
        result = view_of(device, memory->free, &view);
    if (result == NVML_SUCCESS) {
        memory->total = view.total;
        memory->used = view.used;
        memory->free = view.free;
        memory->reserved = 0; /* the driver's own part is not the container's */
    }
    return result;
}
