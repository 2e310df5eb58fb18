/* --query-gpu: comma-separated values of the fields asked for. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "field.h"

static void name(nvmlDevice_t device, char *value)
{
    nvml.nvmlDeviceGetName(device, value, VALUE);
}

static void uuid(nvmlDevice_t device, char *value)
{
    nvml.nvmlDeviceGetUUID(device, value, VALUE);
}

static void number(char *value, nvmlReturn_t result, unsigned long long what)
{
    if (result)
        strcpy(value, "[N/A]");
    else
        snprintf(value, VALUE, "%llu", what);
}

static void index_of(nvmlDevice_t device, char *value)
{
    unsigned index = 0;
    nvmlReturn_t result = nvml.nvmlDeviceGetIndex(device, &index);
    number(value, result, index);
}

static void count(nvmlDevice_t device, char *value)
{
    (void)device;
    unsigned devices = 0;
    nvmlReturn_t result = nvml.nvmlDeviceGetCount_v2(&devices);
    number(value, result, devices);
}

static void driver_version(nvmlDevice_t device, char *value)
{
    (void)device;
    nvml.nvmlSystemGetDriverVersion(value, VALUE);
}

static void bus_id(nvmlDevice_t device, char *value)
{
    nvmlPciInfo_t pci = { .busId = "" };
    nvml.nvmlDeviceGetPciInfo_v3(device, &pci);
    snprintf(value, VALUE, "%s", pci.busId);
}

#define MEMORY(field)                                                   \
    static void memory_##field(nvmlDevice_t device, char *value)        \
    {                                                                   \
        if (has_memory(device))                                         \
            number(value, NVML_SUCCESS, mib(memory_of(device).field));  \
        else                                                            \
            strcpy(value, "[Insufficient Permissions]");                \
    }
MEMORY(total)
MEMORY(reserved)
MEMORY(used)
MEMORY(free)

static void temperature(nvmlDevice_t device, char *value)
{
    unsigned celsius = 0;
    nvmlReturn_t result = nvml.nvmlDeviceGetTemperature(device, NVML_TEMPERATURE_GPU, &celsius);
    number(value, result, celsius);
}

static void utilization_gpu(nvmlDevice_t device, char *value)
{
    nvmlUtilization_t busy = { 0, 0 };
    nvmlReturn_t result = nvml.nvmlDeviceGetUtilizationRates(device, &busy);
    number(value, result, busy.gpu);
}

static void utilization_memory(nvmlDevice_t device, char *value)
{
    nvmlUtilization_t busy = { 0, 0 };
    nvmlReturn_t result = nvml.nvmlDeviceGetUtilizationRates(device, &busy);
    number(value, result, busy.memory);
}

static void watts(char *value, nvmlReturn_t result, unsigned milliwatts)
{
    if (result)
        strcpy(value, "[N/A]");
    else
        snprintf(value, VALUE, "%u.%02u", milliwatts / 1000, milliwatts % 1000 / 10);
}

static void power_draw(nvmlDevice_t device, char *value)
{
    unsigned power = 0;
    nvmlReturn_t result = nvml.nvmlDeviceGetPowerUsage(device, &power);
    watts(value, result, power);
}

static void power_limit(nvmlDevice_t device, char *value)
{
    unsigned power = 0;
    nvmlReturn_t result = nvml.nvmlDeviceGetEnforcedPowerLimit(device, &power);
    watts(value, result, power);
}

static void fan_speed(nvmlDevice_t device, char *value)
{
    unsigned percent = 0;
    nvmlReturn_t result = nvml.nvmlDeviceGetFanSpeed(device, &percent);
    number(value, result, percent);
}

static void performance(nvmlDevice_t device, char *value)
{
    nvmlPstates_t state = NVML_PSTATE_0;
    nvml.nvmlDeviceGetPerformanceState(device, &state);
    snprintf(value, VALUE, "P%d", (int)state);
}

static void persistence(nvmlDevice_t device, char *value)
{
    nvmlEnableState_t mode = NVML_FEATURE_DISABLED;
    nvml.nvmlDeviceGetPersistenceMode(device, &mode);
    strcpy(value, mode ? "Enabled" : "Disabled");
}

static void compute_mode(nvmlDevice_t device, char *value)
{
    (void)device;
    strcpy(value, "Default");
}

static void mig_mode(nvmlDevice_t device, char *value)
{
    unsigned current = 0, pending = 0;
    nvmlReturn_t result = nvml.nvmlDeviceGetMigMode(device, &current, &pending);
    strcpy(value, result ? "[N/A]" : current ? "Enabled" : "Disabled");
}

static void capability(nvmlDevice_t device, char *value)
{
    int major = 0, minor = 0;
    nvml.nvmlDeviceGetCudaComputeCapability(device, &major, &minor);
    snprintf(value, VALUE, "%d.%d", major, minor);
}

static void timestamp(nvmlDevice_t device, char *value)
{
    (void)device;
    struct timespec now;
    struct tm local;
    clock_gettime(CLOCK_REALTIME, &now);
    size_t length = strftime(value, VALUE, "%Y/%m/%d %H:%M:%S", localtime_r(&now.tv_sec, &local));
    snprintf(value + length, VALUE - length, ".%03ld", now.tv_nsec / 1000000);
}

static const struct field gpu_fields[] = {
    { "timestamp", "", timestamp },
    { "driver_version", "", driver_version },
    { "count", "", count },
    { "name", "", name },
    { "gpu_name", "", name },
    { "uuid", "", uuid },
    { "gpu_uuid", "", uuid },
    { "index", "", index_of },
    { "pci.bus_id", "", bus_id },
    { "gpu_bus_id", "", bus_id },
    { "memory.total", "MiB", memory_total },
    { "memory.reserved", "MiB", memory_reserved },
    { "memory.used", "MiB", memory_used },
    { "memory.free", "MiB", memory_free },
    { "utilization.gpu", "%", utilization_gpu },
    { "utilization.memory", "%", utilization_memory },
    { "temperature.gpu", "", temperature },
    { "power.draw", "W", power_draw },
    { "power.limit", "W", power_limit },
    { "enforced.power.limit", "W", power_limit },
    { "fan.speed", "%", fan_speed },
    { "pstate", "", performance },
    { "persistence_mode", "", persistence },
    { "compute_mode", "", compute_mode },
    { "compute_cap", "", capability },
    { "mig.mode.current", "", mig_mode },
    { "mig.mode.pending", "", mig_mode },
};

const struct field *find_field(const char *wanted, size_t length)
{
    for (size_t i = 0; i < sizeof gpu_fields / sizeof *gpu_fields; i++)
        if (strlen(gpu_fields[i].name) == length && strncmp(gpu_fields[i].name, wanted, length) == 0)
            return &gpu_fields[i];
    return NULL;
}

int bad_field(const char *field, int length, const char *option)
{
    printf("Field \"%.*s\" is not a valid field to query.\n\n", length, field);
    fprintf(stderr, "Run 'nvidia-smi --help-%s' for the fields that there are.\n", option);
    return 2;
}

const char *next_field(const char **rest, size_t *length)
{
    *rest += strspn(*rest, ", ");
    const char *field = *rest;
    *length = strcspn(field, ", ");
    *rest += *length;
    return field;
}

static int gpu_header(const char *fields, struct format format)
{
    size_t length;
    const char *separator = "";
    for (const char *rest = fields, *at = next_field(&rest, &length); length; at = next_field(&rest, &length)) {
        const struct field *field = find_field(at, length);
        if (!field)
            return bad_field(at, (int)length, "query-gpu");
        if (!format.header)
            continue;
        printf("%s%s", separator, field->name);
        if (*field->unit && format.units)
            printf(" [%s]", field->unit);
        separator = ", ";
    }
    if (format.header)
        putchar('\n');
    return 0;
}

int show_query(const struct selection *selection, const char *fields, struct format format)
{
    int failed = gpu_header(fields, format);
    for (unsigned i = 0; i < selection->count && !failed; i++) {
        size_t length;
        const char *separator = "";
        for (const char *rest = fields, *at = next_field(&rest, &length); length; at = next_field(&rest, &length)) {
            const struct field *field = find_field(at, length);
            char value[VALUE] = "";
            field->write(selection->devices[i], value);
            bool unit = *field->unit && format.units && *value != '[';
            printf("%s%s%s%s", separator, value, unit ? " " : "", unit ? field->unit : "");
            separator = ", ";
        }
        putchar('\n');
    }
    return failed;
}
