/* Times the driver's calls in one process, for libvgpu against native: one line a figure, `NAME NANOSECONDS`, the
 * median of ROUNDS rounds. usage: cudabench ROUNDS */
#define __CUDA_API_VERSION_INTERNAL /* every version under its own name */
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <cuda.h>
#include <nvml.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* RESULT is a CUresult or an nvmlReturn_t: both are 0 on success. */
static void must(int result, const char *what)
{
    if (result == 0)
        return;
    fprintf(stderr, "%s: error %d\n", what, result);
    exit(1);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef void operation(void);

static CUstream stream;
static CUfunction kernel;
static CUdeviceptr address;
static nvmlDevice_t nvml_device;

static void linear(size_t bytes)
{
    must(cuMemAlloc_v2(&address, bytes), "cuMemAlloc");
    must(cuMemFree_v2(address), "cuMemFree");
}

static void large(void)
{
    linear((size_t)64 << 20);
}

static void packed(void)
{
    linear(4096);
}

static void pooled(void)
{
    must(cuMemAllocAsync(&address, (size_t)1 << 20, stream), "cuMemAllocAsync");
    must(cuMemFreeAsync(address, stream), "cuMemFreeAsync");
}

static void info(void)
{
    size_t free_bytes, total;
    must(cuMemGetInfo_v2(&free_bytes, &total), "cuMemGetInfo");
}

static void nvml_info(void)
{
    nvmlMemory_t memory;
    must(nvmlDeviceGetMemoryInfo(nvml_device, &memory), "nvmlDeviceGetMemoryInfo");
}

static void launch(void)
{
    must(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), "cuLaunchKernel");
}

/* The median over ROUNDS of what one of COUNT operations takes; the stream is empty before and after each round. */
static void figure(const char *name, operation *operation, int rounds, int count)
{
    double *taken = calloc((size_t)rounds, sizeof *taken);
    for (int round = -1; round < rounds; round++) {
        double start = now();
        for (int i = 0; i < count; i++)
            operation();
        double end = now();
        must(cuStreamSynchronize(stream), "cuStreamSynchronize");
        if (round >= 0)
            taken[round] = (end - start) / count;
    }
    qsort(taken, (size_t)rounds, sizeof *taken, ascending);
    printf("%s %.1f\n", name, taken[rounds / 2]);
    free(taken);
}

static const char nothing[] = ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry nothing() { ret; }\n";

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 20;
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUmemoryPool pool;
    cuuint64_t keep = ~(cuuint64_t)0;

    double start = now();
    must(cuInit(0), "cuInit");
    must(cuDeviceGet(&device, 0), "cuDeviceGet");
    must(cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
    must(cuCtxSetCurrent(context), "cuCtxSetCurrent");
    printf("start %.1f\n", now() - start);

    must(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    must(cuModuleLoadData(&module, nothing), "cuModuleLoadData");
    must(cuModuleGetFunction(&kernel, module, "nothing"), "cuModuleGetFunction");
    must(cuDeviceGetDefaultMemPool(&pool, device), "cuDeviceGetDefaultMemPool");
    must(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep), "cuMemPoolSetAttribute");
    must(nvmlInit_v2(), "nvmlInit");
    must(nvmlDeviceGetHandleByIndex_v2(0, &nvml_device), "nvmlDeviceGetHandleByIndex");
    CUdeviceptr block; /* so that small ones are packed into a block that is there */
    must(cuMemAlloc_v2(&block, 4096), "cuMemAlloc");

    figure("large", large, rounds, 20);
    figure("packed", packed, rounds, 500);
    figure("pooled", pooled, rounds, 2000);
    figure("info", info, rounds, 200);
    figure("nvml", nvml_info, rounds, 200);
    figure("launch", launch, rounds, 500);
    return 0;
}
