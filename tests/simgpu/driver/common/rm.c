#include "rm.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* The folder of a library that lies at DIR/lib/NAME gives DIR/dev, if there are nodes in it. There is no
 * environment variable for it: the real driver has none, and programs in containers must not be able to choose. */
static void node_folder(char *folder, size_t size)
{
    static const char own = 0;
    Dl_info info;
    snprintf(folder, size, "/dev");
    if (!dladdr(&own, &info) || !info.dli_fname)
        return;
    char path[PATH_MAX], probe[PATH_MAX + 16];
    if ((size_t)snprintf(path, sizeof path, "%s", info.dli_fname) >= sizeof path)
        return;
    for (int level = 0; level < 2; level++) {
        char *slash = strrchr(path, '/');
        if (!slash || (level == 1 && strcmp(slash, "/lib") != 0))
            return;
        *slash = 0;
    }
    snprintf(probe, sizeof probe, "%s/dev/nvidiactl", path);
    if (access(probe, F_OK) == 0)
        snprintf(folder, size, "%s/dev", path);
}

static int open_node(const char *name, int mode)
{
    char folder[PATH_MAX + 8], path[PATH_MAX + 64];
    node_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return open(path, mode | O_CLOEXEC);
}

int rm_open_node(const char *name)
{
    return open_node(name, O_RDWR);
}

bool rm_may_use(const struct sim_mig *instance)
{
    for (int i = 0; i < 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "nvidia-caps/nvidia-cap%u", instance->minors[i]);
        int node = open_node(name, O_RDONLY);
        if (node < 0)
            return false;
        close(node);
    }
    return true;
}

static unsigned long request(unsigned number, size_t size)
{
    return _IOC(_IOC_READ | _IOC_WRITE, 'F', number, size);
}

static int call(int fd, unsigned long what, void *message)
{
    int answer;
    do
        answer = ioctl(fd, what, message);
    while (answer < 0 && (errno == EINTR || errno == EAGAIN));
    return answer;
}

static uint32_t alloc_on(int fd, struct rm_alloc *message)
{
    if (call(fd, request(ESC_ALLOC, sizeof *message), message) < 0)
        return RM_IO;
    return message->status;
}

uint32_t rm_open(struct rm *rm)
{
    rm->fd = rm_open_node("nvidiactl");
    if (rm->fd < 0)
        return RM_IO;
    struct rm_alloc message = { .cls = CLASS_ROOT_CLIENT };
    uint32_t status = alloc_on(rm->fd, &message);
    rm->client = message.handle;
    if (status)
        rm_close(rm);
    return status;
}

void rm_close(struct rm *rm)
{
    if (rm->fd >= 0)
        close(rm->fd);
    rm->fd = -1;
}

uint32_t rm_alloc(const struct rm *rm, uint32_t parent, uint32_t cls, void *params, size_t size, uint32_t *handle)
{
    struct rm_alloc message = {
        .root = rm->client,
        .parent = parent,
        .handle = *handle,
        .cls = cls,
        .params = (uintptr_t)params,
        .params_size = (uint32_t)size,
    };
    uint32_t status = alloc_on(rm->fd, &message);
    *handle = status ? 0 : message.handle;
    return status;
}

uint32_t rm_alloc_memory(const struct rm *rm, uint32_t device, uint64_t size, uint32_t *handle)
{
    struct rm_memory_params params = { .size = size };
    *handle = 0;
    return rm_alloc(rm, device, CLASS_MEMORY_LOCAL_USER, &params, sizeof params, handle);
}

uint32_t rm_free(const struct rm *rm, uint32_t parent, uint32_t handle)
{
    struct rm_free message = { .root = rm->client, .parent = parent, .handle = handle };
    if (call(rm->fd, request(ESC_FREE, sizeof message), &message) < 0)
        return RM_IO;
    return message.status;
}

uint32_t rm_control_on(int fd, uint32_t client, uint32_t command, void *params, size_t size)
{
    struct rm_control message = {
        .client = client,
        .object = client,
        .command = command,
        .params = (uintptr_t)params,
        .params_size = (uint32_t)size,
    };
    if (call(fd, request(ESC_CONTROL, sizeof message), &message) < 0)
        return RM_IO;
    return message.status;
}

uint32_t rm_control(const struct rm *rm, uint32_t command, void *params, size_t size)
{
    return rm_control_on(rm->fd, rm->client, command, params, size);
}

uint32_t rm_gpu(const struct rm *rm, uint32_t index, struct sim_gpu *gpu)
{
    memset(gpu, 0, sizeof *gpu);
    gpu->index = index;
    return rm_control(rm, SIM_CTRL_GPU, gpu, sizeof *gpu);
}

uint32_t rm_mig(const struct rm *rm, uint32_t index, struct sim_mig *mig)
{
    memset(mig, 0, sizeof *mig);
    mig->index = index;
    return rm_control(rm, SIM_CTRL_MIG, mig, sizeof *mig);
}

uint32_t uvm_call(int fd, unsigned long number, struct sim_uvm *message)
{
    if (call(fd, number, message) < 0)
        return RM_IO;
    return message->status;
}
