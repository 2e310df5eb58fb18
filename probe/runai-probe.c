/* runai-probe SHARE: the program of the container that runai-ctl doctor --live starts with a share of one GPU. It asks how
 * large the GPU is, and for memory in every common way until that is refused, or it has more than SHARE bytes. Where an
 * agent keeps the share, a second process does the same with the driver's own library, around libvgpu. What each saw is one
 * line of JSON, which runai_runtime/doctor/live.py reads:
 *
 *     {"gpus": N, "cuda": BYTES, "nvml": BYTES, "free": BYTES, "ways": [{"call": NAME, "took": BYTES, "error": NAME}, …]}
 *     {"call": NAME, "error": TEXT}           where that call failed, and nothing could be tried
 *
 * "nvml" is 0 where NVML doesn't say, "free" is with a context, and an "error" is "" where nothing was refused. All that it
 * takes beyond SHARE is one block; it is the driver that takes everything back, as the process ends. */
#include <cuda.h>
#include <nvml.h>

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* In a container with a share (docs/architecture.md). */
#define AGENT_PAGE "/.runai/page"
#define REAL_LIBRARY "/.runai/real/libcuda.so.1"

#define LARGEST_BLOCK ((size_t)32 << 20)
#define SMALLEST_BLOCK ((size_t)2 << 20) /* the driver gives device memory in blocks of this size */

#define COUNT(array) (sizeof(array) / sizeof *(array))

#define TEXT(name) #name
#define SYMBOL(name) TEXT(name) /* as the header has it: cuMemAlloc_v2 for cuMemAlloc */

/* An old driver may lack one: the address is NULL then. */
#define FIND(library, name) ((__typeof__(&name))dlsym(library, SYMBOL(name)))

static void *cuda;

/* What a library says becomes part of a JSON string. */
static void print_text(const char *text) {
    putchar('"');
    for (; *text; text++)
        putchar(*text == '"' || *text == '\\' || (unsigned char)*text < ' ' ? '\'' : *text);
    putchar('"');
}

static _Noreturn void give_up(const char *call, const char *error) {
    printf("{\"call\": \"%s\", \"error\": ", call);
    print_text(error);
    puts("}");
    exit(0);
}

static const char *name_of(CUresult result) {
    static char number[32];
    const char *name = NULL;
    __typeof__(&cuGetErrorName) get_name = FIND(cuda, cuGetErrorName);
    if (get_name && get_name(result, &name) == CUDA_SUCCESS && name)
        return name;
    (void)snprintf(number, sizeof number, "CUresult %d", (int)result);
    return number;
}

/* CALL(name, arguments): ends the program unless that succeeds. */
#define CALL(name, ...)                                                    \
    do {                                                                   \
        __typeof__(&name) call = FIND(cuda, name);                         \
        CUresult result = call ? call(__VA_ARGS__) : CUDA_ERROR_NOT_FOUND; \
        if (result)                                                        \
            give_up(SYMBOL(name), name_of(result));                        \
    } while (0)

/* ---- ways to device memory -------------------------------------------------------------------------------------- */

static CUresult take_linear(size_t bytes) {
    CUdeviceptr address;
    __typeof__(&cuMemAlloc) call = FIND(cuda, cuMemAlloc);
    return call ? call(&address, bytes) : CUDA_ERROR_NOT_SUPPORTED;
}

