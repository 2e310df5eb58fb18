#include "nvml/container.h"
#include "cancel.h"
#include "process_memory.h"
#include "share_limits.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

/* What is used beyond the account's total takes 50 µs and more to find out: the driver's list of processes, and /proc.
 * Programs ask often, so it is looked up no more often than this, unless another process or context is there. */
#define STALE_MS 100

/* Of one GPU. */
struct look {
    uint64_t when;    /* ms; 0: never */
    uint64_t mark;    /* mark_of() then */
    uint64_t outside; /* granules that the account doesn't have */
    uint64_t left;    /* granules that it has of processes that have ended */
};

static struct {
    pthread_mutex_t lock; /* for all that follows; never held while anything is asked for */
    struct identity self;
    struct look looks[ACCOUNT_GPUS];
} *process;

static const struct account_page *page;
static pthread_once_t once = PTHREAD_ONCE_INIT;

__attribute__((constructor)) static void take_memory(void)
{
    process = process_memory(sizeof *process);
}

static void map_page(void)
{
    page = account_map(RUNAI_DIR "/account/page", false);
}

static struct identity self(void)
{
    pthread_mutex_lock(&process->lock);
    struct identity known = process->self;
    pthread_mutex_unlock(&process->lock);
    if (known.owner)
        return known;
    int cancel = forbid_cancel();
    known = identity_self();
    allow_cancel(cancel);
    pthread_mutex_lock(&process->lock);
    process->self = known;
    pthread_mutex_unlock(&process->lock);
    return known;
}

nvmlReturn_t container_find(nvmlDevice_t device, struct container *container)
{
    char uuid[NVML_DEVICE_UUID_V2_BUFFER_SIZE];
    const struct limits *limits = limits_get();
    const struct agent_page *agent = agent_view();
    if (!agent)
        pthread_once(&once, map_page);
    if (!limits || (!agent && (!page || !process)))
        return NVML_ERROR_OPERATING_SYSTEM;
    nvmlReturn_t result = REAL(nvmlDeviceGetUUID)(device, uuid, sizeof uuid);
    if (result != NVML_SUCCESS)
        return result;
    int gpu = limits_find(limits, uuid);
    if (gpu < 0)
        return NVML_ERROR_NO_PERMISSION;
    *container = (struct container){.agent = agent, .gpu = (unsigned)gpu};
    if (agent) {
        container->share = agent_share(agent, container->gpu);
    } else {
        container->page = page;
        container->self = self();
        container->share = limits->gpu[gpu].bytes;
    }
    return NVML_SUCCESS;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Another number when other processes have slots, or they have other contexts or managed memory. */
static uint64_t mark_of(const struct container *container)
{
    uint64_t mark = 1;
    for (unsigned i = 0; i < account_slots(page); i++) {
        const struct account_slot *slot = &page->slot[i];
        mark = (mark ^ atomic_load(&slot->owner)) * 0x9e3779b97f4a7c15u;
        mark = (mark ^ atomic_load(&slot->aside[container->gpu])) * 0x9e3779b97f4a7c15u;
        mark ^= mark >> 32;
    }
    return mark;
}

/* The list functions, the newest first: drivers before R510 have no _v3, drivers before R450 no _v2. */
static nvmlReturn_t ask_driver(nvmlDevice_t device, struct figures *figures)
{
    const struct figures_source sources[] = {
        {(figures_call *)libvgpu_real.nvmlDeviceGetComputeRunningProcesses_v3, false},
        {(figures_call *)libvgpu_real.nvmlDeviceGetComputeRunningProcesses_v2, false},
        {(figures_call *)libvgpu_real.nvmlDeviceGetComputeRunningProcesses, true},
    };
    int result = MISSING;
    for (size_t i = 0; i < sizeof sources / sizeof *sources && result == MISSING; i++)
        result = figures_ask(&sources[i], device, figures);
    return (nvmlReturn_t)result;
}

static uint64_t outside(const struct container *container, nvmlDevice_t device)
{
    struct held_snapshot before;
    struct figures figures;
    if (!outside_possible(page, container->gpu))
        return 0;
    outside_snapshot(page, container->gpu, &before);
    if (ask_driver(device, &figures) != NVML_SUCCESS)
        return 0;
    uint64_t sum = outside_granules(page, &container->self, container->gpu, &before, &figures);
    free(figures.list);
    return sum;
}

static struct look look(const struct container *container, nvmlDevice_t device)
{
    struct look *kept = &process->looks[container->gpu];
    uint64_t now = now_ms(), mark = mark_of(container);
    pthread_mutex_lock(&process->lock);
    struct look look = *kept;
    pthread_mutex_unlock(&process->lock);
    if (look.when && now - look.when < STALE_MS && look.mark == mark)
        return look;
    int cancel = forbid_cancel();
    look = (struct look){now, mark, outside(container, device), account_left(page, &container->self, container->gpu)};
    allow_cancel(cancel);
    pthread_mutex_lock(&process->lock);
    *kept = look;
    pthread_mutex_unlock(&process->lock);
    return look;
}

uint64_t container_used(const struct container *container, nvmlDevice_t device)
{
    if (container->agent)
        return agent_used(container->agent, container->gpu);
    struct look seen = look(container, device);
    uint64_t total = account_total(page, container->gpu);
    return ((seen.left < total ? total - seen.left : 0) + seen.outside) << ACCOUNT_GRANULE_SHIFT;
}

uint64_t container_managed(const struct container *container, uint32_t pid)
{
    pthread_once(&once, map_page);
    if (!page || !process)
        return 0;
    struct identity own = self();
    int slot = account_find(page, &own, pid);
    return slot < 0 ? 0 : account_held(page, (unsigned)slot, container->gpu) << ACCOUNT_GRANULE_SHIFT;
}
