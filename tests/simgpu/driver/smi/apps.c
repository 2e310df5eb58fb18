/* --query-compute-apps: comma-separated values of the processes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "field.h"

static void process_value(nvmlDevice_t device, const nvmlProcessInfo_t *process, const char *field, bool units)
{
    char text[VALUE] = "";
    if (strncmp(field, "pid", 3) == 0)
        printf("%u", process->pid);
    else if (strncmp(field, "used_", 5) == 0)
        printf("%llu%s", mib(process->usedGpuMemory), units ? " MiB" : "");
    else if (strncmp(field, "process_name", 12) == 0 || strncmp(field, "name", 4) == 0)
        printf("%s", nvml.nvmlSystemGetProcessName(process->pid, text, sizeof text) ? "[Not Found]" : text);
    else {
        const struct field *known = find_field(field, strcspn(field, ", "));
        known->write(device, text);
        printf("%s", text);
    }
}

static bool is_process_field(const char *field, size_t length)
{
    static const char *const names[] = { "pid", "name", "process_name", "used_memory", "used_gpu_memory",
                                         "gpu_uuid", "gpu_name", "gpu_bus_id", "timestamp" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == length && strncmp(names[i], field, length) == 0)
            return true;
    return false;
}

static int process_header(const char *fields, struct format format)
{
    size_t length;
    const char *separator = "";
    for (const char *rest = fields, *at = next_field(&rest, &length); length; at = next_field(&rest, &length)) {
        if (!is_process_field(at, length))
            return bad_field(at, (int)length, "query-compute-apps");
        if (!format.header)
            continue;
        bool memory = strncmp(at, "used_", 5) == 0;
        printf("%s%.*s%s", separator, memory ? 15 : (int)length, memory ? "used_gpu_memory" : at,
               memory && format.units ? " [MiB]" : "");
        separator = ", ";
    }
    if (format.header)
        putchar('\n');
    return 0;
}

int show_processes(const struct selection *selection, const char *fields, struct format format)
{
    int failed = process_header(fields, format);
    for (unsigned i = 0; i < selection->count && !failed; i++) {
        unsigned rows;
        nvmlProcessInfo_t *list = processes_of(selection->devices[i], &rows);
        for (unsigned k = 0; k < rows; k++) {
            size_t length;
            const char *separator = "";
            for (const char *rest = fields, *at = next_field(&rest, &length); length;
                 at = next_field(&rest, &length)) {
                fputs(separator, stdout);
                process_value(selection->devices[i], &list[k], at, format.units);
                separator = ", ";
            }
            putchar('\n');
        }
        free(list);
    }
    return failed;
}
