/* Ordinary use, much of it: pairs, signals in between, threads, processes. */
#include "rawgpu.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

static uint64_t nanoseconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static struct result pair(const struct gpu *gpu, uint64_t size)
{
    uint32_t handle;
    struct result result = alloc_memory(gpu, &size, &handle);
    return refused(result) ? result : free_object(gpu, handle);
}

static int by_size(const void *one, const void *other)
{
    uint64_t first = *(const uint64_t *)one, second = *(const uint64_t *)other;
    return (first > second) - (first < second);
}

/* Allocate and free so often; ends at the first that is refused. */
static void pairs(char **arguments)
{
    uint64_t count = number(arguments[0]), size = number(arguments[1]) * MIB, done = 0;
    uint64_t *taken = calloc(count + 1, sizeof *taken);
    struct result result = {0};
    struct gpu gpu = open_gpu();
    for (; taken && done < count; done++) {
        uint64_t start = nanoseconds();
        result = pair(&gpu, size);
        if (refused(result))
            break;
        taken[done] = nanoseconds() - start;
    }
    qsort(taken, done, sizeof *taken, by_size);
    printf("%llu pairs, median %llu ns, ", (unsigned long long)done, (unsigned long long)taken[done / 2]);
    print_result(result);
}

static void nothing(int signal)
{
    (void)signal;
}

/* The same with a signal every millisecond: with SA_RESTART the kernel makes the call again, else this program does. */
static void timer(char **arguments)
{
    uint64_t count = number(arguments[1]), size = number(arguments[2]) * MIB, failed = 0;
    struct result last = {0};
    struct gpu gpu = open_gpu();
    struct sigaction action = {.sa_handler = nothing, .sa_flags = strcmp(arguments[0], "none") ? SA_RESTART : 0};
    struct itimerval every = {.it_interval.tv_usec = 1000, .it_value.tv_usec = 1000};
    if (sigaction(SIGALRM, &action, NULL) < 0 || setitimer(ITIMER_REAL, &every, NULL) < 0)
        die("a timer");
    for (uint64_t i = 0; i < count; i++) {
        struct result result = pair(&gpu, size);
        if (refused(result)) {
            failed++;
            last = result;
        }
    }
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    printf("%llu pairs, %llu failed, %llu interrupted, last ", (unsigned long long)(count - failed),
           (unsigned long long)failed, (unsigned long long)interrupted);
    print_result(last);
}

struct crowd {
    struct gpu gpu;
    uint64_t size;
    _Atomic uint64_t count, bytes;
    _Atomic uint32_t status;
    _Atomic int error;
};

static void *fill_with_others(void *argument)
{
    struct crowd *crowd = argument;
    for (;;) {
        uint64_t size = crowd->size;
        uint32_t handle;
        struct result result = alloc_memory(&crowd->gpu, &size, &handle);
        if (refused(result)) {
            crowd->status = result.status;
            crowd->error = result.error;
            return NULL;
        }
        crowd->count++;
        crowd->bytes += size;
    }
}

/* So many threads of one client fill the GPU together. */
static void threads(char **arguments)
{
    uint64_t count = number(arguments[0]), started = 0;
    pthread_t *all = calloc(count + 1, sizeof *all);
    struct crowd crowd = {.gpu = open_gpu(), .size = number(arguments[1]) * MIB};
    while (all && started < count && pthread_create(&all[started], NULL, fill_with_others, &crowd) == 0)
        started++;
    for (uint64_t i = 0; i < started; i++)
        pthread_join(all[i], NULL);
    printf("%llu threads, %llu allocations, %llu bytes, ", (unsigned long long)started, (unsigned long long)crowd.count,
           (unsigned long long)crowd.bytes);
    print_result((struct result){.error = crowd.error, .status = crowd.status});
}

/* One process after the other takes memory and ends without a word. */
static void processes(char **arguments)
{
    uint64_t count = number(arguments[0]), granted = 0;
    for (uint64_t i = 0; i < count; i++) {
        pid_t child = fork();
        if (child < 0)
            die("fork");
        if (child == 0) {
            struct gpu gpu = open_gpu();
            uint64_t size = number(arguments[1]) * MIB;
            uint32_t handle;
            _exit(refused(alloc_memory(&gpu, &size, &handle)));
        }
        int status;
        if (waitpid(child, &status, 0) < 0)
            die("waitpid");
        granted += status == 0;
    }
    printf("%llu processes, %llu granted\n", (unsigned long long)count, (unsigned long long)granted);
    fflush(stdout);
}

static void hold(char **arguments)
{
    struct gpu gpu = open_gpu();
    uint64_t size = number(arguments[0]) * MIB;
    uint32_t handle;
    struct result result = alloc_memory(&gpu, &size, &handle);
    if (refused(result)) {
        print_result(result);
        return;
    }
    printf("ready\n");
    fflush(stdout);
    wait_for_input();
}

const struct subcommand load_commands[] = {
    {"pairs", "N MIB", 2, pairs},
    {"timer", "SA_RESTART|none N MIB", 3, timer},
    {"threads", "N MIB", 2, threads},
    {"processes", "N MIB", 2, processes},
    {"hold", "MIB", 1, hold},
    {0},
};
