/* cuInit, the lock, and what every call checks first. */
#include "driver.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "visible.h"

struct driver driver = { .rm = { .fd = -1 }, .uvm = -1 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic enum stage { FRESH, READY, FORKED } stage;
static CUresult init_result = CUDA_ERROR_NOT_INITIALIZED;

/* As with the real driver: the child of a process that initialised CUDA can't use it. */
static void in_child(void)
{
    if (stage == READY)
        stage = FORKED;
}

__attribute__((constructor)) static void watch_fork(void)
{
    pthread_atfork(NULL, NULL, in_child);
}

CUresult status_to_result(uint32_t status)
{
    if (status == 0)
        return CUDA_SUCCESS;
    return status == ERR_NO_MEMORY ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_UNKNOWN;
}

static CUresult open_device(struct device *device, int node)
{
    uint32_t index = device->info.index, subdevice = 0;
    device->node = node;
    if (rm_alloc(&driver.rm, driver.rm.client, CLASS_DEVICE, &index, sizeof index, &device->handle) ||
        rm_alloc(&driver.rm, device->handle, CLASS_SUBDEVICE, NULL, 0, &subdevice))
        return CUDA_ERROR_UNKNOWN;
    return CUDA_SUCCESS;
}

static int by_bus(const void *one, const void *other)
{
    const struct device *a = one, *b = other;
    uint64_t left = (uint64_t)a->info.bus << 32 | a->info.index, right = (uint64_t)b->info.bus << 32 | b->info.index;
    return (left > right) - (left < right); /* instances are on the bus of their GPU */
}

static int by_speed(const void *one, const void *other)
{
    const struct device *a = one, *b = other;
    return a->info.speed != b->info.speed ? (a->info.speed < b->info.speed ? 1 : -1) : by_bus(one, other);
}

/* CUDA_DEVICE_ORDER: the fastest first, unless PCI_BUS_ID is asked for. */
static void put_in_order(void)
{
    const char *order = getenv("CUDA_DEVICE_ORDER");
    bool bus = order && strcmp(order, "PCI_BUS_ID") == 0;
    qsort(driver.devices, (size_t)driver.count, sizeof *driver.devices, bus ? by_bus : by_speed);
}

/* The GPUs whose nodes this process can open, in the driver's order, then the instances that it may use. A GPU in
 * parts is no device itself. */
static CUresult open_devices(void)
{
    struct sim_system system;
    struct sim_mig first;
    if (rm_control(&driver.rm, SIM_CTRL_SYSTEM, &system, sizeof system))
        return CUDA_ERROR_UNKNOWN;
    if (!system.gpus)
        return CUDA_ERROR_NO_DEVICE;
    if (rm_mig(&driver.rm, 0, &first))
        return CUDA_ERROR_UNKNOWN;
    driver.devices = calloc(first.devices, sizeof *driver.devices);
    if (!driver.devices)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (uint32_t i = 0; i < first.devices; i++) {
        struct device *device = &driver.devices[driver.count];
        char name[32];
        *device = (struct device){ .instance = i >= system.gpus };
        if (rm_gpu(&driver.rm, i, &device->info) || rm_mig(&driver.rm, i, &device->mig))
            return CUDA_ERROR_UNKNOWN;
        snprintf(name, sizeof name, "nvidia%u", device->info.minor);
        if (device->instance ? !rm_may_use(&device->mig) : device->mig.enabled)
            continue;
        int node = rm_open_node(name);
        if (node < 0)
            continue;
        driver.count++;
        CUresult result = open_device(device, node);
        if (result)
            return result;
    }
    put_in_order();
    driver.count = visible_devices(driver.devices, driver.count);
    driver.count = one_instance(driver.devices, driver.count);
    for (int i = 0; i < driver.count; i++)
        driver.devices[i].ordinal = i;
    return driver.count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

static CUresult start(void)
{
    if (rm_open(&driver.rm))
        return CUDA_ERROR_NO_DEVICE;
    struct sim_uvm nothing = { 0 };
    driver.uvm = rm_open_node("nvidia-uvm");
    if (driver.uvm < 0 || uvm_call(driver.uvm, UVM_INITIALIZE, &nothing))
        return CUDA_ERROR_UNKNOWN;
    return open_devices();
}

static void give_up(void)
{
    for (int i = 0; i < driver.count; i++)
        close(driver.devices[i].node);
    free(driver.devices);
    if (driver.uvm >= 0)
        close(driver.uvm);
    rm_close(&driver.rm);
    driver = (struct driver){ .rm = { .fd = -1 }, .uvm = -1 };
}

CUresult cuInit(unsigned int flags)
{
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (stage == FORKED)
        return CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&lock);
    if (stage == FRESH) {
        init_result = start();
        if (init_result)
            give_up();
        else
            stage = READY;
    }
    pthread_mutex_unlock(&lock);
    return init_result;
}

CUresult enter(void)
{
    if (stage != READY)
        return CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&lock);
    return CUDA_SUCCESS;
}

CUresult enter_context(CUcontext *context)
{
    CUresult result = enter();
    if (result)
        return result;
    *context = context_current();
    if (!*context)
        return leave(CUDA_ERROR_INVALID_CONTEXT);
    return (*context)->alive ? CUDA_SUCCESS : leave(CUDA_ERROR_CONTEXT_IS_DESTROYED);
}

CUresult leave(CUresult result)
{
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult cuDriverGetVersion(int *version)
{
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = 13000;
    return CUDA_SUCCESS;
}
