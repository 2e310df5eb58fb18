#include "cuda/real_nvml.h"
#include "account_page.h"

#include <dlfcn.h>
#include <stdatomic.h>

static struct {
    bool tried, works;
    int (*handle)(const char *uuid, void **device);
    struct figures_source processes;
} nvml;

static void *_Atomic real_nvml;

/* Loaded by its SONAME, so that it is libvgpu's: the program that loads NVML later finds the same one and sees its
 * share. The functions are the real ones, which come with it as a dependency. */
void real_nvml_load(void)
{
    if (!atomic_load(&real_nvml) && dlopen("libnvidia-ml.so.1", RTLD_LAZY))
        atomic_store(&real_nvml, dlopen(RUNAI_DIR "/real/libnvidia-ml.so.1", RTLD_LAZY | RTLD_NOLOAD));
}

/* The newest of the list functions that this driver has: _v3 came with R510, _v2 with R450. */
static void find_processes(void *real)
{
    static const char *const names[] = {"nvmlDeviceGetComputeRunningProcesses_v3",
                                        "nvmlDeviceGetComputeRunningProcesses_v2",
                                        "nvmlDeviceGetComputeRunningProcesses"};
    const size_t versions = sizeof names / sizeof *names;
    for (size_t i = 0; i < versions && !nvml.processes.call; i++) {
        *(void **)&nvml.processes.call = dlsym(real, names[i]);
        nvml.processes.short_records = i == versions - 1;
    }
}

static void start(void *real)
{
    int (*init)(void);
    nvml.tried = true;
    *(void **)&init = dlsym(real, "nvmlInit_v2");
    *(void **)&nvml.handle = dlsym(real, "nvmlDeviceGetHandleByUUID");
    find_processes(real);
    nvml.works = init && nvml.handle && nvml.processes.call && init() == 0;
}

bool real_nvml_figures(const char *uuid, struct figures *figures)
{
    void *device;
    void *real = atomic_load(&real_nvml);
    if (!nvml.tried && real)
        start(real);
    return nvml.works && nvml.handle(uuid, &device) == 0 && figures_ask(&nvml.processes, device, figures) == 0;
}
