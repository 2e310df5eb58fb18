/* The table that nvidia-smi shows without arguments, in the layout of driver 580. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "smi.h"

#define NAME_WIDTH 27
#define PROCESS_WIDTH 36
#define GPU_LINE "+-----------------------------------------+------------------------+----------------------+\n"
#define INSTANCE_LINE "+------------------+----------------------------------+-----------+-----------------------+\n"
#define WHOLE_LINE "+-----------------------------------------------------------------------------------------+\n"

static void head(void)
{
    char when[64], driver[96] = "N/A", program[128], version[128], cuda_text[32];
    time_t now = time(NULL);
    int cuda = 0;
    struct tm local;
    strftime(when, sizeof when, "%a %b %e %H:%M:%S %Y", localtime_r(&now, &local));
    nvml.nvmlSystemGetDriverVersion(driver, sizeof driver);
    nvml.nvmlSystemGetCudaDriverVersion_v2(&cuda);
    snprintf(program, sizeof program, "NVIDIA-SMI %s", driver);
    snprintf(version, sizeof version, "Driver Version: %s", driver);
    printf("%s       \n" WHOLE_LINE, when);
    snprintf(cuda_text, sizeof cuda_text, "%d.%d", cuda / 1000, cuda % 1000 / 10);
    printf("| %-33s %-30s CUDA Version: %-8s |\n", program, version, cuda_text);
    printf(GPU_LINE
           "| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |\n"
           "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |\n"
           "|                                         |                        |               MIG M. |\n"
           "|=========================================+========================+======================|\n");
}

/* A name that is too long is cut and ends in dots. */
static void cut_name(char *name)
{
    if (strlen(name) > NAME_WIDTH)
        strcpy(name + NAME_WIDTH - 3, "...");
}

static void first_row(nvmlDevice_t device)
{
    unsigned index = 0;
    char name[128] = "", ecc[32];
    nvmlPciInfo_t pci = { .busId = "" };
    nvmlEnableState_t persistence = NVML_FEATURE_DISABLED, display = NVML_FEATURE_DISABLED;
    unsigned long long errors = 0;
    nvml.nvmlDeviceGetIndex(device, &index);
    nvml.nvmlDeviceGetName(device, name, sizeof name);
    nvml.nvmlDeviceGetPciInfo_v3(device, &pci);
    nvml.nvmlDeviceGetPersistenceMode(device, &persistence);
    nvml.nvmlDeviceGetDisplayActive(device, &display);
    nvmlReturn_t result =
        nvml.nvmlDeviceGetTotalEccErrors(device, NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC, &errors);
    cut_name(name);
    printf("|%4u  %-27s    %-3s |   %16s %-3s | %20s |\n", index, name, persistence ? "On" : "Off", pci.busId,
           display ? "On" : "Off", number_or_na(result, errors, "", ecc, sizeof ecc));
}

static void second_row(nvmlDevice_t device)
{
    unsigned fan = 0, temperature = 0, power = 0, limit = 0;
    nvmlPstates_t state = NVML_PSTATE_0;
    nvmlUtilization_t busy = { 0, 0 };
    char fan_text[32], state_text[32], memory_text[64];
    nvmlReturn_t fan_result = nvml.nvmlDeviceGetFanSpeed(device, &fan);
    nvml.nvmlDeviceGetTemperature(device, NVML_TEMPERATURE_GPU, &temperature);
    nvml.nvmlDeviceGetPerformanceState(device, &state);
    nvml.nvmlDeviceGetPowerUsage(device, &power);
    nvml.nvmlDeviceGetEnforcedPowerLimit(device, &limit);
    nvml.nvmlDeviceGetUtilizationRates(device, &busy);
    snprintf(state_text, sizeof state_text, "P%d", (int)state);
    printf("|%4s %4uC    %-3s         %5uW /%5uW | %22s | %6u%%      Default |\n",
           number_or_na(fan_result, fan, "%", fan_text, sizeof fan_text), temperature, state_text, power / 1000,
           limit / 1000, usage_of(device, memory_text, sizeof memory_text), busy.gpu);
}

static void third_row(nvmlDevice_t device)
{
    unsigned current = 0, pending = 0;
    nvmlReturn_t result = nvml.nvmlDeviceGetMigMode(device, &current, &pending);
    const char *mode = result ? "N/A" : current ? "Enabled" : "Disabled";
    printf("|                                         |                        | %20s |\n" GPU_LINE, mode);
}

