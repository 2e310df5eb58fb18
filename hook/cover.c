#include "cover.h"

#include "cleanup.h"
#include "fail.h"
#include "mount.h"
#include "own.h"
#include "propagation.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* A driver has a handful of files by these names. A kernel ends at 100,000 mounts. */
#define MOST 256

static void refuse_own(const struct rootfs *rootfs, int fd, const char *path) {
    if (own_holds(rootfs, fd))
        fail("%s can't be covered, it is a link into /.runai; remove it from the image", path);
}

/* Mounts SOURCE on what is open as TARGET; PATH is its name for messages. */
static void cover(const struct rootfs *rootfs, int target, const char *path, const char *source,
                  uint64_t attributes) {
    refuse_own(rootfs, target, path);
    refuse_shared(rootfs, target, path);
    cleanup_close int mount = mount_clone(source, attributes);
    struct stat facts;
    if (fstat(mount, &facts) < 0)
        fail("%s can't be looked at, %s; look at the host's driver files", source, why(errno));
    /* Where devices work, the source may be one. */
    if (S_ISDIR(facts.st_mode) || ((attributes & MOUNT_ATTR_NODEV) && !S_ISREG(facts.st_mode)))
        fail("%s can't be mounted, it is no regular file; look at the host's driver files", source);
    mount_attach(mount, target, path);
}

bool cover_target(struct rootfs *rootfs, const char *target, const char *source, uint64_t attributes) {
    cleanup_close int fd = rootfs_mount_point(rootfs, target);
    if (fd < 0)
        return false;
    cover(rootfs, fd, target, source, attributes);
    return true;
}

/* The folder is on a volume. If the container offers the library anyway, that does; ours go over it. */
static void make_do(const struct loader *loader, const char *name) {
    if (!loader_offers(loader, name))
        fail("%s can't be put into %s, the volume on %s has no file of that name to cover and none is made in a volume; "
             "mount it at another place", name, loader->home, loader->rootfs->blocked);
}

void cover_home(const struct loader *loader, const char *name, const char *source) {
    char target[PATH_MAX];
    if (snprintf(target, sizeof target, "%s/%s", loader->home, name) >= (int)sizeof target)
        fail("%s can't be put into %s, %s; report this to runai-runtime", name, loader->home, why(ENAMETOOLONG));
    if (!cover_target(loader->rootfs, target, source, READ_ONLY))
        make_do(loader, name);
}

static bool is_ours(const struct ours *ours, const struct stat *facts) {
    return facts->st_dev == ours->device && facts->st_ino == ours->inode;
}

/* Nothing can be loaded from a folder, nor is ours. */
static bool harmless(const struct ours *ours, const struct stat *facts) {
    return is_ours(ours, facts) || S_ISDIR(facts->st_mode);
}

static void cover_one(const struct loader *loader, struct ours *ours, const char *path, int fd,
                      const struct stat *facts) {
    static int count;
    if (harmless(ours, facts))
        return;
    if (!S_ISREG(facts->st_mode))
        fail("%s can't be covered, it is no regular file; remove it from the image or the volume", path);
    /* An empty one is a mount point that some runtime left. A loader that meets it gives up ("file too short"), so it
     * is covered as well; but it is no reason to stop. */
    if (facts->st_size == 0 && (mount_is_shared(loader->rootfs, fd) || own_holds(loader->rootfs, fd)))
        return;
    if (++count > MOST)
        fail("%s can't be covered, the image has more than %d files of such names; remove them", path, MOST);
    cover(loader->rootfs, fd, path, ours->source, READ_ONLY);
}

void cover_all(struct loader *loader) {
    loader_each(loader, cover_one);
}

static void verify_one(const struct loader *loader, struct ours *ours, const char *path, int fd,
                       const struct stat *facts) {
    (void)loader;
    (void)fd;
    if (is_ours(ours, facts)) {
        const char *name = strrchr(path, '/') + 1;
        ours->offered = ours->offered || strcmp(name, ours->soname) == 0;
        return;
    }
    if (S_ISDIR(facts->st_mode) || facts->st_size == 0)
        return;
    fail("%s is not the library that keeps the share, although it was covered; look for links and volumes that "
         "lead to it", path);
}

void cover_verify(struct loader *loader) {
    loader_each(loader, verify_one);
    for (size_t i = 0; i < loader->ours_count; i++)
        if (!loader->ours[i].offered)
            fail("the container's programs would not find %s, no folder of its loader offers it; look at links in %s",
                 loader->ours[i].soname, loader->home);
}
