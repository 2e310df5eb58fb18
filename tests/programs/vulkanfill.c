/* Takes device memory by Vulkan until it is refused. usage: vulkanfill [-m MOST] [-s SECONDS] LOADER DRIVER...
 *
 * LOADER is a Vulkan loader to open. Each DRIVER is tried in turn, the name of a library that is a Vulkan driver, until
 * one has a device. Prints a line for each call that failed, by its error's name, then
 *
 *     vulkan got BYTES in COUNT last ERROR
 *
 * What is declared here is Vulkan 1.0's ABI for 64-bit programs (vulkan_core.h of the Khronos Group has the names).
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)

enum { APPLICATION_INFO = 0, INSTANCE_CREATE_INFO = 1, DEVICE_QUEUE_CREATE_INFO = 2, DEVICE_CREATE_INFO = 3,
       MEMORY_ALLOCATE_INFO = 5 };
enum { DEVICE_LOCAL = 1, HOST_VISIBLE = 2 };

struct application_info {
    int32_t type;
    const void *next;
    const char *application;
    uint32_t application_version;
    const char *engine;
    uint32_t engine_version, api_version;
};

struct instance_create_info {
    int32_t type;
    const void *next;
    uint32_t flags;
    const struct application_info *application;
    uint32_t layer_count;
    const char *const *layers;
    uint32_t extension_count;
    const char *const *extensions;
};

struct queue_create_info {
    int32_t type;
    const void *next;
    uint32_t flags, family, count;
    const float *priorities;
};

struct device_create_info {
    int32_t type;
    const void *next;
    uint32_t flags, queue_count;
    const struct queue_create_info *queues;
    uint32_t layer_count;
    const char *const *layers;
    uint32_t extension_count;
    const char *const *extensions;
    const void *features;
};

struct memory_allocate_info {
    int32_t type;
    const void *next;
    uint64_t size;
    uint32_t memory_type;
};

struct memory_properties {
    uint32_t type_count;
    struct {
        uint32_t flags, heap;
    } types[32];
    uint32_t heap_count;
    struct {
        uint64_t size;
        uint32_t flags;
    } heaps[16];
};

_Static_assert(sizeof(struct application_info) == 48, "VkApplicationInfo");
_Static_assert(sizeof(struct instance_create_info) == 64, "VkInstanceCreateInfo");
_Static_assert(sizeof(struct queue_create_info) == 40, "VkDeviceQueueCreateInfo");
_Static_assert(sizeof(struct device_create_info) == 72, "VkDeviceCreateInfo");
_Static_assert(sizeof(struct memory_allocate_info) == 32, "VkMemoryAllocateInfo");
_Static_assert(sizeof(struct memory_properties) == 520, "VkPhysicalDeviceMemoryProperties");

static struct {
    int32_t (*create_instance)(const struct instance_create_info *, const void *, void **);
    int32_t (*enumerate)(void *instance, uint32_t *, void **);
    void (*properties)(void *gpu, void *);
    void (*memory_properties)(void *gpu, struct memory_properties *);
    int32_t (*create_device)(void *gpu, const struct device_create_info *, const void *, void **);
    int32_t (*allocate)(void *device, const struct memory_allocate_info *, const void *, uint64_t *);
} vk;

static const char *error_name(int32_t result)
{
    static const char *const names[] = {
        "VK_SUCCESS",
        "VK_ERROR_OUT_OF_HOST_MEMORY",
        "VK_ERROR_OUT_OF_DEVICE_MEMORY",
        "VK_ERROR_INITIALIZATION_FAILED",
        "VK_ERROR_DEVICE_LOST",
        "VK_ERROR_MEMORY_MAP_FAILED",
        "VK_ERROR_LAYER_NOT_PRESENT",
        "VK_ERROR_EXTENSION_NOT_PRESENT",
        "VK_ERROR_FEATURE_NOT_PRESENT",
        "VK_ERROR_INCOMPATIBLE_DRIVER",
        "VK_ERROR_TOO_MANY_OBJECTS",
    };
    static char number[32];
    if (result <= 0 && result > -(int32_t)(sizeof names / sizeof *names))
        return names[-result];
    snprintf(number, sizeof number, "VkResult_%d", (int)result);
    return number;
}

static int32_t reported(const char *call, int32_t result)
{
    if (result != 0)
        printf("  %s: %s\n", call, error_name(result));
    return result;
}

static int open_loader(const char *path)
{
    void *loader = dlopen(path, RTLD_NOW);
    const struct {
        void *function;
        const char *name;
    } wanted[] = {
        {&vk.create_instance, "vkCreateInstance"},
        {&vk.enumerate, "vkEnumeratePhysicalDevices"},
        {&vk.properties, "vkGetPhysicalDeviceProperties"},
        {&vk.memory_properties, "vkGetPhysicalDeviceMemoryProperties"},
        {&vk.create_device, "vkCreateDevice"},
        {&vk.allocate, "vkAllocateMemory"},
    };
    for (size_t i = 0; loader && i < sizeof wanted / sizeof *wanted; i++)
        if (!(*(void **)wanted[i].function = dlsym(loader, wanted[i].name)))
            loader = NULL;
    if (!loader)
        printf("  dlopen: %s\n", dlerror());
    return loader != NULL;
}

/* Tells the loader of this driver alone. */
static void name_driver(const char *driver)
{
    char path[] = "/tmp/vulkanfill-XXXXXX.json";
    int fd = mkstemps(path, (int)strlen(".json"));
    if (fd < 0) {
        perror("vulkanfill: /tmp");
        exit(1);
    }
    dprintf(fd, "{\"file_format_version\": \"1.0.0\", \"ICD\": {\"library_path\": \"%s\", \"api_version\": \"1.3.0\"}}\n",
            driver);
    close(fd);
    setenv("VK_DRIVER_FILES", path, 1);
    setenv("VK_ICD_FILENAMES", path, 1); /* what older loaders look at */
    setenv("VK_LOADER_DEBUG", "error", 1);
}

