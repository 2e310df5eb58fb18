/* Host memory behind device addresses, so that copies are real. */
#include <stdint.h>
#include <sys/mman.h>

#include "driver.h"

void *backing_map(size_t size, int protection)
{
    size_t wide = size + GRANULE;
    char *area = mmap(NULL, wide, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        return NULL;
    char *base = (char *)(((uintptr_t)area + GRANULE - 1) & ~(uintptr_t)(GRANULE - 1));
    if (base > area)
        munmap(area, (size_t)(base - area));
    if (base + size < area + wide)
        munmap(base + size, (size_t)(area + wide - (base + size)));
    return base;
}

void backing_unmap(void *base, size_t size)
{
    munmap(base, size);
}
