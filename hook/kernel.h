/* Calls for which older C libraries have no function. All are there from kernel 5.12 on; the numbers are the same on
 * every architecture. <sys/mount.h> isn't included anywhere: glibc's and the kernel's header exclude each other. */
#ifndef RUNAI_KERNEL_H
#define RUNAI_KERNEL_H

#include "fail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The result of a call, unless the kernel doesn't know it. */
static inline int known(long result, const char *call) {
    if (result < 0 && errno == ENOSYS)
        fail("the container's mounts can't be made, the kernel has no %s; use a kernel of 5.12 or later", call);
    return (int)result;
}

static inline int sys_openat2(int folder, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};
    return known(syscall(SYS_openat2, folder, path, &how, sizeof how), "openat2");
}

static inline int sys_open_tree(int folder, const char *path, unsigned int flags) {
    return known(syscall(SYS_open_tree, folder, path, flags), "open_tree");
}

static inline int sys_move_mount(int mount, int target) {
    unsigned int flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    return known(syscall(SYS_move_mount, mount, "", target, "", flags), "move_mount");
}

static inline int sys_mount_setattr(int mount, struct mount_attr *attributes) {
    return known(syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, attributes, sizeof *attributes), "mount_setattr");
}

static inline int sys_fsopen(const char *type) {
    return known(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), "fsopen");
}

static inline int sys_fsconfig(int context, unsigned int command, const char *key, const char *value) {
    return known(syscall(SYS_fsconfig, context, command, key, value, 0), "fsconfig");
}

static inline int sys_fsmount(int context, unsigned int attributes) {
    return known(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes), "fsmount");
}

#endif
