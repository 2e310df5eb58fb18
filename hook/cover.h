/* Our libraries over everything that could be loaded in their place, and the proof of it. */
#ifndef RUNAI_COVER_H
#define RUNAI_COVER_H

#include "loader.h"

#include <stdint.h>

/* Mounts the host's file SOURCE at TARGET with these MOUNT_ATTR_ bits. False: a read-only volume is in the way. */
bool cover_target(struct rootfs *rootfs, const char *target, const char *source, uint64_t attributes);

/* Puts a library into the default library folder under NAME. */
void cover_home(const struct loader *loader, const char *name, const char *source);

/* Covers every file that goes by a name of our libraries in a folder of the loader's. */
void cover_all(struct loader *loader);

/* Looks at all of them again: each one is ours, and the loader finds one of each; otherwise ends the program. */
void cover_verify(struct loader *loader);

#endif
