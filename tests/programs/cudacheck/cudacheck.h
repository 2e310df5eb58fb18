/* What the cases share: how to check an answer and the account, and the tables of cases. */
#pragma once

#define __CUDA_API_VERSION_INTERNAL /* every version under its own name */
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <cuda.h>
#include <nvml.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define GRANULE (2 * MIB)
#define SHARE (1024 * MIB)
#define CONTEXT (64 * MIB)

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            _exit(1);                                                               \
        }                                                                           \
    } while (0)

#define IS(call, expected)                                                                                   \
    do {                                                                                                     \
        int is = (int)(call);                                                                                \
        if (is != (int)(expected)) {                                                                         \
            fprintf(stderr, "%s:%d: %d instead of %d: %s\n", __FILE__, __LINE__, is, (int)(expected), #call); \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

/* The call answers that, and the account is what the driver gave. */
#define STEP(call, expected)             \
    do {                                 \
        IS(call, expected);              \
        same(__FILE__, __LINE__, #call); \
    } while (0)
#define OK(call) STEP(call, CUDA_SUCCESS)

/* A case by its name; a table of them ends with one that has none. */
struct test_case {
    const char *name;
    void (*run)(void);
};

extern const struct test_case memory_cases[], context_cases[], pool_cases[], vmm_cases[], thread_cases[],
    process_cases[];

/* A case that comes before cuInit. */
void loaded_again(void);

/* How often a case in threads does everything. */
extern int rounds;

void look_at_the_truth(void);
/* Bytes of a GPU that the driver has given to all processes. */
size_t given(int gpu);
/* Bytes of a GPU in the account. */
size_t account(int gpu);
/* Ends the program where the account isn't what the driver gave. */
void same(const char *file, int line, const char *what);
/* The device's primary context, which becomes the current one. */
CUcontext primary(CUdevice device);

static inline CUmemAllocationProp on(int device)
{
    return (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
}

static inline CUmemPoolProps pool_on(int device)
{
    return (CUmemPoolProps){.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
}
