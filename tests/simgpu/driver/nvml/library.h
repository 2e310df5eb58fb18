/* What the simulated libnvidia-ml knows: one open nvidiactl, the GPUs whose nodes this process can open, and behind
 * them those of their MIG instances that it may use.
 * A device keeps what never changes; memory and processes are asked for at each call.
 */
#ifndef SIMGPU_LIBRARY_H
#define SIMGPU_LIBRARY_H

#include <nvml.h>
#include <stdbool.h>

#include "rm.h"

#define ALSO(function, name) extern __typeof__(function) name __attribute__((alias(#function)))

struct nvmlDevice_st {
    unsigned index; /* of an instance: among its GPU's */
    struct sim_gpu info;
    struct sim_mig mig;
    nvmlDevice_t gpu; /* of an instance; NULL for a GPU */
};

/* Lock, or say why not: the library must be initialised, and the device one of its own. */
nvmlReturn_t enter(void);
nvmlReturn_t enter_device(nvmlDevice_t device);
nvmlReturn_t leave(nvmlReturn_t result);

/* May this process know of the whole device? Of a GPU in parts only an administrator. */
bool may_see(nvmlDevice_t device);

/* Copy a text to where the caller has `length` bytes, and leave. */
nvmlReturn_t give_text(char *place, unsigned length, const char *text);

/* Under the lock. */
const struct rm *library_rm(void);
unsigned library_count(void);
nvmlDevice_t library_device(unsigned index); /* NULL where there is none */
nvmlDevice_t library_named(const char *uuid);  /* a GPU or an instance */
nvmlDevice_t library_instance(nvmlDevice_t gpu, unsigned index);
const char *library_driver_version(void);

/* What a call answers that gives one number which is part of the device. */
#define GIVE(device, place, value) GIVE_FROM(enter_device(device), place, value)

/* The same behind another way in. */
#define GIVE_FROM(entry, place, value)                               \
    do {                                                             \
        nvmlReturn_t entered = (entry);                              \
        if (entered)                                                 \
            return entered;                                          \
        if (!(place))                                                \
            return leave(NVML_ERROR_INVALID_ARGUMENT);               \
        *(place) = (value);                                          \
        return leave(NVML_SUCCESS);                                  \
    } while (0)

#endif
