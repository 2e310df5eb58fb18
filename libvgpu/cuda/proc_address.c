/* cuGetProcAddress: the driver looks the function up, with the version and the flags that the caller named; where its
 * answer is a function that libvgpu defines, ours goes out. The driver answers with the very addresses that it
 * exports (seen on driver 580 for every function here), so the address tells. */
#include "real.h"

#include <stddef.h>

struct pair {
    size_t real; /* offset in struct real */
    void *ours;
};

#define PAIR_TAKE(name) {offsetof(struct real, name), (void *)(name)},
#define PAIR_PASS(name)
#define PAIR_ASIDE(name)

static void *ours(void *address)
{
    static const struct pair pairs[] = {
#define FUNCTION(policy, name) PAIR_##policy(name)
#include FUNCTIONS_H
#undef FUNCTION
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (*(void **)((char *)&libvgpu_real + pairs[i].real) == address)
            return pairs[i].ours;
    return address;
}

EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, cuuint64_t flags,
                                    CUdriverProcAddressQueryResult *status)
{
    CUresult result = REAL(cuGetProcAddress_v2)(symbol, function, version, flags, status);
    if (result == CUDA_SUCCESS && *function)
        *function = ours(*function);
    return result;
}

EXPORT CUresult cuGetProcAddress(const char *symbol, void **function, int version, cuuint64_t flags)
{
    CUresult result = REAL(cuGetProcAddress)(symbol, function, version, flags);
    if (result == CUDA_SUCCESS && *function)
        *function = ours(*function);
    return result;
}
