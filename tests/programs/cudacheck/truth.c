/* What the driver gave, by its own NVML, and what the account says. */
#include "cudacheck.h"

#include "account_page.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>

static const struct account_page *page;
static nvmlReturn_t (*real_memory)(nvmlDevice_t, nvmlMemory_v2_t *);
static nvmlDevice_t real_device[2];

void look_at_the_truth(void)
{
    int fd = open(RUNAI_DIR "/account/page", O_RDONLY | O_CLOEXEC);
    page = mmap(NULL, sizeof *page, PROT_READ, MAP_SHARED, fd, 0);
    close(fd); /* where there is no page, the case looks at the driver's side only */
    nvmlReturn_t (*init)(void), (*handle)(unsigned, nvmlDevice_t *);
    CHECK(dlopen("libnvidia-ml.so.1", RTLD_NOW)); /* ours, which brings the real one along */
    void *real = dlopen(RUNAI_DIR "/real/libnvidia-ml.so.1", RTLD_NOW | RTLD_NOLOAD);
    CHECK(real);
    *(void **)&init = dlsym(real, "nvmlInit_v2");
    *(void **)&handle = dlsym(real, "nvmlDeviceGetHandleByIndex_v2");
    *(void **)&real_memory = dlsym(real, "nvmlDeviceGetMemoryInfo_v2");
    CHECK(init() == 0 && handle(0, &real_device[0]) == 0 && handle(1, &real_device[1]) == 0);
}

size_t given(int gpu)
{
    nvmlMemory_v2_t memory = {.version = nvmlMemory_v2};
    CHECK(real_memory(real_device[gpu], &memory) == 0);
    return memory.used;
}

size_t account(int gpu)
{
    return (size_t)(atomic_load(&page->total[gpu]) >> 40) * GRANULE;
}

/* What a process takes besides its contexts, it takes once, and it is charged with each of them. */
static size_t charged_again(int gpu)
{
    size_t contexts = 0;
    for (size_t i = 0; i < atomic_load(&page->slots); i++)
        contexts += atomic_load(&page->slot[i].aside[gpu]) >> 32;
    return contexts > 1 ? (contexts - 1) * GRANULE : 0;
}

void same(const char *file, int line, const char *what)
{
    size_t available, all;
    cuMemGetInfo_v2(&available, &all); /* pools are looked at */
    for (int gpu = 0; gpu < 2; gpu++)
        if (account(gpu) != given(gpu) + charged_again(gpu)) {
            fprintf(stderr, "%s:%d: GPU %d: account %zu MiB, given %zu MiB after %s\n", file, line, gpu,
                    account(gpu) / MIB, given(gpu) / MIB, what);
            _exit(1);
        }
}

CUcontext primary(CUdevice device)
{
    CUcontext context;
    OK(cuDevicePrimaryCtxRetain(&context, device));
    OK(cuCtxSetCurrent(context));
    return context;
}
