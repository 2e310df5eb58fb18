/* The paths in the image's /etc/ld.so.cache. */
#ifndef RUNAI_CACHE_H
#define RUNAI_CACHE_H

#include "image.h"

/* Whether a file's NAME is one to look for. */
typedef bool is_sought(void *context, const char *name);

/* Calls SEE for everything in the cache that could be a path of a file that is WANTED. The cache is the image's, so it
 * isn't believed to have the form of one: any text up to a NUL counts, from each of its slashes on, since an entry may
 * point into the middle of a text. No cache is fine. */
void cache_each_path(const struct rootfs *rootfs, is_sought *wanted, see_path *see, void *context);

#endif
