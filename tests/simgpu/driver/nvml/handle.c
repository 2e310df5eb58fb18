/* Which device: by index, UUID, PCI address; and what names it. */
#include <stdio.h>

#include "library.h"

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    nvmlReturn_t result = enter();
    if (result)
        return result;
    if (!device || index >= library_count())
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *device = library_device(index);
    return leave(NVML_SUCCESS);
}
ALSO(nvmlDeviceGetHandleByIndex_v2, nvmlDeviceGetHandleByIndex);

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    nvmlReturn_t result = enter();
    if (result)
        return result;
    if (!uuid || !device)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *device = library_named(uuid);
    return leave(*device ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND);
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    unsigned domain, bus, slot;
    nvmlReturn_t result = enter();
    if (result)
        return result;
    if (!bus_id || !device || sscanf(bus_id, "%x:%x:%x", &domain, &bus, &slot) != 3)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    for (unsigned i = 0; i < library_count(); i++) {
        const struct sim_gpu *gpu = &library_device(i)->info;
        *device = library_device(i);
        if (gpu->domain == domain && gpu->bus == bus && gpu->device == slot)
            return leave(NVML_SUCCESS);
    }
    return leave(NVML_ERROR_NOT_FOUND);
}
ALSO(nvmlDeviceGetHandleByPciBusId_v2, nvmlDeviceGetHandleByPciBusId);

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    nvmlReturn_t result = enter_device(device);
    return result ? result : give_text(name, length, device->info.name);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    nvmlReturn_t result = enter_device(device);
    return result ? result : give_text(uuid, length, device->info.uuid);
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    GIVE(device, index, device->index);
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor)
{
    GIVE(device, minor, device->info.minor);
}

/* The layout of the older versions ends before busId. */
static void fill_old_pci(const struct sim_gpu *gpu, nvmlPciInfo_t *pci)
{
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, NVML_DEVICE_PCI_BUS_ID_LEGACY_FMT, gpu->domain & 0xFFFF,
             gpu->bus & 0xFF, gpu->device & 0x1F);
    pci->domain = gpu->domain;
    pci->bus = gpu->bus;
    pci->device = gpu->device;
    pci->pciDeviceId = 0x1E0710DE;
    pci->pciSubSystemId = 0x12FA10DE;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    nvmlReturn_t result = enter_device(device);
    if (result)
        return result;
    if (!pci)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    fill_old_pci(&device->info, pci);
    return leave(NVML_SUCCESS);
}
ALSO(nvmlDeviceGetPciInfo_v2, nvmlDeviceGetPciInfo);

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    nvmlReturn_t result = nvmlDeviceGetPciInfo_v2(device, pci);
    if (!result)
        snprintf(pci->busId, sizeof pci->busId, NVML_DEVICE_PCI_BUS_ID_FMT, pci->domain, pci->bus, pci->device);
    return result;
}
