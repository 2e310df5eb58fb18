/* cuCtx*. A context takes device memory of its own before anything is asked for. */
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "memory.h"
#include "pool.h"

#define STACK_DEPTH 64

static _Thread_local CUcontext stack[STACK_DEPTH];
static _Thread_local int depth;
static unsigned long long next_id = 1;

CUcontext context_current(void)
{
    return depth ? stack[depth - 1] : NULL;
}

/* Most of a context's memory is asked for with class 0x40 like any other (measured: 518 of 526 MiB). */
static uint32_t take_memory(CUcontext context)
{
    struct device *device = context->device;
    uint32_t group[5] = {0, 0, 0, ENGINE_GRAPHICS};
    uint32_t status =
        rm_alloc(&driver.rm, device->handle, CLASS_CHANNEL_GROUP, group, sizeof group, &context->handle);
    uint64_t rest = device->info.context - device->info.context_unlisted;
    for (int i = 0; i < CONTEXT_BLOCKS && !status && rest; i++) {
        uint64_t part = i + 1 < CONTEXT_BLOCKS ? rest / 2 & ~(uint64_t)(GRANULE - 1) : rest;
        if (part) {
            status = rm_alloc_memory(&driver.rm, device->handle, part, &context->memory[i]);
            rest -= part;
        }
    }
    return status;
}

static void give_memory(CUcontext context)
{
    uint32_t device = context->device->handle;
    for (int i = 0; i < CONTEXT_BLOCKS; i++) {
        if (context->memory[i])
            rm_free(&driver.rm, device, context->memory[i]);
        context->memory[i] = 0;
    }
    if (context->handle)
        rm_free(&driver.rm, device, context->handle);
    context->handle = 0;
}

CUresult context_activate(CUcontext context)
{
    uint32_t status = take_memory(context);
    if (status)
        give_memory(context);
    else
        context->id = next_id++;
    context->alive = status == 0;
    return status_to_result(status);
}

CUresult context_create(CUcontext *context, struct device *device, unsigned flags)
{
    CUcontext made = calloc(1, sizeof *made);
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    made->device = device;
    made->flags = flags;
    CUresult result = context_activate(made);
    if (result)
        free(made);
    else
        *context = made;
    return result;
}

void context_destroy(CUcontext context)
{
    memory_free_all(context);
    memset(context->small, 0, sizeof context->small);
    give_memory(context);
    context->alive = false;
}

static CUresult push(CUcontext context)
{
    if (depth == STACK_DEPTH)
        return CUDA_ERROR_OUT_OF_MEMORY;
    stack[depth++] = context;
    return CUDA_SUCCESS;
}

static CUresult create_and_push(CUcontext *context, unsigned flags, CUdevice ordinal)
{
    struct device *device = device_of(ordinal);
    if (!context)
        return CUDA_ERROR_INVALID_VALUE;
    if (!device)
        return CUDA_ERROR_INVALID_DEVICE;
    CUresult result = context_create(context, device, flags);
    return result ? result : push(*context);
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device)
{
    CUresult result = enter();
    return result ? result : leave(create_and_push(context, flags, device));
}
ALSO(cuCtxCreate_v2, cuCtxCreate);

CUresult cuCtxCreate_v3(CUcontext *context, CUexecAffinityParam *affinity, int count, unsigned int flags,
                        CUdevice device)
{
    if (affinity && count)
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    return cuCtxCreate_v2(context, flags, device);
}

CUresult cuCtxCreate_v4(CUcontext *context, CUctxCreateParams *params, unsigned int flags, CUdevice device)
{
    if (params && (params->numExecAffinityParams || params->cigParams))
        return CUDA_ERROR_NOT_SUPPORTED;
    return cuCtxCreate_v2(context, flags, device);
}

static CUresult destroy_checked(CUcontext context)
{
    if (!context || context->primary)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!context->alive)
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    context_destroy(context);
    while (depth && stack[depth - 1] == context)
        depth--;
    return CUDA_SUCCESS;
}

CUresult cuCtxDestroy_v2(CUcontext context)
{
    CUresult result = enter();
    return result ? result : leave(destroy_checked(context));
}
ALSO(cuCtxDestroy_v2, cuCtxDestroy);
ALSO(cuCtxDestroy_v2, cuCtxDetach);

CUresult cuCtxGetCurrent(CUcontext *context)
{
    CUresult result = enter();
    if (result)
        return result;
    if (!context)
        return leave(CUDA_ERROR_INVALID_VALUE);
    *context = context_current();
    return leave(CUDA_SUCCESS);
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    CUresult result = enter();
    if (result)
        return result;
    depth -= depth > 0;
    return leave(context ? push(context) : CUDA_SUCCESS);
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    CUresult result = enter();
    return result ? result : leave(context ? push(context) : CUDA_ERROR_INVALID_CONTEXT);
}
ALSO(cuCtxPushCurrent_v2, cuCtxPushCurrent);

CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    CUresult result = enter();
    if (result)
        return result;
    if (!depth)
        return leave(CUDA_ERROR_INVALID_CONTEXT);
    depth--;
    if (context)
        *context = stack[depth];
    return leave(CUDA_SUCCESS);
}
ALSO(cuCtxPopCurrent_v2, cuCtxPopCurrent);

CUresult cuCtxGetDevice(CUdevice *device)
{
    CUcontext context;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    if (device)
        *device = context->device->ordinal;
    return leave(device ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

CUresult cuCtxGetDevice_v2(CUdevice *device, CUcontext context)
{
    if (!context)
        return cuCtxGetDevice(device);
    CUresult result = enter();
    if (result)
        return result;
    if (device)
        *device = context->device->ordinal;
    return leave(device ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

CUresult cuCtxSynchronize(void)
{
    CUcontext context;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    pools_settle(context->device);
    return leave(CUDA_SUCCESS);
}

CUresult cuCtxSynchronize_v2(CUcontext context)
{
    if (!context)
        return cuCtxSynchronize();
    CUresult result = enter();
    if (result)
        return result;
    pools_settle(context->device);
    return leave(CUDA_SUCCESS);
}

CUresult cuCtxGetApiVersion(CUcontext context, unsigned int *version)
{
    (void)context;
    CUresult result = enter();
    if (result)
        return result;
    if (version)
        *version = 3020;
    return leave(version ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

CUresult cuCtxGetFlags(unsigned int *flags)
{
    CUcontext context;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    if (flags)
        *flags = context->flags;
    return leave(flags ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

CUresult cuCtxGetId(CUcontext context, unsigned long long *id)
{
    CUresult result = enter();
    if (result)
        return result;
    context = context ? context : context_current();
    if (!context || !id)
        return leave(context ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_CONTEXT);
    *id = context->id;
    return leave(CUDA_SUCCESS);
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    CUcontext context;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5;
    return leave(CUDA_SUCCESS);
}
