/* nvmlInit and nvmlShutdown, which are counted, and what belongs to no device. */
#include "library.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    unsigned users;
    struct rm rm;
    struct sim_system system;
    unsigned count, all; /* GPUs; with instances */
    struct nvmlDevice_st *devices;
} library = { .rm = { .fd = -1 } };

const struct rm *library_rm(void)
{
    return &library.rm;
}

unsigned library_count(void)
{
    return library.count;
}

nvmlDevice_t library_device(unsigned index)
{
    return index < library.count ? &library.devices[index] : NULL;
}

nvmlDevice_t library_named(const char *uuid)
{
    for (unsigned i = 0; i < library.all; i++)
        if (strcmp(library.devices[i].info.uuid, uuid) == 0)
            return &library.devices[i];
    return NULL;
}

nvmlDevice_t library_instance(nvmlDevice_t gpu, unsigned index)
{
    for (unsigned i = library.count; i < library.all; i++)
        if (library.devices[i].gpu == gpu && library.devices[i].index == index)
            return &library.devices[i];
    return NULL;
}

const char *library_driver_version(void)
{
    return library.system.driver_version;
}

/* Instances are numbered anew among those of their GPU that this process may use. */
static nvmlReturn_t find_instances(uint32_t devices)
{
    library.all = library.count;
    for (uint32_t i = library.system.gpus; i < devices; i++) {
        struct nvmlDevice_st *device = &library.devices[library.all];
        *device = (struct nvmlDevice_st){ .gpu = NULL };
        if (rm_gpu(&library.rm, i, &device->info) || rm_mig(&library.rm, i, &device->mig))
            return NVML_ERROR_UNKNOWN;
        for (unsigned k = 0; k < library.count; k++)
            if (library.devices[k].info.index == device->mig.gpu)
                device->gpu = &library.devices[k];
        if (!device->gpu || !rm_may_use(&device->mig))
            continue;
        while (library_instance(device->gpu, device->index))
            device->index++;
        library.all++;
    }
    return NVML_SUCCESS;
}

static int by_bus(const void *one, const void *other)
{
    const struct nvmlDevice_st *a = one, *b = other;
    return (a->info.bus > b->info.bus) - (a->info.bus < b->info.bus);
}

static nvmlReturn_t find_devices(void)
{
    struct sim_mig first;
    if (rm_control(&library.rm, SIM_CTRL_SYSTEM, &library.system, sizeof library.system))
        return NVML_ERROR_UNKNOWN;
    if (library.system.gpus == 0)
        return NVML_SUCCESS;
    if (rm_mig(&library.rm, 0, &first))
        return NVML_ERROR_UNKNOWN;
    library.devices = calloc(first.devices, sizeof *library.devices);
    if (!library.devices)
        return NVML_ERROR_MEMORY;
    for (uint32_t i = 0; i < library.system.gpus; i++) {
        struct nvmlDevice_st *device = &library.devices[library.count];
        char name[32];
        if (rm_gpu(&library.rm, i, &device->info) || rm_mig(&library.rm, i, &device->mig))
            return NVML_ERROR_UNKNOWN;
        snprintf(name, sizeof name, "nvidia%u", device->info.minor);
        int node = rm_open_node(name);
        if (node < 0)
            continue;
        close(node);
        library.count++;
    }
    qsort(library.devices, library.count, sizeof *library.devices, by_bus);
    for (unsigned i = 0; i < library.count; i++)
        library.devices[i].index = i;
    return find_instances(first.devices);
}

static void stop(void)
{
    rm_close(&library.rm);
    free(library.devices);
    library.devices = NULL;
    library.count = library.all = 0;
}

static nvmlReturn_t start(void)
{
    if (library.users++)
        return NVML_SUCCESS;
    nvmlReturn_t result = rm_open(&library.rm) ? NVML_ERROR_DRIVER_NOT_LOADED : find_devices();
    if (result) {
        stop();
        library.users = 0;
    }
    return result;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags; /* they say whether GPUs are wanted; none is an error in neither case */
    pthread_mutex_lock(&lock);
    return leave(start());
}

nvmlReturn_t nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}
ALSO(nvmlInit_v2, nvmlInit);

nvmlReturn_t nvmlShutdown(void)
{
    nvmlReturn_t result = enter();
    if (result)
        return result;
    if (--library.users == 0)
        stop();
    return leave(NVML_SUCCESS);
}

nvmlReturn_t enter(void)
{
    pthread_mutex_lock(&lock);
    return library.users ? NVML_SUCCESS : leave(NVML_ERROR_UNINITIALIZED);
}

nvmlReturn_t enter_device(nvmlDevice_t device)
{
    nvmlReturn_t result = enter();
    if (result)
        return result;
    bool own = device >= library.devices && device < library.devices + library.all;
    return own ? NVML_SUCCESS : leave(NVML_ERROR_INVALID_ARGUMENT);
}

nvmlReturn_t leave(nvmlReturn_t result)
{
    pthread_mutex_unlock(&lock);
    return result;
}

bool may_see(nvmlDevice_t device)
{
    struct sim_mig now;
    return !device->mig.enabled || (rm_mig(&library.rm, device->info.index, &now) == 0 && now.whole);
}

nvmlReturn_t give_text(char *place, unsigned length, const char *text)
{
    if (!place)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (strlen(text) >= length)
        return leave(NVML_ERROR_INSUFFICIENT_SIZE);
    strcpy(place, text);
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    nvmlReturn_t result = enter();
    return result ? result : give_text(version, length, library.system.driver_version);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    char text[96];
    nvmlReturn_t result = enter();
    if (result)
        return result;
    snprintf(text, sizeof text, "13.%.80s", library.system.driver_version);
    return give_text(version, length, text);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    nvmlReturn_t result = enter();
    if (result)
        return result;
    if (!version)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *version = (int)library.system.cuda_version;
    return leave(NVML_SUCCESS);
}
ALSO(nvmlSystemGetCudaDriverVersion_v2, nvmlSystemGetCudaDriverVersion);

nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    char path[64], text[1024] = "";
    nvmlReturn_t result = enter();
    if (result)
        return result;
    if (!name || !length)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return leave(NVML_ERROR_NOT_FOUND);
    size_t got = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[got] = 0; /* the first argument ends at its own zero */
    snprintf(name, length, "%s", text);
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    nvmlReturn_t result = enter();
    if (result)
        return result;
    if (!count)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *count = library.count;
    return leave(NVML_SUCCESS);
}
ALSO(nvmlDeviceGetCount_v2, nvmlDeviceGetCount);
