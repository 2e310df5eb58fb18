/* Properties and sensors: plausible, and for an idle GPU. */
#include "library.h"

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    GIVE(device, utilization, ((nvmlUtilization_t){ 0, 0 }));
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *celsius)
{
    if (sensor != NVML_TEMPERATURE_GPU)
        return NVML_ERROR_INVALID_ARGUMENT;
    GIVE(device, celsius, 35);
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    nvmlReturn_t result = enter_device(device);
    if (result)
        return result;
    if (!temperature || temperature->sensorType != NVML_TEMPERATURE_GPU)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (temperature->version != nvmlTemperature_v1)
        return leave(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    temperature->temperature = 35;
    return leave(NVML_SUCCESS);
}

/* Milliwatts. */
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *power)
{
    GIVE(device, power, 23000);
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int *limit)
{
    GIVE(device, limit, device->info.watts * 1000);
}
ALSO(nvmlDeviceGetPowerManagementLimit, nvmlDeviceGetEnforcedPowerLimit);
ALSO(nvmlDeviceGetPowerManagementLimit, nvmlDeviceGetPowerManagementDefaultLimit);

/* Percent; server GPUs have no fan. */
nvmlReturn_t nvmlDeviceGetFanSpeed(nvmlDevice_t device, unsigned int *speed)
{
    nvmlReturn_t result = enter_device(device);
    if (result)
        return result;
    if (!speed || device->info.fan_percent < 0)
        return leave(speed ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT);
    *speed = (unsigned)device->info.fan_percent;
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, nvmlPstates_t *state)
{
    GIVE(device, state, NVML_PSTATE_8);
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t *mode)
{
    GIVE(device, mode, NVML_FEATURE_DISABLED);
}

nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, nvmlComputeMode_t *mode)
{
    GIVE(device, mode, NVML_COMPUTEMODE_DEFAULT);
}

nvmlReturn_t nvmlDeviceGetDisplayActive(nvmlDevice_t device, nvmlEnableState_t *active)
{
    GIVE(device, active, NVML_FEATURE_DISABLED);
}
ALSO(nvmlDeviceGetDisplayActive, nvmlDeviceGetDisplayMode);

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t *current, nvmlEnableState_t *pending)
{
    nvmlReturn_t result = enter_device(device);
    if (result)
        return result;
    if (!current || !pending)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (device->info.ecc < 0)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *current = *pending = device->info.ecc ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t error,
                                         nvmlEccCounterType_t counter, unsigned long long *errors)
{
    (void)error;
    (void)counter;
    nvmlReturn_t result = enter_device(device);
    if (result)
        return result;
    if (!errors || device->info.ecc < 0)
        return leave(errors ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT);
    *errors = 0;
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    nvmlReturn_t result = enter_device(device);
    if (result)
        return result;
    if (!major || !minor)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *major = (int)device->info.capability_major;
    *minor = (int)device->info.capability_minor;
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t device, nvmlBrandType_t *brand)
{
    GIVE(device, brand, (nvmlBrandType_t)device->info.brand);
}

nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, nvmlDeviceArchitecture_t *architecture)
{
    GIVE(device, architecture, device->info.architecture);
}
