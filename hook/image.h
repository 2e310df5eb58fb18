/* Files of the image that its loader reads. They are the image's or a volume's, and may be anything. */
#ifndef RUNAI_IMAGE_H
#define RUNAI_IMAGE_H

#include "rootfs.h"

/* A path that begins with a slash; it may be changed but not kept. */
typedef void see_path(void *context, char *path);

/* Opens the regular file at PATH for reading. Returns a descriptor, or -1 when there is nothing that a loader would
 * read; a file that can't be looked into ends the program. */
int image_open(const struct rootfs *rootfs, const char *path);

#endif
