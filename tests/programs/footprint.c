/* What libvgpu adds to a process. In a container with a share, /.runai/real has the driver's own libraries.
 *
 *     footprint start            cuInit and cuDeviceGetCount
 *     footprint memory           a context and some memory, then three numbers in KiB: resident memory of libvgpu's files
 *                                and of the account's, of the whole process, and of that once it has asked cuMemGetInfo
 *     footprint pairs N FOLDER   runs `start` and `memory` N times in turn with the libraries in FOLDER and with those
 *                                that the loader finds; a line each: microseconds, KiB, and KiB after cuMemGetInfo of the
 *                                one and of the other, then KiB of libvgpu's files
 */
#define __CUDA_API_VERSION_INTERNAL /* every version under its own name */
#include <cuda.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int must(int is, const char *what)
{
    if (!is) {
        fprintf(stderr, "footprint: not so: %s\n", what);
        exit(1);
    }
    return is;
}

static void start(void)
{
    int count = 0;
    must(cuInit(0) == CUDA_SUCCESS && cuDeviceGetCount(&count) == CUDA_SUCCESS && count > 0, "there is a GPU");
}

static int is_ours(const char *line)
{
    const char *path = strchr(line, '/');
    return path && ((strncmp(path, "/.runai/real/", 13) != 0 && (strstr(path, "libcuda.so") || strstr(path, "libnvidia-ml.so"))) ||
                    strncmp(path, "/.runai/account/", 16) == 0);
}

/* KiB of this process that are resident, and in OURS those of libvgpu and the account. */
static unsigned long resident(unsigned long *ours)
{
    char line[4096];
    unsigned long kib, all = 0;
    int inside = 0;
    FILE *file = fopen("/proc/self/smaps", "re");
    must(file != NULL, "/proc is there");
    *ours = 0;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "Rss: %lu kB", &kib) == 1) {
            all += kib;
            *ours += inside ? kib : 0;
        } else if (strchr(line, '-') && strchr(line, ' ') > strchr(line, '-')) {
            inside = is_ours(line); /* a mapping's first line: its range, and where it is from */
        }
    }
    fclose(file);
    return all;
}

static void memory(void)
{
    CUcontext context;
    CUdeviceptr address;
    size_t available, total;
    unsigned long ours;
    start();
    must(cuDevicePrimaryCtxRetain(&context, 0) == CUDA_SUCCESS && cuCtxSetCurrent(context) == CUDA_SUCCESS &&
             cuMemAlloc_v2(&address, 4096) == CUDA_SUCCESS && cuMemAlloc_v2(&address, 64 << 20) == CUDA_SUCCESS,
         "there is a context and memory");
    unsigned long all = resident(&ours);
    must(cuMemGetInfo_v2(&available, &total) == CUDA_SUCCESS, "it tells how much");
    unsigned long asked = resident(&ours);
    printf("%lu %lu %lu\n", ours, all, asked);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Runs this program in that MODE, to its end, with its output in TEXT; microseconds. */
static double run(const char *mode, const char *folder, char *text, size_t size)
{
    int output[2], status;
    must(pipe(output) == 0, "there is a pipe");
    double began = now();
    pid_t child = fork();
    if (child == 0) {
        if (folder)
            setenv("LD_LIBRARY_PATH", folder, 1);
        dup2(output[1], STDOUT_FILENO);
        execl("/proc/self/exe", "footprint", mode, (char *)NULL);
        _exit(127);
    }
    close(output[1]);
    must(child > 0 && waitpid(child, &status, 0) == child && status == 0, mode);
    double taken = now() - began;
    ssize_t length = read(output[0], text, size - 1);
    text[length > 0 ? length : 0] = '\0';
    close(output[0]);
    return taken;
}

static void pair(const char *real, int real_first)
{
    double taken[2];
    unsigned long ours[2], all[2], asked[2];
    char text[100];
    for (int i = 0; i < 2; i++) {
        int with = i ^ !real_first; /* 0: the real libraries */
        const char *folder = with ? NULL : real;
        taken[with] = run("start", folder, text, sizeof text);
        run("memory", folder, text, sizeof text);
        must(sscanf(text, "%lu %lu %lu", &ours[with], &all[with], &asked[with]) == 3, "three numbers");
    }
    printf("%.1f %.1f %lu %lu %lu %lu %lu\n", taken[0], taken[1], all[0], all[1], asked[0], asked[1], ours[1]);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "start") == 0)
        start();
    else if (strcmp(mode, "memory") == 0)
        memory();
    else if (strcmp(mode, "pairs") == 0 && argc == 4)
        for (int i = 0; i < atoi(argv[2]); i++)
            pair(argv[3], i % 2);
    else
        return 2;
    return 0;
}
