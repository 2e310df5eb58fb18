#include "writable.h"

#include "cleanup.h"
#include "kernel.h"

#include <string.h>
#include <sys/stat.h>

#define PLAIN (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)

/* The root's mount once more, without what is mounted in it. -1: it can't be made writable, as in a user namespace that
 * was given it read-only. */
static int clone_root(const struct rootfs *rootfs) {
    cleanup_close int mount = sys_open_tree(rootfs->fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    struct mount_attr change = {.attr_clr = MOUNT_ATTR_RDONLY, .propagation = MS_PRIVATE};
    return mount >= 0 && sys_mount_setattr(mount, &change) == 0 ? take_fd(&mount) : -1;
}

static bool is_same(int one, int other) {
    struct stat a;
    struct stat b;
    return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int writable_folder(const struct rootfs *rootfs, int folder) {
    char path[PATH_MAX];
    cleanup_close int mount = clone_root(rootfs);
    if (mount >= 0 && rootfs_path(rootfs, folder, path)) {
        const char *below = path[1] ? path + 1 : ".";
        cleanup_close int same = sys_openat2(mount, below, O_PATH | O_DIRECTORY, 0, PLAIN);
        if (same >= 0 && is_same(same, folder))
            return take_fd(&same);
    }
    errno = EROFS;
    return -1;
}

int writable_found(int folder, const char *leaf, int made) {
    cleanup_close int found = sys_openat2(folder, leaf, O_PATH | O_NOFOLLOW, 0, PLAIN);
    if (found >= 0 && is_same(found, made))
        return take_fd(&found);
    errno = EAGAIN;
    return -1;
}
