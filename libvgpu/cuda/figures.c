#include "cuda/figures.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>

/* NVML's API as far as it is used here (nvml.h); its header can't be included beside cuda.h's internal names. */
struct process_info {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

#define USED_UNKNOWN (~0ull) /* NVML_VALUE_NOT_AVAILABLE */

static struct {
    bool tried, works;
    int (*handle)(const char *uuid, void **device);
    int (*processes)(void *device, unsigned *count, struct process_info *infos);
} nvml;

static void *_Atomic real_nvml;

/* Loaded by its SONAME, so that it is libvgpu's: the program that loads NVML later finds the same one and sees its
 * share. The functions are the real ones, which come with it as a dependency. */
void figures_load(void)
{
    if (!atomic_load(&real_nvml) && dlopen("libnvidia-ml.so.1", RTLD_LAZY))
        atomic_store(&real_nvml, dlopen(RUNAI_DIR "/real/libnvidia-ml.so.1", RTLD_LAZY | RTLD_NOLOAD));
}

static void start(void *real)
{
    int (*init)(void);
    nvml.tried = true;
    *(void **)&init = dlsym(real, "nvmlInit_v2");
    *(void **)&nvml.handle = dlsym(real, "nvmlDeviceGetHandleByUUID");
    *(void **)&nvml.processes = dlsym(real, "nvmlDeviceGetComputeRunningProcesses_v3");
    if (!nvml.processes) /* the same layout, under the name that drivers before R510 have */
        *(void **)&nvml.processes = dlsym(real, "nvmlDeviceGetComputeRunningProcesses_v2");
    nvml.works = init && nvml.handle && nvml.processes && init() == 0;
}

int figures_of_driver(const char *uuid, struct process_figure figures[FIGURES])
{
    struct process_info infos[FIGURES];
    unsigned count = FIGURES;
    void *device;
    void *real = atomic_load(&real_nvml);
    if (!nvml.tried && real)
        start(real);
    if (!nvml.works || nvml.handle(uuid, &device) != 0 || nvml.processes(device, &count, infos) != 0)
        return -1;
    int known = 0;
    for (unsigned i = 0; i < count && i < FIGURES; i++)
        if (infos[i].used != USED_UNKNOWN)
            figures[known++] = (struct process_figure){.pid = infos[i].pid, .bytes = infos[i].used};
    return known;
}
