/* Takes device memory in one of the ways that CUDA has, until it is refused, and holds it for a while.
 *
 *     cudaways [-l LIBRARY] [-d DEVICE] [-m MOST] [-n PROCESSES] [-s SECONDS] WAY
 *
 * LIBRARY is the libcuda to open, the ordinary one unless given. MOST bounds what is taken, in bytes: this is also run
 * where nothing else bounds it. So many PROCESSES wait for each other with their contexts, and then take all at once.
 * A line for each call that failed, by its error's name, and then for each process
 *
 *     WAY got BYTES in COUNT last ERROR
 *
 * and with more than one process how each ended. -s: what is held is held for so long.
 */
#include "cudaways.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

CUdevice device;

static const char *library = "libcuda.so.1";
static void *driver;

static struct {
    int device;
    unsigned long long most;
    long processes;
    double seconds;
} wanted = {.most = ~0ULL, .processes = 1};

void *found(const char *name)
{
    return driver ? dlsym(driver, name) : NULL;
}

const char *error_name(CUresult result)
{
    const char *name = NULL;
    CU(cuGetErrorName, result, &name);
    return name ? name : result == CUDA_ERROR_NOT_FOUND ? "NOT_THERE" : "?";
}

/* Not again and again: a way ends with the same answer to smaller and smaller sizes. */
CUresult reported(const char *call, CUresult result)
{
    static const char *said_of;
    static CUresult said;
    if (result != CUDA_SUCCESS && (result != said || strcmp(call, said_of) != 0)) {
        printf("  %s: %d %s\n", call, (int)result, error_name(result));
        said_of = call;
        said = result;
    }
    return result;
}

static CUresult start(const struct way *way)
{
    CUcontext context;
    driver = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
    if (!driver) {
        printf("  dlopen: %s\n", dlerror());
        return CUDA_ERROR_NOT_FOUND;
    }
    CUresult result = TRY(cuInit, 0);
    if (result == CUDA_SUCCESS)
        result = TRY(cuDeviceGet, &device, wanted.device);
    if (result != CUDA_SUCCESS || way->bare)
        return result;
    result = TRY(cuDevicePrimaryCtxRetain, &context, device);
    return result == CUDA_SUCCESS ? TRY(cuCtxSetCurrent, context) : result;
}

static void fill(const struct way *way, CUresult last)
{
    unsigned long long got = 0;
    unsigned long count = 0;
    size_t size = last == CUDA_SUCCESS ? way->largest : 0;
    while (size && size >= way->smallest && got < wanted.most && count < way->times) {
        size_t taken = size;
        CUresult result = way->take(&taken);
        if (result == CUDA_SUCCESS) {
            got += taken;
            count++;
        } else {
            last = result;
            size /= 2;
        }
    }
    printf("%s got %llu in %lu last %s\n", way->name, got, count, error_name(last));
}

static void hold(void)
{
    struct timespec rest = {.tv_sec = (time_t)wanted.seconds};
    rest.tv_nsec = (long)((wanted.seconds - (double)rest.tv_sec) * 1e9);
    nanosleep(&rest, NULL);
}

/* Each process says on `ready` that it has its context, and takes once the other end of `go` is closed. */
static void take_with_others(const struct way *way, int ready, int go)
{
    char byte = 0;
    CUresult result = start(way);
    if (write(ready, &byte, 1) != 1)
        perror("cudaways: write");
    while (read(go, &byte, 1) > 0)
        ;
    fill(way, result);
    fflush(stdout);
    hold();
    _exit(0);
}

static void take_at_once(const struct way *way)
{
    int ready[2], go[2], status;
    char byte;
    if (pipe(ready) < 0 || pipe(go) < 0) {
        perror("cudaways: pipe");
        exit(1);
    }
    for (long i = 0; i < wanted.processes; i++) {
        pid_t child = fork();
        if (child < 0)
            perror("cudaways: fork");
        if (child == 0) {
            close(go[1]);
            take_with_others(way, ready[1], go[0]);
        }
    }
    close(ready[1]); /* so that a process that dies isn't waited for */
    for (long i = 0; i < wanted.processes && read(ready[0], &byte, 1) == 1; i++)
        ;
    close(go[1]);
    while (wait(&status) > 0)
        if (WIFSIGNALED(status))
            printf("a process was ended by signal %d\n", WTERMSIG(status));
        else
            printf("a process ended with %d\n", WEXITSTATUS(status));
}

static const struct way *named(const char *name)
{
    const struct way *const tables[] = {memory_ways, kernel_ways};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const struct way *way = tables[i]; way->name; way++)
            if (strcmp(way->name, name) == 0)
                return way;
    fprintf(stderr, "cudaways: there is no way '%s'\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    int option;
    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((option = getopt(argc, argv, "l:d:m:n:s:")) != -1)
        if (option == 'l')
            library = optarg;
        else if (option == 'd')
            wanted.device = atoi(optarg);
        else if (option == 'm')
            wanted.most = strtoull(optarg, NULL, 10);
        else if (option == 'n')
            wanted.processes = strtol(optarg, NULL, 10);
        else if (option == 's')
            wanted.seconds = strtod(optarg, NULL);
        else
            return 2;
    if (optind + 1 != argc) {
        fprintf(stderr, "usage: cudaways [-l LIBRARY] [-d DEVICE] [-m MOST] [-n PROCESSES] [-s SECONDS] WAY\n");
        return 2;
    }
    const struct way *way = named(argv[optind]);
    if (wanted.processes > 1) {
        take_at_once(way);
        return 0;
    }
    fill(way, start(way));
    hold();
    return 0;
}
