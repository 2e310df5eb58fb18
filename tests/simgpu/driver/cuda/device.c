/* cuDevice*: what the GPUs are. */
#include <stdio.h>
#include <string.h>

#include "driver.h"

struct device *device_of(CUdevice ordinal)
{
    return ordinal >= 0 && ordinal < driver.count ? &driver.devices[ordinal] : NULL;
}

CUresult device_free_bytes(const struct device *device, size_t *bytes)
{
    struct sim_gpu now;
    if (rm_gpu(&driver.rm, device->info.index, &now))
        return CUDA_ERROR_UNKNOWN;
    *bytes = now.total - now.reserved - now.used;
    return CUDA_SUCCESS;
}

/* Enter, with the device of an ordinal. */
static CUresult enter_device(CUdevice ordinal, struct device **device)
{
    CUresult result = enter();
    if (result)
        return result;
    *device = device_of(ordinal);
    return *device ? CUDA_SUCCESS : leave(CUDA_ERROR_INVALID_DEVICE);
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    CUresult result = enter();
    if (result)
        return result;
    if (!device)
        return leave(CUDA_ERROR_INVALID_VALUE);
    if (!device_of(ordinal))
        return leave(CUDA_ERROR_INVALID_DEVICE);
    *device = ordinal;
    return leave(CUDA_SUCCESS);
}

CUresult cuDeviceGetCount(int *count)
{
    CUresult result = enter();
    if (result)
        return result;
    if (!count)
        return leave(CUDA_ERROR_INVALID_VALUE);
    *count = driver.count;
    return leave(CUDA_SUCCESS);
}

CUresult cuDeviceGetName(char *name, int length, CUdevice ordinal)
{
    struct device *device;
    CUresult result = enter_device(ordinal, &device);
    if (result)
        return result;
    if (!name || length <= 0)
        return leave(CUDA_ERROR_INVALID_VALUE);
    snprintf(name, (size_t)length, "%s", device->info.name);
    return leave(CUDA_SUCCESS);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice ordinal)
{
    struct device *device;
    CUresult result = enter_device(ordinal, &device);
    if (result)
        return result;
    if (!bytes)
        return leave(CUDA_ERROR_INVALID_VALUE);
    *bytes = device->info.total - device->info.reserved;
    return leave(CUDA_SUCCESS);
}

CUresult cuDeviceTotalMem(unsigned int *bytes, CUdevice ordinal)
{
    struct device *device;
    CUresult result = enter_device(ordinal, &device);
    if (result)
        return result;
    if (!bytes)
        return leave(CUDA_ERROR_INVALID_VALUE);
    uint64_t total = device->info.total - device->info.reserved;
    *bytes = total > UINT32_MAX ? UINT32_MAX : (unsigned)total;
    return leave(CUDA_SUCCESS);
}

/* "GPU-" or "MIG-" and 32 hexadecimal digits in groups, as 16 bytes. */
static void parse_uuid(const char *text, CUuuid *uuid)
{
    memset(uuid, 0, sizeof *uuid);
    text += strncmp(text, "GPU-", 4) == 0 || strncmp(text, "MIG-", 4) == 0 ? 4 : 0;
    for (int i = 0; i < 16 && *text; i++) {
        unsigned byte = 0;
        text += *text == '-';
        if (sscanf(text, "%2x", &byte) != 1)
            return;
        uuid->bytes[i] = (char)byte;
        text += 2;
    }
}

static CUresult give_uuid(CUuuid *uuid, CUdevice ordinal, bool of_gpu)
{
    struct device *device;
    CUresult result = enter_device(ordinal, &device);
    if (result)
        return result;
    if (!uuid)
        return leave(CUDA_ERROR_INVALID_VALUE);
    parse_uuid(of_gpu ? device->mig.gpu_uuid : device->info.uuid, uuid);
    return leave(CUDA_SUCCESS);
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice ordinal)
{
    return give_uuid(uuid, ordinal, false);
}

/* The older one doesn't know of instances: it names the GPU. */
CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice ordinal)
{
    return give_uuid(uuid, ordinal, true);
}

CUresult cuDeviceGetLuid(char *luid, unsigned int *mask, CUdevice ordinal)
{
    (void)luid;
    (void)mask;
    struct device *device;
    CUresult result = enter_device(ordinal, &device);
    return result ? result : leave(CUDA_ERROR_NOT_SUPPORTED); /* Windows only, in the real one too */
}

CUresult cuDeviceGetPCIBusId(char *bus_id, int length, CUdevice ordinal)
{
    struct device *device;
    CUresult result = enter_device(ordinal, &device);
    if (result)
        return result;
    if (!bus_id || length <= 0)
        return leave(CUDA_ERROR_INVALID_VALUE);
    const struct sim_gpu *gpu = &device->info;
    snprintf(bus_id, (size_t)length, "%04x:%02x:%02x.0", gpu->domain, gpu->bus, gpu->device);
    return leave(CUDA_SUCCESS);
}

CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *bus_id)
{
    unsigned domain, bus, slot;
    CUresult result = enter();
    if (result)
        return result;
    if (!device || !bus_id || sscanf(bus_id, "%x:%x:%x", &domain, &bus, &slot) != 3)
        return leave(CUDA_ERROR_INVALID_VALUE);
    for (int i = 0; i < driver.count; i++) {
        const struct sim_gpu *gpu = &driver.devices[i].info;
        if (gpu->domain == domain && gpu->bus == bus && gpu->device == slot) {
            *device = i;
            return leave(CUDA_SUCCESS);
        }
    }
    return leave(CUDA_ERROR_INVALID_DEVICE);
}

static int attribute(const struct device *device, CUdevice_attribute what)
{
    switch (what) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return (int)device->info.capability_major;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return (int)device->info.capability_minor;
    case CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID: return (int)device->info.domain;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: return (int)device->info.bus;
    case CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID: return (int)device->info.device;
    case CU_DEVICE_ATTRIBUTE_ECC_ENABLED: return device->info.ecc > 0;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return 68;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: return 64;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: return INT32_MAX;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: return 65535;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: return 48 << 10;
    case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY: return 64 << 10;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: return 64 << 10;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: return 1545000;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: return 7000000;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: return 352;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: return 5632 << 10;
    case CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT:
    case CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT: return 512;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES: return 1;
    default: return 0;
    }
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute what, CUdevice ordinal)
{
    struct device *device;
    CUresult result = enter_device(ordinal, &device);
    if (result)
        return result;
    if (!value || what < 1 || what >= CU_DEVICE_ATTRIBUTE_MAX)
        return leave(CUDA_ERROR_INVALID_VALUE);
    *value = attribute(device, what);
    return leave(CUDA_SUCCESS);
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice ordinal)
{
    struct device *device;
    CUresult result = enter_device(ordinal, &device);
    if (result)
        return result;
    if (!major || !minor)
        return leave(CUDA_ERROR_INVALID_VALUE);
    *major = (int)device->info.capability_major;
    *minor = (int)device->info.capability_minor;
    return leave(CUDA_SUCCESS);
}

CUresult cuDeviceCanAccessPeer(int *can, CUdevice ordinal, CUdevice peer)
{
    struct device *device;
    CUresult result = enter_device(ordinal, &device);
    if (result)
        return result;
    if (!can || !device_of(peer))
        return leave(can ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE);
    *can = 0;
    return leave(CUDA_SUCCESS);
}
