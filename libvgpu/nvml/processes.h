/* The container's own processes of those that a list of NVML's has. */
#ifndef RUNAI_NVML_PROCESSES_H
#define RUNAI_NVML_PROCESSES_H

#include "real.h"
#include <stddef.h>

/* Where in a record of such a list the pid is (32 bits), and the bytes that the process holds (64). */
struct record_layout {
    size_t size, pid, bytes;
};

/* A list function, and the layout of the records that it fills in. */
typedef nvmlReturn_t records_call(nvmlDevice_t device, unsigned int *count, void *records);

/* CALL's answer, of which the container's own processes are left, each with what it holds. */
nvmlReturn_t processes_filter(records_call *call, const struct record_layout *layout, nvmlDevice_t device,
                              unsigned int *count, void *records);

#endif
