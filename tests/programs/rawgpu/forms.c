/* One allocation in all the forms that the driver takes it in. Each fills the GPU with pieces of MIB. */
#include "rawgpu.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static struct result ended(long answer, uint32_t status)
{
    return answer < 0 ? (struct result){.error = errno} : (struct result){.status = status};
}

/* As a C library passes a request that is a signed int: the kernel drops the upper half. */
static struct result highbits(const struct gpu *gpu, uint64_t *size, uint32_t *handle)
{
    struct rm_memory_params params = {.owner = OWNER, .size = *size};
    struct rm_alloc message = alloc_message(gpu, CLASS_MEMORY_LOCAL_USER, &params, sizeof params);
    unsigned long what = request(ESC_ALLOC, sizeof message) | 0xFFFFFFFF00000000;
    long answer = syscall(SYS_ioctl, gpu->fd, what, &message);
    *size = params.size;
    *handle = message.handle;
    return ended(answer, message.status);
}

/* The driver looks at neither of the two: each in turn is another. */
static struct result direction(const struct gpu *gpu, uint64_t *size, uint32_t *handle)
{
    static const struct {
        unsigned direction, type;
    } other[] = {
        {_IOC_NONE, 'F'},
        {_IOC_READ, 'F'},
        {_IOC_WRITE, 'F'},
        {_IOC_READ | _IOC_WRITE, 0},
        {_IOC_READ | _IOC_WRITE, 0xFF},
    };
    static unsigned turn;
    struct rm_memory_params params = {.owner = OWNER, .size = *size};
    struct rm_alloc message = alloc_message(gpu, CLASS_MEMORY_LOCAL_USER, &params, sizeof params);
    unsigned i = turn++ % (sizeof other / sizeof *other);
    long answer = ioctl(gpu->fd, _IOC(other[i].direction, other[i].type, ESC_ALLOC, sizeof message), &message);
    *size = params.size;
    *handle = message.handle;
    return ended(answer, message.status);
}

/* NVOS21, which has no rights. */
static struct result old32(const struct gpu *gpu, uint64_t *size, uint32_t *handle)
{
    struct rm_memory_params params = {.owner = OWNER, .size = *size};
    struct rm_alloc_old message = {
        .root = gpu->client,
        .parent = gpu->device,
        .cls = CLASS_MEMORY_LOCAL_USER,
        .params = (uintptr_t)&params,
        .params_size = sizeof params,
    };
    struct result result = call(gpu->fd, ESC_ALLOC, &message, sizeof message, &message.status);
    *size = params.size;
    *handle = message.handle;
    return result;
}

/* Carried by another request. */
static struct result xfer(const struct gpu *gpu, uint64_t *size, uint32_t *handle)
{
    struct rm_memory_params params = {.owner = OWNER, .size = *size};
    struct rm_alloc message = alloc_message(gpu, CLASS_MEMORY_LOCAL_USER, &params, sizeof params);
    struct rm_xfer carrier = {.command = ESC_ALLOC, .size = sizeof message, .message = (uintptr_t)&message};
    struct result result = call(gpu->fd, ESC_XFER_CMD, &carrier, sizeof carrier, &message.status);
    *size = params.size;
    *handle = message.handle;
    return result;
}

