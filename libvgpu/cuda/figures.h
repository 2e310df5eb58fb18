/* The driver's own figures for the processes of this container, from NVML. */
#ifndef RUNAI_CUDA_FIGURES_H
#define RUNAI_CUDA_FIGURES_H

#include "outside.h"

#define FIGURES 256

/* Loads NVML. Not with the state's lock held: the loader has a lock of its own, and runs constructors with it that
 * may want ours. */
void figures_load(void);

/* Fills FIGURES with the compute processes on the GPU called UUID; how many, or -1 when NVML can't tell. The first
 * call starts NVML, about 20 ms on an H100. Calls must not run at the same time. */
int figures_of_driver(const char *uuid, struct process_figure figures[FIGURES]);

#endif
