/* MIG: a GPU's parts, and what a process may know of a GPU that is in parts. */
#include "library.h"

#define MOST_INSTANCES 7

/* MIG is a matter of server GPUs from Ampere on; others answer that they don't have it. */
static bool has_mig(const struct nvmlDevice_st *device)
{
    return device->info.ecc >= 0 && device->info.capability_major >= 8 && device->info.capability_minor == 0;
}

/* Enter, with a handle of an instance, as these calls want it. */
static nvmlReturn_t enter_instance(nvmlDevice_t device)
{
    nvmlReturn_t result = enter_device(device);
    return result || device->gpu ? result : leave(NVML_ERROR_INVALID_ARGUMENT);
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
    nvmlReturn_t result = enter_device(device);
    if (result)
        return result;
    if (!current || !pending || device->gpu)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (!has_mig(device))
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *current = *pending = device->mig.enabled ? NVML_DEVICE_MIG_ENABLE : NVML_DEVICE_MIG_DISABLE;
    return leave(NVML_SUCCESS);
}

/* Zero where MIG is off (nvml.h). */
nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count)
{
    GIVE(device, count, device->mig.enabled ? MOST_INSTANCES : 0);
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *instance)
{
    nvmlReturn_t result = enter_device(device);
    if (result)
        return result;
    if (!instance || device->gpu || index >= MOST_INSTANCES)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (!device->mig.enabled)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *instance = library_instance(device, index);
    return leave(*instance ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND);
}

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is)
{
    GIVE(device, is, device->gpu != NULL);
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t instance, nvmlDevice_t *device)
{
    GIVE_FROM(enter_instance(instance), device, instance->gpu);
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id)
{
    GIVE_FROM(enter_instance(device), id, device->mig.gpu_instance);
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id)
{
    GIVE_FROM(enter_instance(device), id, device->mig.compute_instance);
}

/* For instances alone. */
nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes)
{
    nvmlReturn_t result = enter_device(device);
    if (result)
        return result;
    if (!attributes)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (!device->gpu)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *attributes = (nvmlDeviceAttributes_t){ .multiprocessorCount = 16,
                                            .gpuInstanceSliceCount = 1,
                                            .computeInstanceSliceCount = 1,
                                            .memorySizeMB = device->info.total >> 20 };
    return leave(NVML_SUCCESS);
}
