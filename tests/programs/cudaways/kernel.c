/* Memory that comes along with what runs: modules, contexts, and what contexts keep for kernels by their limits. */
#include "cudaways.h"

#include <stdio.h>

#define HEAD ".version 6.0\n.target sm_50\n.address_size 64\n"

/* A variable of as many bytes. */
static const char variable[] = HEAD ".visible .global .align 4 .b8 x[%zu];\n";

static const char nothing[] = HEAD ".visible .entry work() { ret; }\n";

/* A kernel that has malloc, so that its context must have the heap for it. */
static const char allocates[] = HEAD
    ".extern .func (.param .b64 func_retval0) malloc (.param .b64 malloc_param_0);\n"
    ".visible .entry work()\n"
    "{\n"
    "    .reg .b64 %rd<3>;\n"
    "    mov.u64 %rd1, 64;\n"
    "    {\n"
    "    .param .b64 param0;\n"
    "    st.param.b64 [param0+0], %rd1;\n"
    "    .param .b64 retval0;\n"
    "    call.uni (retval0), malloc, (param0);\n"
    "    ld.param.b64 %rd2, [retval0+0];\n"
    "    }\n"
    "    ret;\n"
    "}\n";

/* A kernel that prints the empty string, so that its context must have the buffer for it. */
static const char prints[] = HEAD
    ".extern .func (.param .b32 func_retval0) vprintf (.param .b64 vprintf_param_0, .param .b64 vprintf_param_1);\n"
    ".global .align 1 .b8 empty[1] = {0};\n"
    ".visible .entry work()\n"
    "{\n"
    "    .reg .b32 %r<2>;\n"
    "    .reg .b64 %rd<4>;\n"
    "    mov.u64 %rd1, empty;\n"
    "    cvta.global.u64 %rd2, %rd1;\n"
    "    mov.u64 %rd3, 0;\n"
    "    {\n"
    "    .param .b64 param0;\n"
    "    st.param.b64 [param0+0], %rd2;\n"
    "    .param .b64 param1;\n"
    "    st.param.b64 [param1+0], %rd3;\n"
    "    .param .b32 retval0;\n"
    "    call.uni (retval0), vprintf, (param0, param1);\n"
    "    ld.param.b32 %r1, [retval0+0];\n"
    "    }\n"
    "    ret;\n"
    "}\n";

/* A kernel whose threads have as many bytes each. Where it writes and reads is known at the launch alone, so that no
 * compiler can do without the bytes.
 */
static const char local[] = HEAD
    ".global .align 4 .u32 sink;\n"
    ".visible .entry work(.param .u32 to, .param .u32 from)\n"
    "{\n"
    "    .local .align 8 .b8 depot[%zu];\n"
    "    .reg .b32 %%r<4>;\n"
    "    .reg .b64 %%rd<6>;\n"
    "    mov.u64 %%rd1, depot;\n"
    "    ld.param.u32 %%r1, [to];\n"
    "    cvt.u64.u32 %%rd2, %%r1;\n"
    "    add.u64 %%rd3, %%rd1, %%rd2;\n"
    "    st.local.u32 [%%rd3], %%r1;\n"
    "    ld.param.u32 %%r2, [from];\n"
    "    cvt.u64.u32 %%rd4, %%r2;\n"
    "    add.u64 %%rd5, %%rd1, %%rd4;\n"
    "    ld.local.u32 %%r3, [%%rd5];\n"
    "    st.global.u32 [sink], %%r3;\n"
    "    ret;\n"
    "}\n";

static CUresult run(const char *text, CUmodule *module)
{
    unsigned to = 0, from = 4;
    void *arguments[] = {&to, &from};
    CUfunction function;
    CUresult result = TRY(cuModuleLoadData, module, text);
    if (result != CUDA_SUCCESS)
        return result;
    result = TRY(cuModuleGetFunction, &function, *module, "work");
    if (result == CUDA_SUCCESS)
        result = TRY(cuLaunchKernel, function, 1, 1, 1, 32, 1, 1, 0, NULL, arguments, NULL);
    return result == CUDA_SUCCESS ? TRY(cuCtxSynchronize) : result;
}

static CUresult module(size_t *size)
{
    char text[256];
    CUmodule module;
    CUdeviceptr address;
    size_t bytes;
    snprintf(text, sizeof text, variable, *size);
    CUresult result = TRY(cuModuleLoadData, &module, text);
    if (result != CUDA_SUCCESS)
        return result;
    result = TRY(cuModuleGetGlobal_v2, &address, &bytes, module, "x"); /* a module that is loaded lazily is there now */
    if (result != CUDA_SUCCESS)
        TRY(cuModuleUnload, module);
    return result;
}

static CUresult context(size_t *size)
{
    CUcontext context;
    *size = 0; /* no call says what it takes */
    return TRY(cuCtxCreate_v2, &context, 0, device);
}

/* A context of its own for each, since a limit can't be set once its memory is there. */
static CUresult limited(CUlimit limit, size_t size, const char *text)
{
    CUcontext context;
    CUmodule module;
    CUresult result = TRY(cuCtxCreate_v2, &context, 0, device);
    if (result != CUDA_SUCCESS)
        return result;
    result = TRY(cuCtxSetLimit, limit, size);
    if (result == CUDA_SUCCESS)
        result = run(text, &module);
    if (result != CUDA_SUCCESS)
        TRY(cuCtxDestroy_v2, context);
    return result;
}

static CUresult heap(size_t *size)
{
    return limited(CU_LIMIT_MALLOC_HEAP_SIZE, *size, allocates);
}

static CUresult fifo(size_t *size)
{
    return limited(CU_LIMIT_PRINTF_FIFO_SIZE, *size, prints);
}

/* What a thread has, times the threads that the device can have at once. */
static size_t of_all_threads(size_t size)
{
    int processors = 0, threads = 0;
    TRY(cuDeviceGetAttribute, &processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device);
    TRY(cuDeviceGetAttribute, &threads, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, device);
    return size * (size_t)processors * (size_t)threads;
}

static CUresult stack(size_t *size)
{
    CUmodule module;
    CUresult result = TRY(cuCtxSetLimit, CU_LIMIT_STACK_SIZE, *size);
    *size = of_all_threads(*size);
    return result == CUDA_SUCCESS ? run(nothing, &module) : result;
}

static CUresult local_memory(size_t *size)
{
    char text[1024];
    CUmodule module = NULL;
    snprintf(text, sizeof text, local, *size);
    *size = of_all_threads(*size);
    CUresult result = run(text, &module);
    if (result != CUDA_SUCCESS && module)
        TRY(cuModuleUnload, module);
    return result;
}

const struct way kernel_ways[] = {
    {.name = "module", .take = module, .largest = 256 * MIB, .smallest = 2 * MIB, .times = MANY},
    {.name = "context", .take = context, .largest = 1, .smallest = 1, .times = 64, .bare = 1},
    {.name = "heap", .take = heap, .largest = 4 * GIB, .smallest = 16 * MIB, .times = 16, .bare = 1},
    {.name = "fifo", .take = fifo, .largest = 2 * GIB, .smallest = 16 * MIB, .times = 16, .bare = 1},
    {.name = "stack", .take = stack, .largest = 256 * KIB, .smallest = KIB, .times = 1},
    {.name = "local", .take = local_memory, .largest = 256 * KIB, .smallest = KIB, .times = 1},
    {0},
};
