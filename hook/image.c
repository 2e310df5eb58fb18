#include "image.h"

#include "cleanup.h"
#include "fail.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define PROC_SUPER_MAGIC 0x9fa0 /* as in linux/magic.h */
#define SYSFS_MAGIC 0x62656572

/* Opening some files does something (a FIFO waits, the kernel's log loses what is read), so it is looked at first; and
 * what /proc and /sys hold is never the image's, though it may say so. */
int image_open(const struct rootfs *rootfs, const char *path) {
    cleanup_close int found = rootfs_resolve(rootfs, path, O_PATH);
    struct stat facts;
    struct statfs system;
    if (found < 0 && !rootfs_absent(errno))
        fail("the image's %s can't be opened, %s; look at the image and its volumes", path, why(errno));
    if (found < 0 || fstat(found, &facts) < 0 || !S_ISREG(facts.st_mode))
        return -1; /* nor does the loader read anything else */
    if (fstatfs(found, &system) < 0 || system.f_type == PROC_SUPER_MAGIC || system.f_type == SYSFS_MAGIC)
        fail("the image's %s can't be checked, it is a link into /proc or /sys; remove it from the image", path);
    char own[32];
    (void)snprintf(own, sizeof own, "/proc/self/fd/%d", found);
    int fd = open(own, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        fail("the image's %s can't be opened, %s; look at the image and its volumes", path, why(errno));
    return fd;
}
