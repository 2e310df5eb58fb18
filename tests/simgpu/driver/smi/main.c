/* nvidia-smi for the simulated GPU host: the table, -L, -q -d MEMORY, --query-gpu, --query-compute-apps, -i. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smi.h"

/* Exit codes of the real one (its man page). */
enum { EXIT_INVALID = 2, EXIT_NO_DEVICE = 6, EXIT_NO_DRIVER = 9, EXIT_NO_LIBRARY = 12 };

struct options {
    bool list, log;
    const char *devices, *gpu_fields, *process_fields;
    struct format format;
};

static int invalid(const char *option)
{
    printf("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\n");
    fprintf(stderr, "nvidia-smi (simulated): what is \"%s\"?\n", option);
    return EXIT_INVALID;
}

/* The value of an option: behind "=", or the next argument. NULL where it is another option. */
static const char *value_of(char **arguments, int *at, const char *option)
{
    size_t length = strlen(option);
    if (strncmp(arguments[*at], option, length) != 0)
        return NULL;
    if (arguments[*at][length] == '=')
        return arguments[*at] + length + 1;
    return arguments[*at][length] || !arguments[*at + 1] ? NULL : arguments[++*at];
}

static bool parse_format(const char *text, struct format *format)
{
    if (strncmp(text, "csv", 3) != 0)
        return false;
    format->header = !strstr(text, "noheader");
    format->units = !strstr(text, "nounits");
    return true;
}

static int parse(char **arguments, struct options *options)
{
    const char *value;
    bool csv = false;
    for (int i = 1; arguments[i]; i++) {
        const char *option = arguments[i];
        if (!strcmp(option, "-L") || !strcmp(option, "--list-gpus"))
            options->list = true;
        else if (!strcmp(option, "-q") || !strcmp(option, "--query"))
            options->log = true;
        else if ((value = value_of(arguments, &i, "-d")) || (value = value_of(arguments, &i, "--display"))) {
            if (strcmp(value, "MEMORY") != 0)
                return invalid(value);
        } else if ((value = value_of(arguments, &i, "-i")) || (value = value_of(arguments, &i, "--id")))
            options->devices = value;
        else if ((value = value_of(arguments, &i, "--query-gpu")))
            options->gpu_fields = value;
        else if ((value = value_of(arguments, &i, "--query-compute-apps")))
            options->process_fields = value;
        else if ((value = value_of(arguments, &i, "--format")) && parse_format(value, &options->format))
            csv = true;
        else
            return invalid(option);
    }
    return (options->gpu_fields || options->process_fields) && !csv ? invalid("--query without --format=csv") : 0;
}

static nvmlReturn_t find(const char *what, nvmlDevice_t *device)
{
    char *end;
    unsigned long index = strtoul(what, &end, 10);
    if (*what && !*end)
        return nvml.nvmlDeviceGetHandleByIndex_v2((unsigned)index, device);
    if (strncmp(what, "GPU-", 4) == 0 || strncmp(what, "MIG-", 4) == 0)
        return nvml.nvmlDeviceGetHandleByUUID(what, device);
    return nvml.nvmlDeviceGetHandleByPciBusId_v2(what, device);
}

static int select_devices(const char *wanted, struct selection *selection)
{
    unsigned count = 0;
    nvml.nvmlDeviceGetCount_v2(&count);
    if (!count) {
        printf("No devices were found\n");
        return EXIT_NO_DEVICE;
    }
    selection->devices = calloc(count, sizeof *selection->devices);
    if (!selection->devices)
        return EXIT_INVALID;
    if (!wanted) {
        for (; selection->count < count; selection->count++)
            nvml.nvmlDeviceGetHandleByIndex_v2(selection->count, &selection->devices[selection->count]);
        return 0;
    }
    char *list = strdup(wanted), *state = NULL;
    for (char *item = strtok_r(list, ",", &state); item && selection->count < count;
         item = strtok_r(NULL, ",", &state)) {
        if (find(item, &selection->devices[selection->count++])) {
            printf("No devices were found\n");
            free(list);
            return EXIT_NO_DEVICE;
        }
    }
    free(list);
    return 0;
}

static int start(void)
{
    if (!nvml_load()) {
        printf("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA "
               "Display Driver is properly installed and present in your system.\n"
               "Please also try adding directory that contains libnvidia-ml.so to your system PATH.\n");
        return EXIT_NO_LIBRARY;
    }
    nvmlReturn_t result = nvml.nvmlInit_v2();
    if (result == NVML_ERROR_DRIVER_NOT_LOADED) {
        printf("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the "
               "latest NVIDIA driver is installed and running.\n\n");
        return EXIT_NO_DRIVER;
    }
    if (result) {
        printf("Failed to initialize NVML: %s\n", nvml.nvmlErrorString(result));
        return 255;
    }
    return 0;
}

int main(int count, char **arguments)
{
    struct options options = { .list = false };
    struct selection selection = { NULL, 0 };
    (void)count;
    int failed = parse(arguments, &options);
    if (!failed)
        failed = start();
    if (!failed)
        failed = select_devices(options.devices, &selection);
    if (!failed && options.list)
        failed = show_list(&selection);
    else if (!failed && options.log)
        failed = show_memory(&selection);
    else if (!failed && options.gpu_fields)
        failed = show_query(&selection, options.gpu_fields, options.format);
    else if (!failed && options.process_fields)
        failed = show_processes(&selection, options.process_fields, options.format);
    else if (!failed)
        failed = show_table(&selection);
    free(selection.devices);
    return failed;
}
