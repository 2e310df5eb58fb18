/* A shell of CUDA calls for tests: each argument is one command, done in order, and its result is one line
 *
 *     COMMAND -> NUMBER NAME VALUE...
 *
 * with the CUresult's number and name. It goes on after errors. Sizes take k, m and g. Memory is numbered from 0
 * in the order in which it was asked for; a failed request takes no number. Without a number, the last one is meant.
 *
 *     init                   cuInit; done by itself before the first command that needs it
 *     count | device N | name | uuid | total
 *     ctx | primary | destroy                a context of one's own, the primary one; the end of the last one
 *     alloc SIZE | pitch W H | managed SIZE | async SIZE | pool SIZE (from a pool of its own)   -> the number
 *     create SIZE | map I | unmap I | release I      virtual memory management, step by step
 *     free I | freeasync I | set I (memset, to its end) | sync
 *     info                   free and total bytes
 *     fill CHUNK | fillasync CHUNK | fillcreate CHUNK | fillmanaged CHUNK    until an error -> the bytes that it got
 *     pairs SIZE N | pairsasync SIZE N       N times allocate and free -> nanoseconds a pair
 *     launch                 a kernel that does nothing
 *     procaddr NAME VERSION  cuGetProcAddress -> the exported name whose address it answers, or "elsewhere"
 *     has NAME               dlsym -> "there" or "absent"
 *     fork N | wait          the next N commands in a child; waits for every child -> its exit status or -signal
 *     sleep SECONDS | hold (until stdin ends) | print TEXT | kill (itself, by SIGKILL) | exit STATUS
 */
#define __CUDA_API_VERSION_INTERNAL /* every version under its own name */
#include <cuda.h>

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum kind { FREED, LINEAR, ASYNC, POOL, CREATED, MAPPED };

struct memory {
    enum kind kind;
    size_t size;
    CUdeviceptr address;
    CUmemGenericAllocationHandle handle;
    CUmemoryPool pool;
};

static struct memory *memories;
static int memory_count, memory_room;
static CUdevice device;
static CUcontext context;
static int context_is_primary;
static int initialized;

/* ---- words and results ---------------------------------------------------------------------------------------- */

static char *words[8];
static char line[4096];

static const char *word(int i)
{
    return words[i] ? words[i] : "";
}

static size_t size_of(const char *text)
{
    char *end;
    double value = strtod(text, &end);
    const char *suffixes = "kmgt", *suffix = *end ? strchr(suffixes, *end | 0x20) : NULL;
    for (long i = suffix ? suffix - suffixes + 1 : 0; i > 0; i--)
        value *= 1024;
    return (size_t)value;
}

static void say(CUresult result, const char *format, unsigned long long a, unsigned long long b)
{
    const char *name = NULL;
    cuGetErrorName(result, &name);
    printf("%s -> %d %s", line, (int)result, name ? name : "?");
    if (result == CUDA_SUCCESS && format) {
        putchar(' ');
        printf(format, a, b);
    }
    putchar('\n');
}

static void said(CUresult result)
{
    say(result, NULL, 0, 0);
}

static void text(const char *value)
{
    printf("%s -> 0 CUDA_SUCCESS %s\n", line, value);
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

static void keep(struct memory memory)
{
    if (memory_count == memory_room) {
        memory_room = memory_room ? 2 * memory_room : 64;
        memories = realloc(memories, (size_t)memory_room * sizeof *memories);
        if (!memories)
            abort();
    }
    memories[memory_count++] = memory;
}

static struct memory *chosen(void)
{
    static struct memory none;
    int i = words[1] ? atoi(words[1]) : memory_count - 1;
    none = (struct memory){0};
    return i >= 0 && i < memory_count ? &memories[i] : &none;
}

static CUmemAllocationProp properties(void)
{
    return (CUmemAllocationProp){
        .type = CU_MEM_ALLOCATION_TYPE_PINNED,
        .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device},
    };
}

static CUresult get_linear(struct memory *memory)
{
    memory->kind = LINEAR;
    return cuMemAlloc_v2(&memory->address, memory->size);
}

static CUresult get_managed(struct memory *memory)
{
    memory->kind = LINEAR;
    return cuMemAllocManaged(&memory->address, memory->size, CU_MEM_ATTACH_GLOBAL);
}

