/* NVML's lists of processes: of those that the driver lists, the container's own, each with what it holds of the share.
 *
 * Its own are those that stand in the agent's list or, without an agent, in its account: what it shows is what it counts. With a pid namespace of the host's, the
 * driver lists the neighbours' processes too, and a process that isn't in the account can't be told from one of those. */
#include "cancel.h"
#include "nvml/container.h"
#include "nvml/processes.h"

#include <stdlib.h>
#include <string.h>

/* What figures.c takes for NVML's records. */
_Static_assert(sizeof(nvmlProcessInfo_v1_t) == 16 && sizeof(nvmlProcessInfo_v2_t) == 24, "as in figures.c");
_Static_assert(offsetof(nvmlProcessInfo_v2_t, usedGpuMemory) == 8 && offsetof(nvmlProcessInfo_v2_t, gpuInstanceId) == 16 &&
                   offsetof(nvmlProcessInfo_v2_t, computeInstanceId) == 20,
               "as in figures.c");

/* Who asks for a list, and what the agent or the account said before the driver was asked. */
struct viewer {
    nvmlReturn_t found; /* of container_find(); the rest is only there on success */
    struct container container;
    struct figures counted; /* the agent's list */
    struct held_snapshot before;
};

/* What is looked at is given back by end(). */
static void begin(struct viewer *viewer, nvmlDevice_t device)
{
    viewer->counted = (struct figures){0};
    viewer->found = container_find(device, &viewer->container);
    if (viewer->found != NVML_SUCCESS)
        return;
    const struct container *container = &viewer->container;
    if (!container->agent)
        outside_snapshot(container->page, container->gpu, &viewer->before);
    else if (!agent_processes(container->agent, container->gpu, &viewer->counted))
        viewer->found = NVML_ERROR_MEMORY;
}

static void end(struct viewer *viewer)
{
    free(viewer->counted.list);
}

/* As own() where an agent counts: both lists name a process as it names itself in the container. Managed memory is in the
 * account alone. */
static bool own_of_agent(const struct viewer *viewer, struct process_figure *figure)
{
    const struct figures *counted = &viewer->counted;
    size_t i = 0;
    while (i < counted->count && counted->list[i].pid != figure->pid)
        i++;
    if (i == counted->count)
        return false;
    figure->bytes = counted->list[i].bytes + container_managed(&viewer->container, figure->pid);
    return true;
}

/* Puts what a process holds into its FIGURE: its part of the account, managed memory included, and what it holds
 * outside of it. The sum of all is what nvmlDeviceGetMemoryInfo calls used. false when it isn't one of the container's. */
static bool own(const struct viewer *viewer, struct process_figure *figure)
{
    const struct container *container = &viewer->container;
    if (container->agent)
        return own_of_agent(viewer, figure);
    int slot = account_find(container->page, &container->self, figure->pid);
    if (slot < 0)
        return false;
    uint64_t held = account_held(container->page, (unsigned)slot, container->gpu);
    held += outside_of_process(container->page, (unsigned)slot, container->gpu, &viewer->before, figure);
    figure->bytes = held << ACCOUNT_GRANULE_SHIFT;
    return true;
}

/* Leaves the container's own in FIGURES. */
static void keep_own_figures(const struct viewer *viewer, struct figures *figures)
{
    size_t kept = 0;
    for (size_t i = 0; i < figures->count; i++)
        if (own(viewer, &figures->list[i]))
            figures->list[kept++] = figures->list[i];
    figures->count = kept;
}

/* The container's own processes of those that SOURCE lists. */
static nvmlReturn_t own_figures(const struct figures_source *source, nvmlDevice_t device, struct figures *figures)
{
    struct viewer viewer;
    begin(&viewer, device);
    nvmlReturn_t result = (nvmlReturn_t)figures_ask(source, device, figures);
    if (result == NVML_SUCCESS && viewer.found != NVML_SUCCESS) {
        free(figures->list);
        result = viewer.found;
    }
    if (result == NVML_SUCCESS)
        keep_own_figures(&viewer, figures);
    end(&viewer);
    return result;
}

/* A list function whose real one is CALL. */
static nvmlReturn_t list(void *call, bool short_records, nvmlDevice_t device, unsigned int *count, void *infos)
{
    const struct figures_source source = {(figures_call *)call, short_records};
    struct figures figures;
    if (!count || (*count && !infos))
        return (nvmlReturn_t)source.call(device, count, infos); /* the driver has the right answer itself */
    int cancel = forbid_cancel();
    nvmlReturn_t result = own_figures(&source, device, &figures);
    if (result == NVML_SUCCESS) {
        if (*count < figures.count)
            result = NVML_ERROR_INSUFFICIENT_SIZE;
        for (size_t i = 0; result == NVML_SUCCESS && i < figures.count; i++)
            figures_write(&source, infos, i, &figures.list[i]);
        *count = (unsigned int)figures.count;
        free(figures.list);
    }
    allow_cancel(cancel);
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v1_t *infos)
{
    return list(libvgpu_real.nvmlDeviceGetComputeRunningProcesses, true, device, count, infos);
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
                                                            nvmlProcessInfo_v2_t *infos)
{
    return list(libvgpu_real.nvmlDeviceGetComputeRunningProcesses_v2, false, device, count, infos);
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                            nvmlProcessInfo_t *infos)
{
    return list(libvgpu_real.nvmlDeviceGetComputeRunningProcesses_v3, false, device, count, infos);
}

