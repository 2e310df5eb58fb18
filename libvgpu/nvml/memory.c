/* What NVML says of a GPU's memory: the container's share, and what the container uses of it. NVML never takes
 * memory, so the account is only looked at. */
#include "account.h"
#include "outside.h"
#include "real.h"
#include "share_limits.h"

#include <pthread.h>

static const struct account_page *page;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void map_page(void)
{
    page = account_map(RUNAI_DIR "/account/page", false);
}

/* The line of the limits file for DEVICE, or -1. */
static int find_gpu(const struct limits *limits, nvmlDevice_t device)
{
    char uuid[NVML_DEVICE_UUID_V2_BUFFER_SIZE];
    if (REAL(nvmlDeviceGetUUID)(device, uuid, sizeof uuid) != NVML_SUCCESS)
        return -1;
    return limits_find(limits, uuid);
}

#define FIGURES 256

static uint64_t outside(const struct identity *self, unsigned gpu, nvmlDevice_t device)
{
    nvmlProcessInfo_t infos[FIGURES];
    struct process_figure figures[FIGURES];
    struct held_snapshot before;
    unsigned int count = FIGURES;
    if (!outside_possible(page, gpu))
        return 0;
    outside_snapshot(page, gpu, &before);
    if (REAL(nvmlDeviceGetComputeRunningProcesses_v3)(device, &count, infos) != NVML_SUCCESS)
        return 0;
    size_t known = 0;
    for (unsigned i = 0; i < count && i < FIGURES; i++)
        if (infos[i].usedGpuMemory != (unsigned long long)NVML_VALUE_NOT_AVAILABLE)
            figures[known++] = (struct process_figure){.pid = infos[i].pid, .bytes = infos[i].usedGpuMemory};
    return outside_granules(page, self, gpu, &before, figures, known);
}

struct view {
    uint64_t total, used, free; /* bytes */
};

/* DEVICE_FREE: what the whole device has free; the container can't have more than that. */
static nvmlReturn_t view_of(nvmlDevice_t device, uint64_t device_free, struct view *view)
{
    const struct limits *limits = limits_get();
    pthread_once(&once, map_page);
    if (!limits || !page)
        return NVML_ERROR_OPERATING_SYSTEM;
    int gpu = find_gpu(limits, device);
    if (gpu < 0)
        return NVML_ERROR_NO_PERMISSION;
    struct identity self = identity_self();
    uint64_t held = account_total_alive(page, &self, (unsigned)gpu) + outside(&self, (unsigned)gpu, device);
    view->total = limits->gpu[gpu].bytes;
    view->used = held << ACCOUNT_GRANULE_SHIFT;
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
