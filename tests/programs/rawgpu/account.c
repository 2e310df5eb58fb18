/* What would have the agent's account and the driver's memory differ. */
#include "rawgpu.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

/* A context under the handle of memory, which the driver refuses; and again, until no memory is left. */
static void namesake(char **arguments)
{
    struct gpu gpu = open_gpu();
    uint64_t count = 0, bytes = 0;
    for (;;) {
        uint64_t size = number(arguments[0]) * MIB;
        uint32_t handle;
        struct result result = alloc_memory(&gpu, &size, &handle);
        if (refused(result)) {
            printf("%llu allocations, %llu bytes, ", (unsigned long long)count, (unsigned long long)bytes);
            print_result(result);
            return;
        }
        count++;
        bytes += size;
        uint8_t params[128] = {0};
        params[12] = ENGINE_GRAPHICS;
        struct rm_alloc message = alloc_message(&gpu, CLASS_CHANNEL_GROUP, params, sizeof params);
        message.handle = handle;
        (void)call(gpu.fd, ESC_ALLOC, &message, sizeof message, &message.status);
    }
}

/* Contexts in the 32-byte form. */
static void oldcontext(char **arguments)
{
    struct gpu gpu = open_gpu();
    uint64_t most = number(arguments[0]), count = 0;
    struct result result = {0};
    for (; count < most; count++) {
        uint8_t params[128] = {[12] = ENGINE_GRAPHICS};
        struct rm_alloc_old message = {
            .root = gpu.client, .parent = gpu.device, .cls = CLASS_CHANNEL_GROUP, .params = (uintptr_t)params,
        };
        result = call(gpu.fd, ESC_ALLOC, &message, sizeof message, &message.status);
        if (refused(result))
            break;
    }
    printf("%llu contexts, ", (unsigned long long)count);
    print_result(result);
}

/* A process names a client that its child makes then through another file, and ends. */
static void foreclaim(char **arguments)
{
    enum { ROOT = 0xabcd0001 };
    struct gpu other = open_gpu(), claimed = other;
    uint64_t size = number(arguments[0]) * MIB;
    uint32_t handle, device[14] = {gpu_index};
    claimed.client = ROOT;
    (void)alloc_memory(&claimed, &size, &handle);
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        die("fork");
    if (child > 0) {
        wait_for_input();
        _exit(0);
    }
    struct gpu gpu = {.fd = open_node("nvidiactl"), .client = ROOT, .device = ROOT};
    struct rm_alloc message = {.handle = ROOT, .cls = CLASS_ROOT_CLIENT};
    struct result result = call(gpu.fd, ESC_ALLOC, &message, sizeof message, &message.status);
    if (!refused(result))
        result = alloc_class(&gpu, CLASS_DEVICE, device, sizeof device, &gpu.device);
    if (!refused(result))
        result = alloc_memory(&gpu, &size, &handle);
    if (refused(result)) {
        print_result(result);
        _exit(1);
    }
    kill(parent, SIGKILL);
    while (getppid() == parent)
        usleep(1000);
    uint64_t more = size;
    result = alloc_memory(&gpu, &more, &handle);
    printf("%llu bytes, then ", (unsigned long long)size);
    print_result(result);
    wait_for_input();
    _exit(0);
}

static void *say_and_wait(void *nothing)
{
    (void)nothing;
    usleep(400000); /* some looks of the agent's */
    printf("ready\n");
    fflush(stdout);
    wait_for_input();
    _exit(0);
}

/* The first thread ends, another goes on. */
static void leaderless(char **arguments)
{
    struct gpu gpu = open_gpu();
    uint64_t size = number(arguments[0]) * MIB;
    uint32_t handle;
    pthread_t thread;
    struct result result = alloc_memory(&gpu, &size, &handle);
    if (refused(result)) {
        print_result(result);
        return;
    }
    if (pthread_create(&thread, NULL, say_and_wait, NULL) != 0)
        die("a thread");
    pthread_exit(NULL);
}

static void *alloc_and_wait(void *argument)
{
    pid_t leader = getpid();
    char path[64], state[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)leader);
    while (!strstr(state, ") Z")) { /* until the first thread has ended */
        int fd = open(path, O_RDONLY);
        ssize_t length = read(fd, state, sizeof state - 1);
        state[length > 0 ? length : 0] = '\0';
        close(fd);
    }
    struct gpu gpu = open_gpu();
    uint64_t size = *(uint64_t *)argument;
    uint32_t handle;
    print_result(alloc_memory(&gpu, &size, &handle));
    wait_for_input();
    _exit(0);
}

/* The first thread has ended before the GPU is first used. */
static void lateuse(char **arguments)
{
    static uint64_t size;
    pthread_t thread;
    size = number(arguments[0]) * MIB;
    if (pthread_create(&thread, NULL, alloc_and_wait, &size) != 0)
        die("a thread");
    pthread_exit(NULL);
}

static struct {
    _Atomic uint32_t *class;
    _Atomic int64_t delay; /* ns; below 0: none is due */
    _Atomic bool stop;
} late = {.delay = -1};

static int64_t nanoseconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000 + time.tv_nsec;
}

static void *swap_late(void *nothing)
{
    while (!late.stop) {
        int64_t delay = late.delay;
        if (delay < 0)
            continue;
        for (int64_t end = nanoseconds() + delay; nanoseconds() < end;)
            ;
        *late.class = CLASS_MEMORY_LOCAL_USER;
        late.delay = -1;
    }
    return nothing;
}

