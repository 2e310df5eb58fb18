#include "mount.h"

#include "cleanup.h"
#include "fail.h"

#include <errno.h>
#include <inttypes.h>

static void change_attributes(int mount, uint64_t set, uint64_t clear, const char *name) {
    struct mount_attr change = {.attr_set = set, .attr_clr = clear, .propagation = MS_PRIVATE};
    if (sys_mount_setattr(mount, &change) == 0)
        return;
    if (errno == EPERM && clear)
        fail("%s can't be mounted, its file system is mounted noexec and no user namespace can undo that; keep it on "
             "another one, or run the container with --userns=host", name);
    fail("the mount of %s can't be restricted, %s; use a kernel of 5.12 or later", name, why(errno));
}

/* A clone has the attributes of the mount that it comes from, and the state directory's is often noexec: Debian and
 * Ubuntu mount /run so. The kernel maps no library from such a mount. */
static int clone_tree(int folder, const char *path, const char *name, uint64_t attributes) {
    int mount = sys_open_tree(folder, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (mount < 0)
        fail("%s can't be mounted, %s; look at the host's driver files and at the state directory", name, why(errno));
    change_attributes(mount, attributes, ~attributes & MOUNT_ATTR_NOEXEC, name);
    return mount;
}

int mount_clone_at(int folder, const char *path, uint64_t attributes) {
    return clone_tree(folder, path, path, attributes);
}

int mount_clone_fd(int fd, const char *name, uint64_t attributes) {
    return clone_tree(fd, "", name, attributes);
}

int mount_clone(const char *source, uint64_t attributes) {
    return mount_clone_at(AT_FDCWD, source, attributes);
}

void mount_set(int mount, uint64_t attributes, const char *name) {
    change_attributes(mount, attributes, 0, name);
}

void mount_attach(int mount, int target, const char *name) {
    if (sys_move_mount(mount, target) < 0)
        fail("nothing can be mounted at %s, %s; look at the image and its volumes", name, why(errno));
}

static void configure(int context, const char *key, const char *value) {
    if (sys_fsconfig(context, FSCONFIG_SET_STRING, key, value) < 0)
        fail("a tmpfs can't be set up, its option %s is refused: %s; use a kernel of 5.12 or later", key, why(errno));
}

int mount_tmpfs(uint64_t size, unsigned int inodes, unsigned int attributes) {
    cleanup_close int context = sys_fsopen("tmpfs");
    if (context < 0)
        fail("a tmpfs can't be made, %s; use a kernel of 5.12 or later", why(errno));
    char number[32];
    (void)snprintf(number, sizeof number, "%" PRIu64, size);
    configure(context, "size", number);
    (void)snprintf(number, sizeof number, "%u", inodes);
    configure(context, "nr_inodes", number);
    configure(context, "mode", "0755");
    configure(context, "source", "runai");
    if (sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL) < 0)
        fail("a tmpfs can't be made, %s; look at the kernel's log", why(errno));
    int mount = sys_fsmount(context, attributes);
    if (mount < 0)
        fail("a tmpfs can't be mounted, %s; use a kernel of 5.12 or later", why(errno));
    return mount;
}
