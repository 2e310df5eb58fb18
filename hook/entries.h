/* The entries of the image's /etc/ld.so.cache, as glibc reads them. */
#ifndef RUNAI_ENTRIES_H
#define RUNAI_ENTRIES_H

#include "image.h"

/* Which PATH the loader takes for the library NAME. Neither may be kept. */
typedef void see_cached(void *context, const char *name, const char *path);

/* Calls SEE for each entry, of the older format and of the newer one. What is no cache has none. */
void entries_each(const struct rootfs *rootfs, see_cached *see, void *context);

#endif
