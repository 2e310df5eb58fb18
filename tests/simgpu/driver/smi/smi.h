#ifndef SIMGPU_SMI_H
#define SIMGPU_SMI_H

#include <stdbool.h>

#include "nvml_calls.h"

/* The devices that are shown. */
struct selection {
    nvmlDevice_t *devices;
    unsigned count;
};

struct format {
    bool header, units;
};

int show_table(const struct selection *selection);
int show_list(const struct selection *selection);
int show_memory(const struct selection *selection);
int show_query(const struct selection *selection, const char *fields, struct format format);
int show_processes(const struct selection *selection, const char *fields, struct format format);

/* Whole MiB, as nvidia-smi rounds. */
unsigned long long mib(unsigned long long bytes);
nvmlMemory_v2_t memory_of(nvmlDevice_t device);
/* Whether the caller may know that; "used / total", or "N/A". */
bool has_memory(nvmlDevice_t device);
const char *usage_of(nvmlDevice_t device, char *text, unsigned size);
/* The instance of a GPU at *INDEX or behind it, with *INDEX its index; NULL where there is none. */
nvmlDevice_t instance_of(nvmlDevice_t gpu, unsigned *index);
/* The processes of a device: malloc()ed, *count of them. */
nvmlProcessInfo_t *processes_of(nvmlDevice_t device, unsigned *count);
/* Number, or "N/A" where the call isn't supported. */
const char *number_or_na(nvmlReturn_t result, unsigned long long value, const char *unit, char *text, unsigned size);

#endif
