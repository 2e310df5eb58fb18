/* The driver's calls as its own library makes them. */
#include "rawgpu.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

const char *node_folder = "/dev", *gpu_uuid;
unsigned gpu_index;
_Atomic uint64_t interrupted;

_Noreturn void die(const char *what)
{
    fprintf(stderr, "rawgpu: %s: %s\n", what, strerror(errno));
    exit(1);
}

uint64_t number(const char *text)
{
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno || end == text || *end) {
        errno = EINVAL;
        die(text);
    }
    return value;
}

void wait_for_input(void)
{
    char byte;
    ssize_t got;
    do
        got = read(0, &byte, 1);
    while (got > 0 || (got < 0 && errno == EINTR));
}

int open_node(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", node_folder, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        die(path);
    return fd;
}

unsigned long request(unsigned escape, size_t size)
{
    return _IOC(_IOC_READ | _IOC_WRITE, 'F', escape, size);
}

struct result call(int fd, unsigned escape, void *message, size_t size, const uint32_t *status)
{
    while (ioctl(fd, request(escape, size), message) < 0) {
        if (errno != EINTR)
            return (struct result){.error = errno};
        interrupted++;
    }
    return (struct result){.status = *status};
}

struct rm_alloc alloc_message(const struct gpu *gpu, uint32_t cls, void *params, size_t size)
{
    return (struct rm_alloc){
        .root = gpu->client,
        .parent = gpu->device,
        .cls = cls,
        .params = (uintptr_t)params,
        .params_size = (uint32_t)size,
    };
}

struct result alloc_class(const struct gpu *gpu, uint32_t cls, void *params, size_t size, uint32_t *handle)
{
    struct rm_alloc message = alloc_message(gpu, cls, params, size);
    struct result result = call(gpu->fd, ESC_ALLOC, &message, sizeof message, &message.status);
    *handle = message.handle;
    return result;
}

struct result alloc_memory(const struct gpu *gpu, uint64_t *size, uint32_t *handle)
{
    struct rm_memory_params params = {.owner = OWNER, .size = *size};
    struct result result = alloc_class(gpu, CLASS_MEMORY_LOCAL_USER, &params, sizeof params, handle);
    *size = params.size;
    return result;
}

struct result free_object(const struct gpu *gpu, uint32_t handle)
{
    struct rm_free message = {.root = gpu->client, .parent = gpu->device, .handle = handle};
    return call(gpu->fd, ESC_FREE, &message, sizeof message, &message.status);
}

#define GET_UUID_INFO 0x274u /* NV0000_CTRL_CMD_GPU_GET_UUID_INFO */

/* NV0000_CTRL_GPU_GET_UUID_INFO_PARAMS (ctrl0000gpu.h): a text, flags, and what the driver answers. */
struct uuid_info {
    char uuid[256];
    uint32_t flags, id, device, subdevice;
};

/* The number of the GPU among the driver's devices: it need not be that of its node. */
static uint32_t device_number(const struct gpu *gpu)
{
    if (!gpu_uuid)
        return gpu_index;
    struct uuid_info info = {.flags = 0};
    snprintf(info.uuid, sizeof info.uuid, "%s", gpu_uuid);
    struct rm_control message = {
        .client = gpu->client,
        .object = gpu->client,
        .command = GET_UUID_INFO,
        .params = (uintptr_t)&info,
        .params_size = sizeof info,
    };
    if (refused(call(gpu->fd, ESC_CONTROL, &message, sizeof message, &message.status)))
        die(gpu_uuid);
    return info.device;
}

struct gpu open_gpu(void)
{
    char name[32];
    snprintf(name, sizeof name, "nvidia%u", gpu_index);
    struct gpu gpu = {.fd = open_node("nvidiactl")};
    gpu.node = open_node(name);
    struct result result = alloc_class(&gpu, CLASS_ROOT_CLIENT, NULL, 0, &gpu.client);
    /* NV0080_ALLOC_PARAMETERS, of which the device's number comes first. */
    uint32_t device[14] = {0}, subdevice[1] = {0}, handle;
    gpu.device = gpu.client;
    if (!refused(result))
        device[0] = device_number(&gpu);
    if (!refused(result))
        result = alloc_class(&gpu, CLASS_DEVICE, device, sizeof device, &gpu.device);
    /* As every program does; the driver's list of processes is of those that have a subdevice. */
    if (!refused(result))
        result = alloc_class(&gpu, CLASS_SUBDEVICE, subdevice, sizeof subdevice, &handle);
    if (refused(result)) {
        fprintf(stderr, "rawgpu: a client and a device: ");
        print_result(result);
        exit(1);
    }
    return gpu;
}

void print_result(struct result result)
{
    if (result.error)
        printf("errno %d\n", result.error);
    else
        printf("status 0x%x\n", result.status);
    fflush(stdout);
}

void fill(const struct gpu *gpu, way *how, uint64_t size)
{
    uint64_t count = 0, bytes = 0;
    for (;;) {
        uint64_t given = size;
        uint32_t handle;
        struct result result = how(gpu, &given, &handle);
        if (refused(result)) {
            printf("%llu allocations, %llu bytes, ", (unsigned long long)count, (unsigned long long)bytes);
            print_result(result);
            return;
        }
        count++;
        bytes += given;
    }
}