/* Until it worked, or until the agent saw it: whether it worked. */
static bool swap_once(uint64_t size)
{
    struct gpu gpu = open_gpu();
    struct rm_memory_params params = {.size = size};
    struct rm_alloc message = alloc_message(&gpu, CLASS_MEMORY_SYSTEM, &params, sizeof params);
    struct result result = {0};
    pthread_t thread;
    late.class = (_Atomic uint32_t *)&message.cls;
    if (pthread_create(&thread, NULL, swap_late, NULL) != 0)
        die("a thread");
    for (int64_t delay = 500000; params.size == size && !refused(result); delay = delay * 99 / 100) {
        message.cls = CLASS_MEMORY_SYSTEM;
        message.handle = 0;
        late.delay = delay;
        result = call(gpu.fd, ESC_ALLOC, &message, sizeof message, &message.status);
        while (late.delay >= 0)
            ;
    }
    return !refused(result);
}

/* System memory, of which another thread makes the device's only after the look: the agent never sees a request for it
 * by the process in which it works. */
static void swaplate(char **arguments)
{
    uint64_t size = number(arguments[0]) * MIB - 1; /* the driver rounds up what it takes of the device */
    int status;
    do {
        pid_t child = fork();
        if (child < 0)
            die("fork");
        if (child == 0) {
            if (!swap_once(size))
                _exit(1);
            sleep(1); /* some looks of the agent's */
            _exit(0);
        }
        if (waitpid(child, &status, 0) < 0)
            die("waitpid");
    } while (WIFEXITED(status) && WEXITSTATUS(status) == 1);
    printf("%s\n", WIFSIGNALED(status) ? "ended" : "kept");
    fflush(stdout);
}

/* A process takes memory as above and ends at once, while its child has the file; all are in the hands of a first one, as in
 * a container. */
static void swaporphan(char **arguments)
{
    uint64_t size = number(arguments[0]) * MIB - 1;
    int alive[2], taken[2];
    char byte;
    if (pipe(alive) < 0 || pipe(taken) < 0)
        die("pipe");
    printf("ready\n");
    fflush(stdout);
    wait_for_input();
    do {
        if (fork() == 0) {
            bool worked = swap_once(size);
            if (worked && fork() == 0) {
                close(alive[1]);
                (void)!read(alive[0], &byte, 1); /* until the first one has ended */
                _exit(0);
            }
            (void)!write(taken[1], worked ? "y" : "n", 1);
            _exit(0);
        }
        if (read(taken[0], &byte, 1) != 1)
            die("read");
    } while (byte == 'n');
    printf("taken\n");
    fflush(stdout);
    sleep(20);
    printf("kept\n");
}

/* One message at one address in two address spaces. */
static struct rm_alloc *place_message(uint32_t class, const struct gpu *gpu, uint64_t size)
{
    void *place = mmap((void *)0x20000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (place == MAP_FAILED)
        die("mmap");
    struct rm_alloc *message = place;
    struct rm_memory_params *params = (void *)(message + 1);
    *params = (struct rm_memory_params){.size = size};
    *message = alloc_message(gpu, class, params, sizeof *params);
    return message;
}

static int sleep_on(void *parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (getppid() == *(pid_t *)parent) /* it may have ended before that */
        pause();
    return 0;
}

/* A child keeps the address space from before an exec, in which the same address has a harmless message. */
static void execswap(char **arguments)
{
    static char stack[65536];
    static pid_t parent;
    parent = getpid();
    struct gpu gpu = open_gpu();
    uint64_t size = number(arguments[0]) * MIB;
    (void)place_message(CLASS_MEMORY_SYSTEM, &gpu, size);
    fcntl(gpu.fd, F_SETFD, 0);
    if (clone(sleep_on, stack + sizeof stack, CLONE_VM, &parent) < 0)
        die("clone");
    char text[4][24];
    snprintf(text[0], sizeof text[0], "%d", gpu.fd);
    snprintf(text[1], sizeof text[1], "%u", gpu.client);
    snprintf(text[2], sizeof text[2], "%u", gpu.device);
    snprintf(text[3], sizeof text[3], "%llu", (unsigned long long)size);
    execl("/proc/self/exe", "rawgpu", "execswap2", text[0], text[1], text[2], text[3], (char *)NULL);
    die("exec");
}

static void execswap2(char **arguments)
{
    struct gpu gpu = {
        .fd = (int)number(arguments[0]),
        .client = (uint32_t)number(arguments[1]),
        .device = (uint32_t)number(arguments[2]),
    };
    struct rm_alloc *message = place_message(CLASS_MEMORY_LOCAL_USER, &gpu, number(arguments[3]));
    print_result(call(gpu.fd, ESC_ALLOC, message, sizeof *message, &message->status));
    fflush(stdout);
    wait_for_input();
}

const struct subcommand account_commands[] = {
    {"namesake", "MIB", 1, namesake},
    {"oldcontext", "N", 1, oldcontext},
    {"foreclaim", "MIB", 1, foreclaim},
    {"leaderless", "MIB", 1, leaderless},
    {"lateuse", "MIB", 1, lateuse},
    {"swaplate", "MIB", 1, swaplate},
    {"swaporphan", "MIB", 1, swaporphan},
    {"execswap", "MIB", 1, execswap},
    {"execswap2", "FD CLIENT DEVICE BYTES", 4, execswap2},
    {0},
};