static CUresult get_async(struct memory *memory)
{
    memory->kind = ASYNC;
    return cuMemAllocAsync(&memory->address, memory->size, NULL);
}

static CUresult get_created(struct memory *memory)
{
    CUmemAllocationProp wanted = properties();
    memory->kind = CREATED;
    return cuMemCreate(&memory->handle, memory->size, &wanted, 0);
}

static CUresult get_from_pool(struct memory *memory)
{
    CUmemPoolProps wanted = {
        .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
        .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device},
    };
    memory->kind = POOL;
    CUresult result = cuMemPoolCreate(&memory->pool, &wanted);
    if (result != CUDA_SUCCESS)
        return result;
    result = cuMemAllocFromPoolAsync(&memory->address, memory->size, memory->pool, NULL);
    if (result != CUDA_SUCCESS)
        cuMemPoolDestroy(memory->pool);
    return result;
}

static void one(CUresult (*get)(struct memory *))
{
    struct memory memory = {.size = size_of(word(1))};
    CUresult result = get(&memory);
    say(result, "%llu", (unsigned long long)memory_count, 0);
    if (result == CUDA_SUCCESS)
        keep(memory);
}

static void fill(CUresult (*get)(struct memory *))
{
    unsigned long long got = 0;
    for (;;) {
        struct memory memory = {.size = size_of(word(1))};
        CUresult result = get(&memory);
        if (result != CUDA_SUCCESS) {
            const char *name = NULL;
            cuGetErrorName(result, &name);
            printf("%s -> %d %s %llu\n", line, (int)result, name ? name : "?", got);
            return;
        }
        got += memory.size;
        keep(memory);
    }
}

