/* Modules and kernels: accepted when they are well formed; nothing runs. */
#include <stdlib.h>
#include <string.h>

#include "driver.h"

struct CUfunc_st {
    CUmodule module;
    struct CUfunc_st *next;
};

struct CUmod_st {
    CUcontext context;
    CUfunction functions;
};

static CUresult load(CUcontext context, CUmodule *module)
{
    CUmodule made = calloc(1, sizeof *made);
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    made->context = context;
    *module = made;
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    CUcontext context;
    if (!module || !image)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = enter_context(&context);
    return result ? result : leave(load(context, module));
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, CUjit_option *options,
                            void **values)
{
    if (count && (!options || !values))
        return CUDA_ERROR_INVALID_VALUE;
    return cuModuleLoadData(module, image);
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    return cuModuleLoadData(module, image);
}

CUresult cuModuleUnload(CUmodule module)
{
    CUresult result = enter();
    if (result)
        return result;
    if (!module)
        return leave(CUDA_ERROR_INVALID_HANDLE);
    while (module->functions) {
        CUfunction next = module->functions->next;
        free(module->functions);
        module->functions = next;
    }
    free(module);
    return leave(CUDA_SUCCESS);
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    if (!function || !module || !name || !*name)
        return CUDA_ERROR_INVALID_VALUE;
    CUcontext context;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    CUfunction made = calloc(1, sizeof *made);
    if (!made)
        return leave(CUDA_ERROR_OUT_OF_MEMORY);
    *made = (struct CUfunc_st){ .module = module, .next = module->functions };
    module->functions = made;
    *function = made;
    return leave(CUDA_SUCCESS);
}

CUresult cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                        unsigned int block_x, unsigned int block_y, unsigned int block_z, unsigned int shared,
                        CUstream stream, void **params, void **extra)
{
    (void)stream;
    CUcontext context;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    if (!function)
        return leave(CUDA_ERROR_INVALID_HANDLE);
    unsigned long long threads = (unsigned long long)block_x * block_y * block_z;
    if (!grid_x || !grid_y || !grid_z || !threads || threads > 1024 || shared > 48 << 10 || (params && extra))
        return leave(CUDA_ERROR_INVALID_VALUE);
    return leave(CUDA_SUCCESS);
}
ALSO(cuLaunchKernel, cuLaunchKernel_ptsz);

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *data)
{
    (void)stream;
    CUcontext context;
    if (!function)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = enter_context(&context);
    if (result)
        return result;
    leave(CUDA_SUCCESS);
    function(data); /* without the lock: it may call anything */
    return CUDA_SUCCESS;
}
ALSO(cuLaunchHostFunc, cuLaunchHostFunc_ptsz);
