/* -L, and the memory part of -q. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "smi.h"

static void list_instances(nvmlDevice_t gpu)
{
    nvmlDevice_t instance;
    for (unsigned i = 0; (instance = instance_of(gpu, &i)); i++) {
        char name[128] = "", uuid[96] = "";
        nvml.nvmlDeviceGetName(instance, name, sizeof name);
        nvml.nvmlDeviceGetUUID(instance, uuid, sizeof uuid);
        const char *profile = strstr(name, "MIG ");
        printf("  %-15s Device %2u: (UUID: %s)\n", profile ? profile : name, i, uuid);
    }
}

int show_list(const struct selection *selection)
{
    for (unsigned i = 0; i < selection->count; i++) {
        unsigned index = 0;
        char name[128] = "", uuid[96] = "";
        nvml.nvmlDeviceGetIndex(selection->devices[i], &index);
        nvml.nvmlDeviceGetName(selection->devices[i], name, sizeof name);
        nvml.nvmlDeviceGetUUID(selection->devices[i], uuid, sizeof uuid);
        printf("GPU %u: %s (UUID: %s)\n", index, name, uuid);
        list_instances(selection->devices[i]);
    }
    return 0;
}

static void line(int indent, const char *key, const char *value)
{
    printf("%*s%-*s: %s\n", indent, "", 55 - indent, key, value);
}

static void amount(const char *key, unsigned long long bytes)
{
    char value[64];
    snprintf(value, sizeof value, "%llu MiB", mib(bytes));
    line(8, key, value);
}

static void device_memory(nvmlDevice_t device)
{
    nvmlPciInfo_t pci = { .busId = "" };
    nvmlBAR1Memory_t bar = { 0, 0, 0 };
    nvmlMemory_v2_t memory = memory_of(device);
    nvml.nvmlDeviceGetPciInfo_v3(device, &pci);
    nvml.nvmlDeviceGetBAR1MemoryInfo(device, &bar);
    printf("GPU %s\n    FB Memory Usage\n", pci.busId);
    amount("Total", memory.total);
    amount("Reserved", memory.reserved);
    amount("Used", memory.used);
    amount("Free", memory.free);
    printf("    BAR1 Memory Usage\n");
    amount("Total", bar.bar1Total);
    amount("Used", bar.bar1Used);
    amount("Free", bar.bar1Free);
    printf("    Conf Compute Protected Memory Usage\n");
    amount("Total", 0);
    amount("Used", 0);
    amount("Free", 0);
    putchar('\n');
}

int show_memory(const struct selection *selection)
{
    char text[96] = "";
    int cuda = 0;
    unsigned count = 0;
    time_t now = time(NULL);
    struct tm local;
    printf("\n==============NVSMI LOG==============\n\n");
    strftime(text, sizeof text, "%a %b %e %H:%M:%S %Y", localtime_r(&now, &local));
    line(0, "Timestamp", text);
    nvml.nvmlSystemGetDriverVersion(text, sizeof text);
    line(0, "Driver Version", text);
    nvml.nvmlSystemGetCudaDriverVersion_v2(&cuda);
    snprintf(text, sizeof text, "%d.%d", cuda / 1000, cuda % 1000 / 10);
    line(0, "CUDA Version", text);
    nvml.nvmlDeviceGetCount_v2(&count);
    snprintf(text, sizeof text, "%u", count);
    printf("\n");
    line(0, "Attached GPUs", text);
    for (unsigned i = 0; i < selection->count; i++)
        device_memory(selection->devices[i]);
    return 0;
}
