/* Streams and events. Everything is done by the time a call returns, so they have little to do. */
#include <stdlib.h>
#include <time.h>

#include "driver.h"
#include "pool.h"

struct CUstream_st {
    CUcontext context;
    unsigned flags;
    int priority;
};

struct CUevent_st {
    bool recorded;
    struct timespec when;
};

static bool is_default(CUstream stream)
{
    return !stream || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD;
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority)
{
    CUcontext context;
    if (!stream || flags > CU_STREAM_NON_BLOCKING)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    CUstream made = calloc(1, sizeof *made);
    if (!made)
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    *made = (struct CUstream_st){ .context = context, .flags = flags, .priority = priority };
    *stream = made;
    return leave(CUDA_SUCCESS);
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags)
{
    return cuStreamCreateWithPriority(stream, flags, 0);
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    CUresult result = enter();
    if (result)
        return result;
    if (is_default(stream))
        return leave(CUDA_ERROR_INVALID_HANDLE);
    free(stream);
    return leave(CUDA_SUCCESS);
}
ALSO(cuStreamDestroy_v2, cuStreamDestroy);

CUresult cuStreamSynchronize(CUstream stream)
{
    CUcontext context;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    pools_settle(is_default(stream) ? context->device : stream->context->device);
    return leave(CUDA_SUCCESS);
}
ALSO(cuStreamSynchronize, cuStreamSynchronize_ptsz);

CUresult cuStreamQuery(CUstream stream)
{
    (void)stream;
    CUcontext context;
    CUresult result = enter_context(&context);
    return result ? result : leave(CUDA_SUCCESS);
}
ALSO(cuStreamQuery, cuStreamQuery_ptsz);

CUresult cuStreamGetCtx(CUstream stream, CUcontext *context)
{
    CUcontext current;
    if (!context)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = enter_context(&current);
    if (result)
        return result;
    *context = is_default(stream) ? current : stream->context;
    return leave(CUDA_SUCCESS);
}
ALSO(cuStreamGetCtx, cuStreamGetCtx_ptsz);

CUresult cuStreamGetFlags(CUstream stream, unsigned int *flags)
{
    CUcontext context;
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    *flags = is_default(stream) ? 0 : stream->flags;
    return leave(CUDA_SUCCESS);
}
ALSO(cuStreamGetFlags, cuStreamGetFlags_ptsz);

CUresult cuStreamGetPriority(CUstream stream, int *priority)
{
    CUcontext context;
    if (!priority)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    *priority = is_default(stream) ? 0 : stream->priority;
    return leave(CUDA_SUCCESS);
}
ALSO(cuStreamGetPriority, cuStreamGetPriority_ptsz);

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags)
{
    (void)stream;
    (void)flags;
    CUcontext context;
    CUresult result = enter_context(&context);
    return result ? result : leave(event ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE);
}
ALSO(cuStreamWaitEvent, cuStreamWaitEvent_ptsz);

CUresult cuEventCreate(CUevent *event, unsigned int flags)
{
    (void)flags;
    CUcontext context;
    if (!event)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    *event = calloc(1, sizeof **event);
    return leave(*event ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY);
}

CUresult cuEventDestroy_v2(CUevent event)
{
    CUresult result = enter();
    if (result)
        return result;
    free(event);
    return leave(event ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE);
}
ALSO(cuEventDestroy_v2, cuEventDestroy);

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    (void)stream;
    CUcontext context;
    if (!event)
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    event->recorded = true;
    clock_gettime(CLOCK_MONOTONIC, &event->when);
    return leave(CUDA_SUCCESS);
}
ALSO(cuEventRecord, cuEventRecord_ptsz);

CUresult cuEventQuery(CUevent event)
{
    CUresult result = enter();
    return result ? result : leave(event ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuEventSynchronize(CUevent event)
{
    CUcontext context;
    if (!event)
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    pools_settle(context->device);
    return leave(CUDA_SUCCESS);
}

CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent end)
{
    if (!milliseconds)
        return CUDA_ERROR_INVALID_VALUE;
    if (!start || !end || !start->recorded || !end->recorded)
        return CUDA_ERROR_INVALID_HANDLE;
    *milliseconds = (float)(end->when.tv_sec - start->when.tv_sec) * 1e3F +
                    (float)(end->when.tv_nsec - start->when.tv_nsec) * 1e-6F;
    return CUDA_SUCCESS;
}
ALSO(cuEventElapsedTime_v2, cuEventElapsedTime);
