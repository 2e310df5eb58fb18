/* cuDevicePrimaryCtx*: the one context of a device that everybody shares, counted. */
#include "context.h"
#include "pool.h"

static CUresult retain(CUcontext *context, struct device *device)
{
    if (!device)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!context)
        return CUDA_ERROR_INVALID_VALUE;
    /* A primary context keeps its handle over release and retain. */
    if (!device->primary || !device->primary->alive) {
        CUresult result = device->primary ? context_activate(device->primary)
                                          : context_create(&device->primary, device, device->primary_flags);
        if (result)
            return result;
        device->primary->primary = true;
    }
    device->primary_references++;
    *context = device->primary;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    CUresult result = enter();
    return result ? result : leave(retain(context, device_of(device)));
}

static void end_primary(struct device *device)
{
    device->primary_references = 0;
    if (device->primary && device->primary->alive)
        context_destroy(device->primary);
}

static CUresult release(struct device *device)
{
    if (!device)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!device->primary_references)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (--device->primary_references == 0)
        end_primary(device);
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    CUresult result = enter();
    return result ? result : leave(release(device_of(device)));
}
ALSO(cuDevicePrimaryCtxRelease_v2, cuDevicePrimaryCtxRelease);

static CUresult reset(struct device *device)
{
    if (!device)
        return CUDA_ERROR_INVALID_DEVICE;
    end_primary(device);
    pool_reset(device);
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    CUresult result = enter();
    return result ? result : leave(reset(device_of(device)));
}
ALSO(cuDevicePrimaryCtxReset_v2, cuDevicePrimaryCtxReset);

static CUresult primary_state(struct device *device, unsigned *flags, int *active)
{
    if (!device)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!flags || !active)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = device->primary_flags;
    *active = device->primary && device->primary->alive;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
    CUresult result = enter();
    return result ? result : leave(primary_state(device_of(device), flags, active));
}

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice ordinal, unsigned int flags)
{
    CUresult result = enter();
    if (result)
        return result;
    struct device *device = device_of(ordinal);
    if (!device)
        return leave(CUDA_ERROR_INVALID_DEVICE);
    device->primary_flags = flags;
    return leave(CUDA_SUCCESS);
}
ALSO(cuDevicePrimaryCtxSetFlags_v2, cuDevicePrimaryCtxSetFlags);