static CUresult take_created(size_t bytes) {
    CUmemAllocationProp wanted = {
        .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    CUmemGenericAllocationHandle handle;
    __typeof__(&cuMemCreate) call = FIND(cuda, cuMemCreate);
    return call ? call(&handle, bytes, &wanted, 0) : CUDA_ERROR_NOT_SUPPORTED;
}

static CUresult take_managed(size_t bytes) {
    CUdeviceptr address;
    __typeof__(&cuMemAllocManaged) call = FIND(cuda, cuMemAllocManaged);
    return call ? call(&address, bytes, CU_MEM_ATTACH_GLOBAL) : CUDA_ERROR_NOT_SUPPORTED;
}

/* Managed memory comes last: it is libvgpu that refuses it. The driver itself gives addresses, and takes device memory as
 * they are touched, which nobody does here. */
static const struct way {
    const char *call;
    CUresult (*take)(size_t bytes);
} WAYS[] = {
    {"cuMemAlloc", take_linear},
    {"cuMemCreate", take_created},
    {"cuMemAllocManaged", take_managed},
};

#define WITHOUT_LIBVGPU (COUNT(WAYS) - 1)

/* Bytes that WAY gives until it refuses a smallest block, or BEFORE and these are more than SHARE. */
static size_t take_all(const struct way *way, size_t before, size_t share, CUresult *refused) {
    size_t took = 0;
    *refused = CUDA_SUCCESS;
    for (size_t block = LARGEST_BLOCK; block >= SMALLEST_BLOCK && before + took <= share;) {
        CUresult result = way->take(block);
        if (result == CUDA_SUCCESS)
            took += block;
        else
            block /= 2;
        *refused = result;
    }
    return took;
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

/* NVML's size of the GPU, 0 where it doesn't say. */
static unsigned long long nvml_total(void) {
    nvmlDevice_t device;
    nvmlMemory_t memory;
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!nvml)
        return 0;
    __typeof__(&nvmlInit) init = FIND(nvml, nvmlInit);
    __typeof__(&nvmlDeviceGetHandleByIndex) get_device = FIND(nvml, nvmlDeviceGetHandleByIndex);
    __typeof__(&nvmlDeviceGetMemoryInfo) get_memory = FIND(nvml, nvmlDeviceGetMemoryInfo);
    if (!init || !get_device || !get_memory)
        return 0;
    if (init() || get_device(0, &device) || get_memory(device, &memory))
        return 0;
    return memory.total;
}

/* The first COUNT ways. */
static void probe(const char *library, size_t share, size_t count) {
    cuda = dlopen(library, RTLD_NOW);
    if (!cuda)
        give_up("dlopen", dlerror());
    int gpus = 0;
    size_t total = 0, free_bytes = 0, shown = 0;
    CUdevice device;
    CUcontext context;
    CALL(cuInit, 0);
    CALL(cuDeviceGetCount, &gpus);
    CALL(cuDeviceGet, &device, 0);
    CALL(cuDeviceTotalMem, &total, device);
    CALL(cuDevicePrimaryCtxRetain, &context, device);
    CALL(cuCtxSetCurrent, context);
    CALL(cuMemGetInfo, &free_bytes, &shown);
    printf("{\"gpus\": %d, \"cuda\": %zu, \"nvml\": %llu, \"free\": %zu, \"ways\": [", gpus, total, nvml_total(), free_bytes);
    size_t took = 0;
    for (size_t i = 0; i < count; i++) {
        CUresult refused;
        size_t more = take_all(&WAYS[i], took, share, &refused);
        took += more;
        printf("%s{\"call\": \"%s\", \"took\": %zu, \"error\": ", i ? ", " : "", WAYS[i].call, more);
        print_text(refused ? name_of(refused) : "");
        putchar('}');
    }
    puts("]}");
}

/* What LIBRARY gives to a process of its own. */
static void probe_in_child(const char *library, size_t share, size_t count) {
    pid_t child = fork();
    if (child == 0) {
        probe(library, share, count);
        exit(0);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status)
        give_up("fork", "a process couldn't be started, or crashed");
}

int main(int count, char **arguments) {
    size_t share = count > 1 ? strtoull(arguments[1], NULL, 10) : 0;
    probe_in_child("libcuda.so.1", share, COUNT(WAYS));
    if (access(AGENT_PAGE, F_OK) == 0)
        probe_in_child(REAL_LIBRARY, share, WITHOUT_LIBVGPU);
    return 0;
}