#ifdef __x86_64__
/* ioctl(2) by the gate of 32-bit programs, where its number is 54 and every address below 4 GiB. */
static struct result int80(const struct gpu *gpu, uint64_t *size, uint32_t *handle)
{
    static struct {
        struct rm_alloc message;
        struct rm_memory_params params;
    } *low;
    if (!low) {
        low = mmap(NULL, sizeof *low, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        if (low == MAP_FAILED)
            die("memory below 4 GiB");
    }
    low->params = (struct rm_memory_params){.owner = OWNER, .size = *size};
    low->message = alloc_message(gpu, CLASS_MEMORY_LOCAL_USER, &low->params, sizeof low->params);
    long answer = 54;
    __asm__ volatile("int $0x80"
                     : "+a"(answer)
                     : "b"(gpu->fd), "c"(request(ESC_ALLOC, sizeof low->message)), "d"(&low->message)
                     : "memory", "cc", "r8", "r9", "r10", "r11");
    int error = (int)answer;
    *size = low->params.size;
    *handle = low->message.handle;
    return error < 0 ? (struct result){.error = -error} : (struct result){.status = low->message.status};
}
#endif

/* NVOS32, the way before class 0x40. */
static struct result vidheap(const struct gpu *gpu, uint64_t *size, uint32_t *handle)
{
    struct rm_vid_heap message = {
        .root = gpu->client, .parent = gpu->device, .function = VID_HEAP_ALLOC_SIZE, .owner = OWNER, .size = *size,
    };
    struct result result = call(gpu->fd, ESC_VID_HEAP_CONTROL, &message, sizeof message, &message.status);
    *size = message.size;
    *handle = message.memory;
    return result;
}

/* Another function of it, which has the size elsewhere. */
static struct result vidrange(const struct gpu *gpu, uint64_t *size, uint32_t *handle)
{
    struct rm_vid_heap message = {
        .root = gpu->client, .parent = gpu->device, .function = VID_HEAP_ALLOC_RANGE, .owner = OWNER,
    };
    uint8_t *place = (uint8_t *)&message + 80;
    memcpy(place, size, sizeof *size);
    struct result result = call(gpu->fd, ESC_VID_HEAP_CONTROL, &message, sizeof message, &message.status);
    memcpy(size, place, sizeof *size);
    *handle = message.memory;
    return result;
}

/* So many times memory by it, and its end by it. */
static void vidpairs(char **arguments)
{
    struct gpu gpu = open_gpu();
    struct result result = {0};
    uint64_t count = 0;
    for (uint64_t most = number(arguments[0]); count < most; count++) {
        uint64_t size = number(arguments[1]) * MIB;
        uint32_t handle;
        result = vidheap(&gpu, &size, &handle);
        if (refused(result))
            break;
        struct rm_vid_heap message = {
            .root = gpu.client, .parent = gpu.device, .function = VID_HEAP_FREE, .owner = OWNER, .memory = handle,
            .kind[0] = 1, /* NVOS32_FREE_FLAGS_MEMORY_HANDLE_PROVIDED stands there */
        };
        result = call(gpu.fd, ESC_VID_HEAP_CONTROL, &message, sizeof message, &message.status);
        if (refused(result))
            break;
    }
    printf("%llu pairs, ", (unsigned long long)count);
    print_result(result);
}

/* NVOS02, older still: of the device's memory it only says how much there is. */
static void heapsize(char **arguments)
{
    (void)arguments;
    struct gpu gpu = open_gpu();
    struct rm_alloc_memory message = {
        .root = gpu.client, .parent = gpu.device, .cls = CLASS_MEMORY_LOCAL_USER, .fd = -1,
    };
    struct result result = call(gpu.fd, ESC_ALLOC_MEMORY, &message, sizeof message, &message.status);
    printf("a heap of %llu bytes, ", (unsigned long long)message.limit + 1);
    print_result(result);
}

static struct result of_params_size(const struct gpu *gpu, uint64_t *size, uint32_t *handle, size_t said)
{
    struct rm_memory_params params = {.owner = OWNER, .size = *size};
    struct result result = alloc_class(gpu, CLASS_MEMORY_LOCAL_USER, &params, said, handle);
    *size = params.size;
    return result;
}

static struct result shortparams(const struct gpu *gpu, uint64_t *size, uint32_t *handle)
{
    return of_params_size(gpu, size, handle, 1);
}

static struct result hugeparams(const struct gpu *gpu, uint64_t *size, uint32_t *handle)
{
    return of_params_size(gpu, size, handle, 0xFFFFFFFF);
}

#define FILL(name, how)                                   \
    static void fill_##name(char **arguments)             \
    {                                                     \
        struct gpu gpu = open_gpu();                      \
        fill(&gpu, how, number(arguments[0]) * MIB);      \
    }
FILL(plain, alloc_memory)
FILL(highbits, highbits)
FILL(direction, direction)
FILL(old32, old32)
FILL(xfer, xfer)
#ifdef __x86_64__
FILL(int80, int80)
#endif
FILL(vidheap, vidheap)
FILL(vidrange, vidrange)
FILL(shortparams, shortparams)
FILL(hugeparams, hugeparams)

const struct subcommand form_commands[] = {
    {"fill", "MIB", 1, fill_plain},
    {"highbits", "MIB", 1, fill_highbits},
    {"direction", "MIB", 1, fill_direction},
    {"old32", "MIB", 1, fill_old32},
    {"xfer", "MIB", 1, fill_xfer},
#ifdef __x86_64__
    {"int80", "MIB", 1, fill_int80},
#endif
    {"vidheap", "MIB", 1, fill_vidheap},
    {"vidrange", "MIB", 1, fill_vidrange},
    {"vidpairs", "N MIB", 2, vidpairs},
    {"heapsize", "", 0, heapsize},
    {"shortparams", "MIB", 1, fill_shortparams},
    {"hugeparams", "MIB", 1, fill_hugeparams},
    {0},
};
