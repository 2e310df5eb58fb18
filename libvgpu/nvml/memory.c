/* What NVML says of a GPU's memory: the container's share, and what the container uses of it.
 *
 * An instance (MIG) is a device like others here. The GPU of an instance has no share: the driver refuses to tell of it
 * whoever isn't privileged (nvml.h), and container_find() whoever is, with the same error. */
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

/* What an instance (MIG) is made of, its memory too. The older nvmlDeviceGetAttributes has a shorter record, without. */
EXPORT nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes)
{
    struct container container;
    nvmlReturn_t result = REAL(nvmlDeviceGetAttributes_v2)(device, attributes);
    if (result == NVML_SUCCESS)
        result = container_find(device, &container);
    if (result == NVML_SUCCESS && container.share >> 20 < attributes->memorySizeMB)
        attributes->memorySizeMB = container.share >> 20;
    return result;
}
