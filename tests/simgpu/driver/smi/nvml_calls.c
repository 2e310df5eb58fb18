#include "nvml_calls.h"

#include <dlfcn.h>

struct nvml_calls nvml;

bool nvml_load(void)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!library)
        return false;
#define RESOLVE(name)                                                 \
    *(void **)(void *)&nvml.name = dlsym(library, #name);             \
    if (!nvml.name)                                                   \
        return false;
    NVML_CALLS(RESOLVE)
#undef RESOLVE
    return true;
}