static void instance_row(nvmlDevice_t gpu, nvmlDevice_t instance, unsigned place)
{
    unsigned index = 0, part = 0, compute = 0;
    char usage[64];
    nvml.nvmlDeviceGetIndex(gpu, &index);
    nvml.nvmlDeviceGetGpuInstanceId(instance, &part);
    nvml.nvmlDeviceGetComputeInstanceId(instance, &compute);
    printf("|%3u %4u %3u %3u  |%28s      |           |                       |\n" INSTANCE_LINE, index, part, compute, place,
           usage_of(instance, usage, sizeof usage));
}

/* Under the GPUs, where one of them is in parts. */
static void instances(const struct selection *selection)
{
    bool headed = false;
    for (unsigned i = 0; i < selection->count; i++) {
        nvmlDevice_t instance;
        for (unsigned place = 0; (instance = instance_of(selection->devices[i], &place)); place++) {
            if (!headed)
                printf("\n" WHOLE_LINE
                       "| MIG devices:                                                                            |\n"
                       INSTANCE_LINE
                       "| GPU  GI  CI  MIG |              Shared Memory-Usage |        Vol|        Shared         |\n"
                       "|      ID  ID  Dev |                Shared BAR1-Usage | SM     Unc| CE ENC  DEC  OFA  JPG |\n"
                       "|                  |                                  |        ECC|                       |\n"
                       "|==================+==================================+===========+=======================|\n");
            headed = true;
            instance_row(selection->devices[i], instance, place);
        }
    }
}

/* An instance in a row of the list of processes; "N/A" for a whole GPU. */
static const char *id(unsigned value, char *text, size_t size)
{
    if (value == 0xFFFFFFFF)
        return "N/A";
    snprintf(text, size, "%u", value);
    return text;
}

static void process_row(unsigned gpu, const nvmlProcessInfo_t *process)
{
    char name[1024] = "", shown[PROCESS_WIDTH + 1], part[16], compute[16];
    if (nvml.nvmlSystemGetProcessName(process->pid, name, sizeof name))
        strcpy(name, "[Not Found]");
    size_t length = strlen(name);
    if (length > PROCESS_WIDTH)
        snprintf(shown, sizeof shown, "...%s", name + length - (PROCESS_WIDTH - 3));
    else
        snprintf(shown, sizeof shown, "%s", name);
    printf("|%5u %5s%5s%16u      C   %-36s%7lluMiB |\n", gpu, id(process->gpuInstanceId, part, sizeof part),
           id(process->computeInstanceId, compute, sizeof compute), process->pid, shown, mib(process->usedGpuMemory));
}

/* Where the GPU itself lists none: those that the caller may see. */
static unsigned processes_of_instances(nvmlDevice_t gpu, unsigned index)
{
    unsigned rows = 0;
    nvmlDevice_t instance;
    for (unsigned place = 0; !has_memory(gpu) && (instance = instance_of(gpu, &place)); place++) {
        unsigned count;
        nvmlProcessInfo_t *list = processes_of(instance, &count);
        for (unsigned k = 0; k < count; k++)
            process_row(index, &list[k]);
        rows += count;
        free(list);
    }
    return rows;
}

static void processes(const struct selection *selection)
{
    unsigned rows = 0;
    printf("\n" WHOLE_LINE
           "| Processes:                                                                              |\n"
           "|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |\n"
           "|        ID   ID                                                               Usage      |\n"
           "|=========================================================================================|\n");
    for (unsigned i = 0; i < selection->count; i++) {
        unsigned index = 0, count;
        nvmlProcessInfo_t *list = processes_of(selection->devices[i], &count);
        nvml.nvmlDeviceGetIndex(selection->devices[i], &index);
        for (unsigned k = 0; k < count; k++)
            process_row(index, &list[k]);
        rows += count;
        free(list);
        rows += processes_of_instances(selection->devices[i], index);
    }
    if (!rows)
        printf("|  No running processes found                                                             |\n");
    printf(WHOLE_LINE);
}

int show_table(const struct selection *selection)
{
    head();
    for (unsigned i = 0; i < selection->count; i++) {
        first_row(selection->devices[i]);
        second_row(selection->devices[i]);
        third_row(selection->devices[i]);
    }
    instances(selection);
    processes(selection);
    return 0;
}
