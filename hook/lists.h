/* Text files of the image that tell its loader where to look. What stands in their comments may count too: it does no
 * harm. */
#ifndef RUNAI_LISTS_H
#define RUNAI_LISTS_H

#include "image.h"

/* What stands in FILE, as a rule a path; it may be changed but not kept. */
typedef void see_word(void *context, const char *file, char *word);

/* Calls SEE for each folder that the loader is told of, now (musl's path) or after the next ldconfig (ld.so.conf and
 * what lies in ld.so.conf.d). */
void lists_each_folder(const struct rootfs *rootfs, see_word *see, void *context);

/* Calls SEE for each library in ld.so.preload, which glibc puts into every program. */
void lists_each_preload(const struct rootfs *rootfs, see_word *see, void *context);

#endif
