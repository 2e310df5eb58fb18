/* In the container's mount namespace, before pivot_root: carries the plan out, then checks what came of it. */
#include "cleanup.h"
#include "cover.h"
#include "fail.h"
#include "io.h"
#include "mount.h"
#include "own.h"
#include "propagation.h"
#include "stages.h"

#include <errno.h>
#include <string.h>

/* A device is written to, and where the source is a real node, it has to work as one. */
#define DEVICE (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)

static void blocked(const struct rootfs *rootfs, const char *target) {
    fail("nothing can be mounted at %s, the volume on %s has no such file and none is made in a volume; mount it at "
         "another place", target, rootfs->blocked);
}

static void put_ours(struct loader *loader, const char *soname) {
    for (size_t i = 0; i < loader->ours_count; i++) {
        struct ours *ours = &loader->ours[i];
        if (strcmp(ours->soname, soname) != 0)
            continue;
        cover_home(loader, soname, ours->source);
        struct stat facts;
        if (stat(ours->source, &facts) < 0)
            fail("%s can't be looked at, %s; look at libvgpu's files on the host", ours->source, why(errno));
        ours->device = facts.st_dev;
        ours->inode = facts.st_ino;
    }
}

/* An image's own nvidia-smi stays. An empty one is a mount point that some runtime left. */
static bool has_program(const struct rootfs *rootfs, const char *target) {
    cleanup_close int fd = rootfs_resolve(rootfs, target, O_PATH);
    struct stat facts;
    return fd >= 0 && fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode) && facts.st_size > 0;
}

static void carry_out(struct loader *loader, int own, const struct item *item) {
    struct rootfs *rootfs = loader->rootfs;
    switch (item->kind) {
    case KIND_REAL: own_add_real(own, item->name, item->source); return;
    case KIND_IMAGE_REAL: own_add_image_real(rootfs, own, item); return;
    case KIND_OURS: put_ours(loader, item->name); return;
    case KIND_LIBRARY: cover_home(loader, item->name, item->source); return;
    case KIND_PROGRAM:
        /* A volume over /usr/bin decides what is there; no limit hangs on a program. */
        if (!has_program(rootfs, item->name))
            (void)cover_target(rootfs, item->name, item->source, READ_ONLY);
        return;
    case KIND_DEVICE:
        if (!cover_target(rootfs, item->name, item->source, DEVICE))
            blocked(rootfs, item->name);
        return;
    case KIND_SEARCH:
    case KIND_PRELOAD: return; /* the loader has it */
    }
}

void stage_create_container(const char *path, int state) {
    static struct plan plan;
    static struct rootfs rootfs;
    static struct loader loader;
    drain_stdin();
    const char *wrong = plan_read(state, &plan);
    if (wrong)
        fail("the plan in %s can't be used, %s; start the container again", path, wrong);
    rootfs_open(&rootfs, plan.rootfs, state);
    refuse_shared(&rootfs, rootfs.fd, "/");
    int own = own_open(&rootfs, path);
    loader_open(&loader, &rootfs, &plan);
    for (size_t i = 0; i < plan.count; i++)
        carry_out(&loader, own, &plan.items[i]);
    own_seal(own);
    cover_all(&loader);
    cover_verify(&loader);
}
