/* Memory of a device. The old call counts what is reserved as used, the new one shows it apart (nvml.h). Of a GPU in
 * parts they tell the sum, to who has the privilege: others ask for their instance. */
#include "library.h"

static nvmlReturn_t ask(nvmlDevice_t device, struct sim_gpu *now)
{
    nvmlReturn_t result = enter_device(device);
    if (result)
        return result;
    if (!may_see(device))
        return leave(NVML_ERROR_NO_PERMISSION);
    return leave(rm_gpu(library_rm(), device->info.index, now) ? NVML_ERROR_UNKNOWN : NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    struct sim_gpu now;
    nvmlReturn_t result = ask(device, &now);
    if (result)
        return result;
    if (!memory)
        return NVML_ERROR_INVALID_ARGUMENT;
    memory->total = now.total;
    memory->used = now.reserved + now.used;
    memory->free = now.total - memory->used;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    struct sim_gpu now;
    nvmlReturn_t result = ask(device, &now);
    if (result)
        return result;
    if (!memory)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (memory->version != nvmlMemory_v2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    memory->total = now.total;
    memory->reserved = now.reserved;
    memory->used = now.used;
    memory->free = now.total - now.reserved - now.used;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *memory)
{
    const unsigned long long mib = 1 << 20;
    nvmlReturn_t result = enter_device(device);
    if (result)
        return result;
    if (!memory)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *memory = (nvmlBAR1Memory_t){ .bar1Total = 256 * mib, .bar1Used = 1 * mib, .bar1Free = 255 * mib };
    return leave(NVML_SUCCESS);
}
