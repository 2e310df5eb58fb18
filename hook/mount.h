/* Mounts by descriptor: made detached, set up, then moved onto a descriptor. No path in the container is ever
 * given to the kernel as the place of a mount. */
#ifndef RUNAI_MOUNT_H
#define RUNAI_MOUNT_H

#include "kernel.h"

#include <stdint.h>

#define READ_ONLY (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

/* A detached mount of the host's file SOURCE with these MOUNT_ATTR_ bits, private. */
int mount_clone(const char *source, uint64_t attributes);

/* The same of PATH in FOLDER. */
int mount_clone_at(int folder, const char *path, uint64_t attributes);

/* A detached tmpfs. SIZE in bytes. */
int mount_tmpfs(uint64_t size, unsigned int inodes, unsigned int attributes);

/* The same of what is open as FD. NAME is for the message. */
int mount_clone_fd(int fd, const char *name, uint64_t attributes);

void mount_set(int mount, uint64_t attributes, const char *name);

/* Puts a detached mount onto TARGET. NAME is for the message. */
void mount_attach(int mount, int target, const char *name);

#endif
