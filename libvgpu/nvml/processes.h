/* The container's own processes of those that one of NVML's list functions has. */
#ifndef RUNAI_NVML_PROCESSES_H
#define RUNAI_NVML_PROCESSES_H

#include "figures.h"
#include "real.h"

/* A list function whose real one is CALL, with NVML's conventions for COUNT and INFOS. SHORT_RECORDS as in figures.h. */
nvmlReturn_t processes_list(figures_call *call, bool short_records, nvmlDevice_t device, unsigned int *count, void *infos);

#endif
