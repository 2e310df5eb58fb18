/* Calls for which older C libraries have no function. All are there from kernel 5.12 on; the numbers are the same on
 * every architecture. <sys/mount.h> isn't included anywhere: glibc's and the kernel's header exclude each other. */
#ifndef RUNAI_KERNEL_H
#define RUNAI_KERNEL_H

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline int sys_openat2(int folder, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};
    return (int)syscall(SYS_openat2, folder, path, &how, sizeof how);
}

static inline int sys_open_tree(int folder, const char *path, unsigned int flags) {
    return (int)syscall(SYS_open_tree, folder, path, flags);
}

static inline int sys_move_mount(int mount, int target) {
    return (int)syscall(SYS_move_mount, mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

static inline int sys_mount_setattr(int mount, struct mount_attr *attributes) {
    return (int)syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, attributes, sizeof *attributes);
}

static inline int sys_fsopen(const char *type) {
    return (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
}

static inline int sys_fsconfig(int context, unsigned int command, const char *key, const char *value) {
    return (int)syscall(SYS_fsconfig, context, command, key, value, 0);
}

static inline int sys_fsmount(int context, unsigned int attributes) {
    return (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
}

#endif
