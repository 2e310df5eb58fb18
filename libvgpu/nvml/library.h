/* Which of the two libraries this is: libnvidia-ml.so.1. */
#define FUNCTIONS_H "nvml/functions.h"

#ifndef __ASSEMBLER__
#include "account_page.h"

#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <nvml.h>

#define REAL_PATH RUNAI_DIR "/real/libnvidia-ml.so.1"
#define MISSING NVML_ERROR_FUNCTION_NOT_FOUND
#endif
