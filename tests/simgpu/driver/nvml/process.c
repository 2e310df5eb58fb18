/* Lists of processes. The versions differ in the record's layout only. */
#include <stdlib.h>

#include "library.h"

#define NO_INSTANCE 0xFFFFFFFF
#define INSTANCE(device, id) ((device)->gpu ? (device)->mig.id : NO_INSTANCE)

/* Room for this many in the first question; asked again with more where there are more. */
#define FIRST_ROOM 64

struct answer {
    struct sim_processes head;
    struct sim_process list[];
};

static nvmlReturn_t ask(nvmlDevice_t device, struct answer **answer)
{
    if (!may_see(device))
        return NVML_ERROR_NO_PERMISSION;
    for (uint32_t room = FIRST_ROOM;;) {
        size_t size = sizeof **answer + room * sizeof(struct sim_process);
        *answer = calloc(1, size);
        if (!*answer)
            return NVML_ERROR_MEMORY;
        (*answer)->head = (struct sim_processes){ .index = device->info.index, .count = room };
        if (rm_control(library_rm(), SIM_CTRL_PROCESSES, *answer, size)) {
            free(*answer);
            return NVML_ERROR_UNKNOWN;
        }
        if ((*answer)->head.count <= room)
            return NVML_SUCCESS;
        room = (*answer)->head.count + FIRST_ROOM;
        free(*answer);
    }
}

static nvmlReturn_t list(nvmlDevice_t device, unsigned *count, void *infos, bool old)
{
    nvmlReturn_t result = enter_device(device);
    if (result)
        return result;
    struct answer *answer;
    if (!count || (*count && !infos))
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    result = ask(device, &answer);
    if (result)
        return leave(result);
    unsigned room = *count;
    *count = answer->head.count;
    for (unsigned i = 0; room >= *count && i < *count; i++) {
        const struct sim_process *process = &answer->list[i];
        if (old)
            ((nvmlProcessInfo_v1_t *)infos)[i] =
                (nvmlProcessInfo_v1_t){ .pid = process->pid, .usedGpuMemory = process->bytes };
        else
            ((nvmlProcessInfo_t *)infos)[i] = (nvmlProcessInfo_t){
                .pid = process->pid,
                .usedGpuMemory = process->bytes,
                .gpuInstanceId = INSTANCE(device, gpu_instance),
                .computeInstanceId = INSTANCE(device, compute_instance),
            };
    }
    free(answer);
    return leave(room < *count ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                     nvmlProcessInfo_t *infos)
{
    return list(device, count, infos, false);
}
ALSO(nvmlDeviceGetComputeRunningProcesses_v3, nvmlDeviceGetComputeRunningProcesses_v2);

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned int *count,
                                                  nvmlProcessInfo_v1_t *infos)
{
    return list(device, count, infos, true);
}

/* No graphics and no MPS here: lists without an entry. */
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                      nvmlProcessInfo_t *infos)
{
    (void)infos;
    GIVE(device, count, 0);
}
ALSO(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlDeviceGetGraphicsRunningProcesses_v2);
ALSO(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlDeviceGetMPSComputeRunningProcesses_v3);
ALSO(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlDeviceGetMPSComputeRunningProcesses_v2);

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t device, unsigned int *count,
                                                   nvmlProcessInfo_v1_t *infos)
{
    (void)infos;
    GIVE(device, count, 0);
}
ALSO(nvmlDeviceGetGraphicsRunningProcesses, nvmlDeviceGetMPSComputeRunningProcesses);

static bool lists_compute(unsigned mode)
{
    return mode == NVML_PROCESS_MODE_COMPUTE || mode == NVML_PROCESS_MODE_ALL;
}

static nvmlReturn_t details(nvmlDevice_t device, nvmlProcessDetailList_t *plist)
{
    struct answer *answer;
    nvmlReturn_t result = ask(device, &answer);
    if (result)
        return result;
    unsigned room = plist->numProcArrayEntries;
    plist->numProcArrayEntries = lists_compute(plist->mode) ? answer->head.count : 0;
    for (unsigned i = 0; room >= plist->numProcArrayEntries && i < plist->numProcArrayEntries; i++)
        plist->procArray[i] = (nvmlProcessDetail_v1_t){
            .pid = answer->list[i].pid,
            .usedGpuMemory = answer->list[i].bytes,
            .gpuInstanceId = INSTANCE(device, gpu_instance),
            .computeInstanceId = INSTANCE(device, compute_instance),
        };
    free(answer);
    return room < plist->numProcArrayEntries ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_t *plist)
{
    nvmlReturn_t result = enter_device(device);
    if (result)
        return result;
    if (!plist || (plist->numProcArrayEntries && !plist->procArray) || plist->mode >= NVML_PROCESS_MODE_MAX)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (plist->version != nvmlProcessDetailList_v1)
        return leave(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    return leave(details(device, plist));
}
