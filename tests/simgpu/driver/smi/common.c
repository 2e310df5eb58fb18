#include <stdio.h>
#include <stdlib.h>

#include "smi.h"

unsigned long long mib(unsigned long long bytes)
{
    return bytes >> 20;
}

nvmlMemory_v2_t memory_of(nvmlDevice_t device)
{
    nvmlMemory_v2_t memory = { .version = nvmlMemory_v2 };
    nvml.nvmlDeviceGetMemoryInfo_v2(device, &memory);
    return memory;
}

bool has_memory(nvmlDevice_t device)
{
    nvmlMemory_v2_t memory = { .version = nvmlMemory_v2 };
    return nvml.nvmlDeviceGetMemoryInfo_v2(device, &memory) == NVML_SUCCESS;
}

const char *usage_of(nvmlDevice_t device, char *text, unsigned size)
{
    nvmlMemory_v2_t memory = memory_of(device);
    if (!has_memory(device))
        return "N/A";
    snprintf(text, size, "%lluMiB / %6lluMiB", mib(memory.used), mib(memory.total));
    return text;
}

nvmlDevice_t instance_of(nvmlDevice_t gpu, unsigned *index)
{
    unsigned most = 0;
    nvmlDevice_t instance = NULL;
    nvml.nvmlDeviceGetMaxMigDeviceCount(gpu, &most);
    for (; *index < most; (*index)++)
        if (nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, *index, &instance) == NVML_SUCCESS)
            return instance;
    return NULL;
}

nvmlProcessInfo_t *processes_of(nvmlDevice_t device, unsigned *count)
{
    nvmlProcessInfo_t *list = NULL;
    nvmlReturn_t result;
    *count = 0;
    do { /* the list can grow between two calls */
        unsigned room = *count + 16;
        free(list);
        list = calloc(room, sizeof *list);
        *count = room;
        result = list ? nvml.nvmlDeviceGetComputeRunningProcesses_v3(device, count, list) : NVML_ERROR_MEMORY;
    } while (result == NVML_ERROR_INSUFFICIENT_SIZE);
    if (result)
        *count = 0;
    return list;
}

const char *number_or_na(nvmlReturn_t result, unsigned long long value, const char *unit, char *text, unsigned size)
{
    if (result)
        return "N/A";
    snprintf(text, size, "%llu%s", value, unit);
    return text;
}