/* The first GPU, or NULL. */
static void *find_gpu(void)
{
    struct application_info application = {.type = APPLICATION_INFO, .api_version = 1 << 22};
    struct instance_create_info wanted = {.type = INSTANCE_CREATE_INFO, .application = &application};
    void *instance, *gpus[16];
    uint32_t count = sizeof gpus / sizeof *gpus;
    if (reported("vkCreateInstance", vk.create_instance(&wanted, NULL, &instance)) != 0)
        return NULL;
    if (reported("vkEnumeratePhysicalDevices", vk.enumerate(instance, &count, gpus)) != 0)
        return NULL;
    if (count == 0) {
        printf("  vkEnumeratePhysicalDevices: no device\n");
        return NULL;
    }
    uint64_t properties[512] = {0}; /* more than VkPhysicalDeviceProperties; the name is at 20 */
    vk.properties(gpus[0], properties);
    printf("  %u devices, the first is %s\n", count, (const char *)properties + 20);
    return gpus[0];
}

static void *create_device(void *gpu)
{
    const float priority = 1;
    struct queue_create_info queue = {.type = DEVICE_QUEUE_CREATE_INFO, .count = 1, .priorities = &priority};
    struct device_create_info wanted = {.type = DEVICE_CREATE_INFO, .queue_count = 1, .queues = &queue};
    void *device;
    return reported("vkCreateDevice", vk.create_device(gpu, &wanted, NULL, &device)) == 0 ? device : NULL;
}

/* Memory of the device that the processor can't see, if there is such. */
static uint32_t memory_type(void *gpu)
{
    struct memory_properties memory;
    uint32_t chosen = 0;
    int chosen_rank = 0;
    vk.memory_properties(gpu, &memory);
    for (uint32_t i = 0; i < memory.type_count && i < 32; i++) {
        uint32_t flags = memory.types[i].flags;
        int rank = flags & DEVICE_LOCAL ? (flags & HOST_VISIBLE ? 1 : 2) : 0;
        if (rank > chosen_rank) {
            chosen = i;
            chosen_rank = rank;
        }
    }
    uint32_t heap = memory.types[chosen].heap;
    printf("  memory type %u, heap %u of %llu MiB\n", chosen, heap,
           (unsigned long long)(memory.heaps[heap < 16 ? heap : 0].size / MIB));
    return chosen;
}

static void fill(void *device, uint32_t type, uint64_t most)
{
    uint64_t got = 0, count = 0;
    int32_t last = 0;
    for (uint64_t size = 256 * MIB; size >= 2 * MIB && got < most;) {
        struct memory_allocate_info wanted = {.type = MEMORY_ALLOCATE_INFO, .size = size, .memory_type = type};
        uint64_t memory;
        int32_t result = vk.allocate(device, &wanted, NULL, &memory);
        if (result == 0) {
            got += size;
            count++;
        } else {
            last = result;
            size /= 2;
        }
    }
    printf("vulkan got %llu in %llu last %s\n", (unsigned long long)got, (unsigned long long)count, error_name(last));
}

/* In a process of its own, since a loader looks at its environment once: whether that driver has a device. */
static int try_driver(const char *loader, const char *driver, uint64_t most, double seconds)
{
    printf("  driver %s\n", driver);
    name_driver(driver);
    void *gpu = open_loader(loader) ? find_gpu() : NULL;
    void *device = gpu ? create_device(gpu) : NULL;
    if (!device)
        return 1;
    fill(device, memory_type(gpu), most);
    usleep((useconds_t)(seconds * 1e6));
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t most = UINT64_MAX;
    double seconds = 0;
    int option, status;
    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((option = getopt(argc, argv, "m:s:")) != -1)
        if (option == 'm')
            most = strtoull(optarg, NULL, 10);
        else if (option == 's')
            seconds = strtod(optarg, NULL);
        else
            return 2;
    if (argc - optind < 2) {
        fprintf(stderr, "usage: vulkanfill [-m MOST] [-s SECONDS] LOADER DRIVER...\n");
        return 2;
    }
    for (int i = optind + 1; i < argc; i++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            status = try_driver(argv[optind], argv[i], most, seconds);
            fflush(stdout);
            _exit(status);
        }
        if (child < 0 || waitpid(child, &status, 0) < 0) {
            perror("vulkanfill: fork");
            return 1;
        }
        if (WIFSIGNALED(status))
            printf("  ended by signal %d\n", WTERMSIG(status));
        if (WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0)
            return 0; /* done, or ended from outside; a driver that crashes is one of which there may be another */
    }
    printf("vulkan got 0 in 0 last no_driver_has_a_device\n");
    return 1;
}