EXPORT nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t device, unsigned int *count,
                                                          nvmlProcessInfo_v1_t *infos)
{
    return list(libvgpu_real.nvmlDeviceGetGraphicsRunningProcesses, true, device, count, infos);
}

EXPORT nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
                                                             nvmlProcessInfo_v2_t *infos)
{
    return list(libvgpu_real.nvmlDeviceGetGraphicsRunningProcesses_v2, false, device, count, infos);
}

EXPORT nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                             nvmlProcessInfo_t *infos)
{
    return list(libvgpu_real.nvmlDeviceGetGraphicsRunningProcesses_v3, false, device, count, infos);
}

EXPORT nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses(nvmlDevice_t device, unsigned int *count,
                                                            nvmlProcessInfo_v1_t *infos)
{
    return list(libvgpu_real.nvmlDeviceGetMPSComputeRunningProcesses, true, device, count, infos);
}

EXPORT nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
                                                               nvmlProcessInfo_v2_t *infos)
{
    return list(libvgpu_real.nvmlDeviceGetMPSComputeRunningProcesses_v2, false, device, count, infos);
}

EXPORT nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                               nvmlProcessInfo_t *infos)
{
    return list(libvgpu_real.nvmlDeviceGetMPSComputeRunningProcesses_v3, false, device, count, infos);
}

/* All that the driver lists in that MODE, however many, in memory of malloc()'s. */
static nvmlReturn_t all_details(nvmlDevice_t device, unsigned int mode, nvmlProcessDetailList_t *all)
{
    nvmlReturn_t result = NVML_ERROR_INSUFFICIENT_SIZE;
    unsigned int room = 64;
    for (int round = 0; round < 10 && result == NVML_ERROR_INSUFFICIENT_SIZE; round++) {
        *all = (nvmlProcessDetailList_t){nvmlProcessDetailList_v1, mode, room, calloc(room, sizeof *all->procArray)};
        result = all->procArray ? REAL(nvmlDeviceGetRunningProcessDetailList)(device, all) : NVML_ERROR_MEMORY;
        if (result == NVML_SUCCESS)
            break;
        free(all->procArray);
        room = all->numProcArrayEntries + 64; /* more may have come until then */
    }
    return result;
}

/* Leaves the container's own in ALL. */
static void keep_own_details(const struct viewer *viewer, nvmlProcessDetailList_t *all)
{
    unsigned int kept = 0;
    for (unsigned int i = 0; i < all->numProcArrayEntries; i++) {
        nvmlProcessDetail_v1_t detail = all->procArray[i];
        struct process_figure figure = {.pid = detail.pid, .bytes = detail.usedGpuMemory};
        if (!own(viewer, &figure))
            continue;
        detail.usedGpuMemory = figure.bytes;
        all->procArray[kept++] = detail;
    }
    all->numProcArrayEntries = kept;
}

static nvmlReturn_t own_details(nvmlDevice_t device, nvmlProcessDetailList_t *wanted)
{
    struct viewer viewer;
    nvmlProcessDetailList_t all;
    begin(&viewer, device);
    nvmlReturn_t result = all_details(device, wanted->mode, &all);
    bool asked = result == NVML_SUCCESS;
    if (asked)
        result = viewer.found;
    if (result == NVML_SUCCESS) {
        keep_own_details(&viewer, &all);
        if (wanted->numProcArrayEntries < all.numProcArrayEntries)
            result = NVML_ERROR_INSUFFICIENT_SIZE;
        else if (all.numProcArrayEntries)
            memcpy(wanted->procArray, all.procArray, all.numProcArrayEntries * sizeof *all.procArray);
        wanted->numProcArrayEntries = all.numProcArrayEntries;
    }
    if (asked)
        free(all.procArray);
    end(&viewer);
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_t *list_of_mode)
{
    if (!list_of_mode || list_of_mode->version != nvmlProcessDetailList_v1 ||
        (list_of_mode->numProcArrayEntries && !list_of_mode->procArray))
        return REAL(nvmlDeviceGetRunningProcessDetailList)(device, list_of_mode);
    int cancel = forbid_cancel();
    nvmlReturn_t result = own_details(device, list_of_mode);
    allow_cancel(cancel);
    return result;
}

/* How many of the COUNT RECORDS are the container's own processes, which are moved to the front. */
static unsigned int keep_own_records(const struct viewer *viewer, const struct record_layout *layout, unsigned int count,
                                     char *records)
{
    unsigned int kept = 0;
    for (unsigned int i = 0; i < count; i++) {
        char *record = records + i * layout->size;
        struct process_figure figure = {0};
        memcpy(&figure.pid, record + layout->pid, sizeof figure.pid);
        memcpy(&figure.bytes, record + layout->bytes, sizeof figure.bytes);
        if (!own(viewer, &figure))
            continue;
        memcpy(record + layout->bytes, &figure.bytes, sizeof figure.bytes);
        memmove(records + kept++ * layout->size, record, layout->size);
    }
    return kept;
}

nvmlReturn_t processes_filter(records_call *call, const struct record_layout *layout, nvmlDevice_t device,
                              unsigned int *count, void *records)
{
    struct viewer viewer;
    int cancel = forbid_cancel();
    begin(&viewer, device);
    nvmlReturn_t result = call(device, count, records);
    if (result == NVML_SUCCESS && viewer.found != NVML_SUCCESS)
        result = viewer.found;
    if (result == NVML_SUCCESS && records)
        *count = keep_own_records(&viewer, layout, *count, records);
    end(&viewer);
    allow_cancel(cancel);
    return result;
}
