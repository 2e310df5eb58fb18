/* cuGetProcAddress: the driver looks the function up, with the version and the flags that the caller named; where its
 * answer is a function that libvgpu defines, ours goes out. The driver answers with the very addresses that it
 * exports (seen on driver 580 for every function here), so the address tells. */
#include "real.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct pair {
    const char *name;
    size_t real; /* offset in struct real */
    void *ours;
};

#define PAIR_TAKE(name) {#name, offsetof(struct real, name), (void *)(name)},
#define PAIR_PASS(name)
#define PAIR_ASIDE(name)

/* Whether NAME is a version of SYMBOL: cuMemAlloc_v2 is one of cuMemAlloc, cuMemAllocAsync is not. */
static bool is_version(const char *name, const char *symbol)
{
    size_t length = strlen(symbol);
    return strncmp(name, symbol, length) == 0 && (name[length] == '\0' || name[length] == '_');
}

/* Ours instead of ADDRESS, which the driver answered for SYMBOL. Where it has one function under several names, the
 * one of that symbol. */
static void *ours(const char *symbol, void *address)
{
    static const struct pair pairs[] = {
#define FUNCTION(policy, name) PAIR_##policy(name)
#include FUNCTIONS_H
#undef FUNCTION
    };
    void *found = address;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (*(void **)((char *)&libvgpu_real + pairs[i].real) != address)
            continue;
        if (is_version(pairs[i].name, symbol))
            return pairs[i].ours;
        found = pairs[i].ours;
    }
    return found;
}

EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, cuuint64_t flags,
                                    CUdriverProcAddressQueryResult *status)
{
    CUresult result = REAL(cuGetProcAddress_v2)(symbol, function, version, flags, status);
    if (result == CUDA_SUCCESS && *function)
        *function = ours(symbol, *function);
    return result;
}

EXPORT CUresult cuGetProcAddress(const char *symbol, void **function, int version, cuuint64_t flags)
{
    CUresult result = REAL(cuGetProcAddress)(symbol, function, version, flags);
    if (result == CUDA_SUCCESS && *function)
        *function = ours(symbol, *function);
    return result;
}
