/* /.runai in the container: the share, the real libraries and the account (docs/architecture.md). */
#ifndef RUNAI_OWN_H
#define RUNAI_OWN_H

#include "plan.h"
#include "rootfs.h"

#include <stdbool.h>

/* Makes the folder, with everything in it but the real libraries. STATE is the path of the container's state directory.
 * Returns the folder's mount. */
int own_open(struct rootfs *rootfs, const char *state);

/* Mounts the real library SOURCE at /.runai/real/SONAME. */
void own_add_real(int own, const char *soname, const char *source);

/* Mounts the image's own library there, from where ITEM says that it lies in the image. It must be the very file that
 * the shim has fitted ours to. */
void own_add_image_real(const struct rootfs *rootfs, int own, const struct item *item);

/* Nothing more is added, and nobody in the container can. */
void own_seal(int own);

/* True if FD is in /.runai: links of an image may point there. */
bool own_holds(const struct rootfs *rootfs, int fd);

#endif