static CUresult give_back(struct memory *memory)
{
    switch (memory->kind) {
    case LINEAR:
        return cuMemFree_v2(memory->address);
    case ASYNC:
        return cuMemFreeAsync(memory->address, NULL);
    case POOL: {
        CUresult result = cuMemFreeAsync(memory->address, NULL);
        return result == CUDA_SUCCESS ? cuMemPoolDestroy(memory->pool) : result;
    }
    case CREATED:
        return cuMemRelease(memory->handle);
    case FREED:
    case MAPPED:
        break;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

static void pairs(CUresult (*get)(struct memory *))
{
    struct timespec start, end;
    int times = words[2] ? atoi(words[2]) : 1000;
    CUresult result = CUDA_SUCCESS;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < times && result == CUDA_SUCCESS; i++) {
        struct memory memory = {.size = size_of(word(1))};
        result = get(&memory);
        if (result == CUDA_SUCCESS)
            result = give_back(&memory);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    long long taken = (end.tv_sec - start.tv_sec) * 1000000000LL + (end.tv_nsec - start.tv_nsec);
    say(result, "%llu", (unsigned long long)(taken / (times > 0 ? times : 1)), 0);
}

/* ---- commands ------------------------------------------------------------------------------------------------- */

static void do_init(void)
{
    initialized = 1;
    said(cuInit(0));
}

static void do_count(void)
{
    int count = 0;
    CUresult result = cuDeviceGetCount(&count);
    say(result, "%llu", (unsigned long long)count, 0);
}

static void do_device(void)
{
    CUresult result = cuDeviceGet(&device, atoi(word(1)));
    say(result, "%llu", (unsigned long long)device, 0);
}

static void do_name(void)
{
    char name[256];
    CUresult result = cuDeviceGetName(name, sizeof name, device);
    if (result == CUDA_SUCCESS)
        text(name);
    else
        said(result);
}

static void do_uuid(void)
{
    CUuuid uuid;
    CUresult result = cuDeviceGetUuid_v2(&uuid, device);
    if (result != CUDA_SUCCESS) {
        said(result);
        return;
    }
    char out[64] = "GPU-";
    for (int i = 0, at = 4; i < 16; i++)
        at += snprintf(out + at, sizeof out - (size_t)at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                       (unsigned char)uuid.bytes[i]);
    text(out);
}

static void do_total(void)
{
    size_t total = 0;
    CUresult result = cuDeviceTotalMem_v2(&total, device); /* before its arguments are looked at, in every compiler */
    say(result, "%llu", total, 0);
}

static void do_ctx(void)
{
    context_is_primary = 0;
    said(cuCtxCreate_v2(&context, 0, device));
}

static void do_primary(void)
{
    context_is_primary = 1;
    CUresult result = cuDevicePrimaryCtxRetain(&context, device);
    said(result == CUDA_SUCCESS ? cuCtxSetCurrent(context) : result);
}

static void do_destroy(void)
{
    said(context_is_primary ? cuDevicePrimaryCtxRelease_v2(device) : cuCtxDestroy_v2(context));
}

static void do_alloc(void)
{
    one(get_linear);
}

static void do_managed(void)
{
    one(get_managed);
}

static void do_async(void)
{
    one(get_async);
}

static void do_pool(void)
{
    one(get_from_pool);
}

static void do_create(void)
{
    one(get_created);
}

static void do_pitch(void)
{
    struct memory memory = {.kind = LINEAR};
    size_t pitch = 0, height = size_of(word(2));
    CUresult result = cuMemAllocPitch_v2(&memory.address, &pitch, size_of(word(1)), height, 4);
    memory.size = pitch * height;
    say(result, "%llu %llu", (unsigned long long)memory_count, pitch);
    if (result == CUDA_SUCCESS)
        keep(memory);
}

static void do_map(void)
{
    struct memory *memory = chosen();
    CUmemAccessDesc access = {.location = properties().location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUresult result = cuMemAddressReserve(&memory->address, memory->size, 0, 0, 0);
    if (result == CUDA_SUCCESS)
        result = cuMemMap(memory->address, memory->size, 0, memory->handle, 0);
    if (result == CUDA_SUCCESS)
        result = cuMemSetAccess(memory->address, memory->size, &access, 1);
    said(result);
}

static void do_unmap(void)
{
    struct memory *memory = chosen();
    CUresult result = cuMemUnmap(memory->address, memory->size);
    said(result == CUDA_SUCCESS ? cuMemAddressFree(memory->address, memory->size) : result);
}

static void do_free(void)
{
    struct memory *memory = chosen();
    CUresult result = give_back(memory);
    if (result == CUDA_SUCCESS)
        memory->kind = FREED;
    said(result);
}

static void do_freeasync(void)
{
    struct memory *memory = chosen();
    CUresult result = cuMemFreeAsync(memory->address, NULL);
    if (result == CUDA_SUCCESS)
        memory->kind = FREED;
    said(result);
}

static void do_set(void)
{
    struct memory *memory = chosen();
    CUresult result = cuMemsetD8_v2(memory->address, 1, memory->size);
    said(result == CUDA_SUCCESS ? cuCtxSynchronize() : result);
}

static void do_sync(void)
{
    said(cuCtxSynchronize());
}

static void do_info(void)
{
    size_t available = 0, total = 0;
    CUresult result = cuMemGetInfo_v2(&available, &total);
    say(result, "%llu %llu", available, total);
}

static void do_fill(void)
{
    fill(get_linear);
}

static void do_fillasync(void)
{
    fill(get_async);
}

static void do_fillcreate(void)
{
    fill(get_created);
}

static void do_fillmanaged(void)
{
    fill(get_managed);
}

static void do_pairs(void)
{
    pairs(get_linear);
}

static void do_pairsasync(void)
{
    pairs(get_async);
}

static void do_launch(void)
{
    static const char ptx[] = ".version 6.0\n.target sm_50\n.address_size 64\n.visible .entry nothing() { ret; }\n";
    CUmodule module;
    CUfunction function;
    CUresult result = cuModuleLoadData(&module, ptx);
    if (result == CUDA_SUCCESS)
        result = cuModuleGetFunction(&function, module, "nothing");
    if (result == CUDA_SUCCESS)
        result = cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
    said(result == CUDA_SUCCESS ? cuCtxSynchronize() : result);
}

static void do_procaddr(void)
{
    static const char *const suffixes[] = {"", "_v2", "_v3", "_v4", "_ptds", "_ptsz", "_v2_ptds", "_v2_ptsz"};
    CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    void *function = NULL;
    CUresult result = cuGetProcAddress_v2(word(1), &function, atoi(word(2)), CU_GET_PROC_ADDRESS_DEFAULT, &status);
    if (result != CUDA_SUCCESS) {
        said(result);
        return;
    }
    for (size_t i = 0; function && i < sizeof suffixes / sizeof *suffixes; i++) {
        char name[256];
        snprintf(name, sizeof name, "%s%s", word(1), suffixes[i]);
        if (dlsym(RTLD_DEFAULT, name) == function) {
            text(name);
            return;
        }
    }
    text(function ? "elsewhere" : "absent");
}

static void do_has(void)
{
    text(dlsym(RTLD_DEFAULT, word(1)) ? "there" : "absent");
}

static void do_wait(void)
{
    int status;
    while (wait(&status) > 0)
        say(CUDA_SUCCESS, "%lld", (unsigned long long)(WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status)), 0);
}

static void do_sleep(void)
{
    double seconds = strtod(word(1), NULL);
    struct timespec rest = {.tv_sec = (time_t)seconds};
    rest.tv_nsec = (long)((seconds - (double)rest.tv_sec) * 1e9);
    nanosleep(&rest, NULL);
    text("");
}

static void do_hold(void)
{
    char ignored[256];
    text("");
    while (read(STDIN_FILENO, ignored, sizeof ignored) > 0)
        ;
}

static void do_print(void)
{
    puts(line + strlen("print "));
}

static void do_kill(void)
{
    raise(SIGKILL);
}

static void do_exit(void)
{
    exit(atoi(word(1)));
}

static const struct command {
    const char *name;
    void (*call)(void);
    int needs_driver;
} commands[] = {
    {"alloc", do_alloc, 1},
    {"async", do_async, 1},
    {"count", do_count, 1},
    {"create", do_create, 1},
    {"ctx", do_ctx, 1},
    {"destroy", do_destroy, 1},
    {"device", do_device, 1},
    {"exit", do_exit, 0},
    {"fill", do_fill, 1},
    {"fillasync", do_fillasync, 1},
    {"fillcreate", do_fillcreate, 1},
    {"fillmanaged", do_fillmanaged, 1},
    {"free", do_free, 1},
    {"freeasync", do_freeasync, 1},
    {"has", do_has, 0},
    {"hold", do_hold, 0},
    {"info", do_info, 1},
    {"init", do_init, 0},
    {"kill", do_kill, 0},
    {"launch", do_launch, 1},
    {"managed", do_managed, 1},
    {"map", do_map, 1},
    {"name", do_name, 1},
    {"pairs", do_pairs, 1},
    {"pairsasync", do_pairsasync, 1},
    {"pitch", do_pitch, 1},
    {"pool", do_pool, 1},
    {"primary", do_primary, 1},
    {"print", do_print, 0},
    {"procaddr", do_procaddr, 0},
    {"release", do_free, 1},
    {"set", do_set, 1},
    {"sleep", do_sleep, 0},
    {"sync", do_sync, 1},
    {"total", do_total, 1},
    {"unmap", do_unmap, 1},
    {"uuid", do_uuid, 1},
    {"wait", do_wait, 0},
};

static void run(const char *argument)
{
    static char copy[sizeof line];
    snprintf(line, sizeof line, "%s", argument);
    snprintf(copy, sizeof copy, "%s", argument);
    memset(words, 0, sizeof words);
    int count = 0;
    for (char *part = strtok(copy, " "); part && count < 7; part = strtok(NULL, " "))
        words[count++] = part;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, word(0)) == 0) {
            if (commands[i].needs_driver && !initialized) {
                initialized = 1;
                CUresult result = cuInit(0);
                if (result != CUDA_SUCCESS) {
                    said(result);
                    return;
                }
            }
            commands[i].call();
            return;
        }
    fprintf(stderr, "cudash: there is no command '%s'\n", argument);
    exit(2);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < argc; i++) {
        int next;
        if (sscanf(argv[i], "fork %d", &next) != 1) {
            run(argv[i]);
            continue;
        }
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            while (next-- > 0 && ++i < argc)
                run(argv[i]);
            return 0;
        }
        i += next;
    }
    return 0;
}
