/* The driver's NVML, as far as libcuda.so.1 of libvgpu asks it: its own figures for the processes of this container. */
#ifndef RUNAI_CUDA_REAL_NVML_H
#define RUNAI_CUDA_REAL_NVML_H

#include "figures.h"

/* Loads NVML. Not with the state's lock held: the loader has a lock of its own, and runs constructors with it that
 * may want ours. */
void real_nvml_load(void);

/* Fills FIGURES with the compute processes on the GPU called UUID. false when NVML can't tell. The first call starts
 * NVML, about 20 ms on an H100. Calls must not run at the same time. */
bool real_nvml_figures(const char *uuid, struct figures *figures);

#endif
