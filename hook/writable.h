/* A root that is read-only as the container asked for it, and not because its file system is. */
#ifndef RUNAI_WRITABLE_H
#define RUNAI_WRITABLE_H

#include "rootfs.h"

/* crun makes a root read-only before the hooks run, runc after them. Opens the folder that is open as FOLDER through a
 * writable mount of the root, which nobody else sees and which is gone with the hook. Returns a descriptor, or -1 with
 * EROFS. */
int writable_folder(const struct rootfs *rootfs, int folder);

/* What was made as LEAF in such a folder and is open as MADE, looked up in FOLDER itself. Returns a descriptor, or -1
 * with errno. */
int writable_found(int folder, const char *leaf, int made);

#endif
