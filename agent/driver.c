#include "driver.h"
#include "node.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
    unsigned count;
    struct stat facts[NODES];
} nodes;

static struct {
    bool tried, works;
    int file;
    uint32_t root, subdevice[ACCOUNT_GPUS], instance[ACCOUNT_GPUS];
    uint64_t reserved[ACCOUNT_GPUS];
    unsigned gpus;
} own = {.file = -1};

bool driver_find_nodes(const struct config *config) {
    for (nodes.count = 0; nodes.count < config->nodes; nodes.count++)
        if (stat(config->node[nodes.count], &nodes.facts[nodes.count]) < 0)
            return false;
    return true;
}

bool driver_is_node(int fd) {
    struct stat facts;
    if (fstat(fd, &facts) < 0)
        return false;
    for (unsigned i = 0; i < nodes.count; i++)
        if (is_node(&facts, &nodes.facts[i]))
            return true;
    return false;
}

bool driver_call(int fd, uint32_t call, void *message) {
    long answer = 0;
    do
        answer = syscall(SYS_ioctl, fd, REQUEST(call), message); /* musl's ioctl takes an int */
    while (answer < 0 && (errno == EINTR || errno == EAGAIN));
    return answer >= 0;
}

static bool own_control(uint32_t object, uint32_t command, void *params, size_t size) {
    struct control control = {.client = own.root,
                              .object = object,
                              .command = command,
                              .params = (uintptr_t)params,
                              .params_size = (uint32_t)size};
    return driver_call(own.file, CALL_CONTROL, &control) && control.status == STATUS_OK;
}

static uint32_t own_object(uint32_t parent, uint32_t handle, uint32_t class, void *params, size_t size) {
    struct alloc alloc = {.root = own.root,
                          .parent = parent,
                          .handle = handle,
                          .class = class,
                          .params = (uintptr_t)params,
                          .params_size = (uint32_t)size};
    return driver_call(own.file, CALL_ALLOC, &alloc) && alloc.status == STATUS_OK ? alloc.handle : 0;
}

static bool open_gpu(unsigned gpu, const char *uuid, uint64_t reserved) {
    static struct uuid_info info;
    memset(&info, 0, sizeof info);
    (void)strncpy(info.uuid, uuid, sizeof info.uuid - 1);
    if (!own_control(own.root, CTRL_GET_UUID_INFO, &info, sizeof info))
        return false;
    own.instance[gpu] = info.device;
    own.reserved[gpu] = reserved;
    uint32_t device_params[DEVICE_PARAMS / 4] = {info.device}, subdevice_params[1] = {info.subdevice};
    uint32_t device =
        own_object(own.root, 0x5a000001u + 2 * gpu, CLASS_DEVICE, device_params, sizeof device_params);
    own.subdevice[gpu] = device ? own_object(device, 0x5a000002u + 2 * gpu, CLASS_SUBDEVICE, subdevice_params,
                                             sizeof subdevice_params)
                                : 0;
    return own.subdevice[gpu] != 0;
}

static bool start(const struct config *config) {
    /* A GPU answers while its own file is open. They stay so as long as this container uses them. */
    for (unsigned i = 1; i < config->nodes; i++)
        if (open(config->node[i], O_RDWR | O_CLOEXEC) < 0)
            return false;
    own.file = open(config->node[0], O_RDWR | O_CLOEXEC);
    struct alloc alloc = {.class = CLASS_ROOT_CLIENT};
    if (own.file < 0 || !driver_call(own.file, CALL_ALLOC, &alloc) || alloc.status != STATUS_OK)
        return false;
    own.root = alloc.handle;
    for (own.gpus = 0; own.gpus < config->gpus; own.gpus++)
        if (!open_gpu(own.gpus, config->gpu[own.gpus].uuid, config->gpu[own.gpus].reserved))
            return false;
    return true;
}

bool driver_open(const struct config *config) {
    if (!own.tried) {
        own.tried = true;
        own.works = start(config);
    }
    return own.works;
}

unsigned driver_gpus(void) {
    return own.gpus;
}

int driver_gpu(uint32_t instance) {
    for (unsigned i = 0; i < own.gpus; i++)
        if (own.instance[i] == instance)
            return (int)i;
    return -1;
}

bool driver_figures(unsigned gpu, struct pid_infos *infos) {
    return own.works && own_control(own.subdevice[gpu], CTRL_GET_PID_INFO, infos, sizeof *infos);
}

uint64_t driver_figure(const struct pid_info *info) {
    return info->result == STATUS_OK ? info->private + info->shared_owned : 0;
}

bool driver_pids(unsigned gpu, struct pids *pids) {
    *pids = (struct pids){.id = CLASS_SUBDEVICE};
    return own.works && own_control(own.subdevice[gpu], CTRL_GET_PIDS, pids, sizeof *pids);
}

bool driver_used(unsigned gpu, uint64_t *bytes) {
    static struct fb_infos infos;
    infos.count = 2;
    infos.list[0].index = FB_RAM_SIZE;
    infos.list[1].index = FB_HEAP_FREE;
    if (!own.works || !own_control(own.subdevice[gpu], CTRL_FB_GET_INFO_V2, &infos, sizeof infos))
        return false;
    uint64_t total = (uint64_t)infos.list[0].data << 10, gone = ((uint64_t)infos.list[1].data << 10) + own.reserved[gpu];
    *bytes = total > gone ? total - gone : 0;
    return true;
}
