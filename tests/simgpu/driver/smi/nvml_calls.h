/* NVML as nvidia-smi reaches it: by the loader's search for libnvidia-ml.so.1, so whatever library stands under
 * that name answers.
 */
#ifndef SIMGPU_NVML_CALLS_H
#define SIMGPU_NVML_CALLS_H

#include <nvml.h>
#include <stdbool.h>

#define NVML_CALLS(CALL)                       \
    CALL(nvmlInit_v2)                          \
    CALL(nvmlShutdown)                         \
    CALL(nvmlErrorString)                      \
    CALL(nvmlSystemGetDriverVersion)           \
    CALL(nvmlSystemGetCudaDriverVersion_v2)    \
    CALL(nvmlSystemGetProcessName)             \
    CALL(nvmlDeviceGetCount_v2)                \
    CALL(nvmlDeviceGetHandleByIndex_v2)        \
    CALL(nvmlDeviceGetHandleByUUID)            \
    CALL(nvmlDeviceGetHandleByPciBusId_v2)     \
    CALL(nvmlDeviceGetIndex)                   \
    CALL(nvmlDeviceGetName)                    \
    CALL(nvmlDeviceGetUUID)                    \
    CALL(nvmlDeviceGetPciInfo_v3)              \
    CALL(nvmlDeviceGetMemoryInfo_v2)           \
    CALL(nvmlDeviceGetBAR1MemoryInfo)          \
    CALL(nvmlDeviceGetComputeRunningProcesses_v3) \
    CALL(nvmlDeviceGetUtilizationRates)        \
    CALL(nvmlDeviceGetTemperature)             \
    CALL(nvmlDeviceGetPowerUsage)              \
    CALL(nvmlDeviceGetEnforcedPowerLimit)      \
    CALL(nvmlDeviceGetFanSpeed)                \
    CALL(nvmlDeviceGetPerformanceState)        \
    CALL(nvmlDeviceGetPersistenceMode)         \
    CALL(nvmlDeviceGetComputeMode)             \
    CALL(nvmlDeviceGetDisplayActive)           \
    CALL(nvmlDeviceGetMigMode)                 \
    CALL(nvmlDeviceGetMaxMigDeviceCount)       \
    CALL(nvmlDeviceGetMigDeviceHandleByIndex)  \
    CALL(nvmlDeviceGetGpuInstanceId)           \
    CALL(nvmlDeviceGetComputeInstanceId)       \
    CALL(nvmlDeviceGetEccMode)                 \
    CALL(nvmlDeviceGetTotalEccErrors)          \
    CALL(nvmlDeviceGetCudaComputeCapability)

#define DECLARE(name) __typeof__(&name) name;
struct nvml_calls {
    NVML_CALLS(DECLARE)
};
#undef DECLARE

extern struct nvml_calls nvml;

/* Load the library and resolve the calls. */
bool nvml_load(void);

#endif
