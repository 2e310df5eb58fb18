/* What the ways share: a driver that was opened by its path, one device with a context, and the table of ways. */
#pragma once

#define __CUDA_API_VERSION_INTERNAL /* every version under its own name */
#include <cuda.h>

#include <stddef.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

/* One of the driver's calls. It is looked up by name at run time: nothing of libcuda is linked, so that any copy serves. */
#define CU(name, ...) (found(#name) ? ((__typeof__(&(name)))found(#name))(__VA_ARGS__) : CUDA_ERROR_NOT_FOUND)
/* The same; what it answers is printed by name, unless it worked or was said already. */
#define TRY(name, ...) reported(#name, CU(name, __VA_ARGS__))

/* NULL where the opened driver has no such function. */
void *found(const char *name);
CUresult reported(const char *call, CUresult result);
const char *error_name(CUresult result);

extern CUdevice device;

/* Takes about *size bytes of device memory and keeps them; *size then says how many they are, 0 where nobody knows.
 * What fails has taken nothing.
 */
typedef CUresult taker(size_t *size);

/* Taken in pieces of `largest` bytes, then of half of that, down to `smallest`, `times` pieces at most. */
struct way {
    const char *name;
    taker *take;
    size_t largest, smallest;
    unsigned long times;
    int bare; /* it makes contexts of its own, so there is no primary one */
};

#define MANY (1UL << 20)

/* Tables end with a way that has no name. */
extern const struct way memory_ways[], kernel_ways[];
