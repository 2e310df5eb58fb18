/* Which of the two libraries this is: libcuda.so.1. */
#define FUNCTIONS_H "cuda/functions.h"

#ifndef __ASSEMBLER__
#include "account_page.h"

/* Every version of every function under its own name, instead of macros that rename to the newest. */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>

#define REAL_PATH RUNAI_DIR "/real/libcuda.so.1"
#define MISSING CUDA_ERROR_NOT_FOUND
#endif
