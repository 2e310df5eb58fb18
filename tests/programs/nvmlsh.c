/* A shell of NVML calls for tests, in the manner of cudash: each argument is one command on the chosen device, its
 * result one line `COMMAND -> NUMBER VALUE...` (several lines where a call answers a list).
 *
 *     init | shutdown | count | device N | byuuid UUID | instance N | parent | name | uuid | driver
 *     memory     nvmlDeviceGetMemoryInfo -> total free used
 *     attributes nvmlDeviceGetAttributes_v2 -> memory in MiB
 *     memory2    nvmlDeviceGetMemoryInfo_v2 -> total free used reserved
 *     processes1 | processes2 | processes3     nvmlDeviceGetComputeRunningProcesses, by version -> pid:bytes ...
 *     graphics3  nvmlDeviceGetGraphicsRunningProcesses_v3
 *     sleep SECONDS | hold (until stdin ends)
 */
#define NVML_NO_UNVERSIONED_FUNC_DEFS /* every version under its own name */
#include <nvml.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES 1024

static nvmlDevice_t device;

static void processes_v1(const char *line)
{
    static nvmlProcessInfo_v1_t infos[PROCESSES];
    unsigned int count = PROCESSES;
    nvmlReturn_t result = nvmlDeviceGetComputeRunningProcesses(device, &count, infos);
    printf("%s -> %d", line, (int)result);
    for (unsigned int i = 0; result == NVML_SUCCESS && i < count; i++)
        printf(" %u:%llu", infos[i].pid, infos[i].usedGpuMemory);
    putchar('\n');
}

static void processes_v2(const char *line)
{
    static nvmlProcessInfo_v2_t infos[PROCESSES];
    unsigned int count = PROCESSES;
    nvmlReturn_t result = nvmlDeviceGetComputeRunningProcesses_v2(device, &count, infos);
    printf("%s -> %d", line, (int)result);
    for (unsigned int i = 0; result == NVML_SUCCESS && i < count; i++)
        printf(" %u:%llu", infos[i].pid, infos[i].usedGpuMemory);
    putchar('\n');
}

typedef nvmlReturn_t list_v3(nvmlDevice_t, unsigned int *, nvmlProcessInfo_t *);

static void processes_v3(const char *line, list_v3 *list)
{
    static nvmlProcessInfo_t infos[PROCESSES];
    unsigned int count = PROCESSES;
    nvmlReturn_t result = list(device, &count, infos);
    printf("%s -> %d", line, (int)result);
    for (unsigned int i = 0; result == NVML_SUCCESS && i < count; i++)
        printf(" %u:%llu", infos[i].pid, infos[i].usedGpuMemory);
    putchar('\n');
}

static void text(const char *line, nvmlReturn_t result, const char *value)
{
    printf("%s -> %d%s%s\n", line, (int)result, result == NVML_SUCCESS ? " " : "", result == NVML_SUCCESS ? value : "");
}

static void memory(const char *line)
{
    nvmlMemory_t info = {0};
    nvmlReturn_t result = nvmlDeviceGetMemoryInfo(device, &info);
    char value[128];
    snprintf(value, sizeof value, "%llu %llu %llu", info.total, info.free, info.used);
    text(line, result, value);
}

static void memory_v2(const char *line)
{
    nvmlMemory_v2_t info = {.version = nvmlMemory_v2};
    nvmlReturn_t result = nvmlDeviceGetMemoryInfo_v2(device, &info);
    char value[128];
    snprintf(value, sizeof value, "%llu %llu %llu %llu", info.total, info.free, info.used, info.reserved);
    text(line, result, value);
}

static void run(const char *line)
{
    char value[256] = "";
    const char *argument = strchr(line, ' ');
    argument = argument ? argument + 1 : "";
#define IS(name) (strncmp(line, name, strlen(name)) == 0 && strchr(" ", line[strlen(name)]) != NULL)
    if (IS("init")) {
        text(line, nvmlInit_v2(), "");
    } else if (IS("shutdown")) {
        text(line, nvmlShutdown(), "");
    } else if (IS("count")) {
        unsigned int count = 0;
        nvmlReturn_t result = nvmlDeviceGetCount_v2(&count);
        snprintf(value, sizeof value, "%u", count);
        text(line, result, value);
    } else if (IS("device")) {
        text(line, nvmlDeviceGetHandleByIndex_v2((unsigned int)atoi(argument), &device), "");
    } else if (IS("byuuid")) {
        text(line, nvmlDeviceGetHandleByUUID(argument, &device), "");
    } else if (IS("instance")) {
        text(line, nvmlDeviceGetMigDeviceHandleByIndex(device, (unsigned int)atoi(argument), &device), "");
    } else if (IS("parent")) {
        text(line, nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device, &device), "");
    } else if (IS("name")) {
        nvmlReturn_t result = nvmlDeviceGetName(device, value, sizeof value);
        text(line, result, value);
    } else if (IS("uuid")) {
        nvmlReturn_t result = nvmlDeviceGetUUID(device, value, sizeof value);
        text(line, result, value);
    } else if (IS("driver")) {
        nvmlReturn_t result = nvmlSystemGetDriverVersion(value, sizeof value);
        text(line, result, value);
    } else if (IS("memory")) {
        memory(line);
    } else if (IS("attributes")) {
        nvmlDeviceAttributes_t attributes = {0};
        nvmlReturn_t result = nvmlDeviceGetAttributes_v2(device, &attributes);
        snprintf(value, sizeof value, "%llu", attributes.memorySizeMB);
        text(line, result, value);
    } else if (IS("memory2")) {
        memory_v2(line);
    } else if (IS("processes1")) {
        processes_v1(line);
    } else if (IS("processes2")) {
        processes_v2(line);
    } else if (IS("processes3")) {
        processes_v3(line, nvmlDeviceGetComputeRunningProcesses_v3);
    } else if (IS("graphics3")) {
        processes_v3(line, nvmlDeviceGetGraphicsRunningProcesses_v3);
    } else if (IS("sleep")) {
        double seconds = strtod(argument, NULL);
        struct timespec rest = {.tv_sec = (time_t)seconds};
        rest.tv_nsec = (long)((seconds - (double)rest.tv_sec) * 1e9);
        nanosleep(&rest, NULL);
        text(line, NVML_SUCCESS, "");
    } else if (IS("hold")) {
        text(line, NVML_SUCCESS, "");
        while (read(STDIN_FILENO, value, sizeof value) > 0)
            ;
    } else {
        fprintf(stderr, "nvmlsh: there is no command '%s'\n", line);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < argc; i++)
        run(argv[i]);
    return 0;
}
