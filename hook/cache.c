#include "cache.h"

#include "cleanup.h"
#include "fail.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define PROC_SUPER_MAGIC 0x9fa0 /* as in linux/magic.h */
#define SYSFS_MAGIC 0x62656572

static const char CACHE[] = "/etc/ld.so.cache";
#define BYTES (64L << 20)

/* The text that is being collected, up to the next NUL. The loader can't open a path of PATH_MAX or more bytes: of a
 * longer text only the end can matter. */
struct collector {
    see_path *see;
    void *context;
    size_t length;
    char text[2 * PATH_MAX + 1];
};

static void keep_end(struct collector *collector) {
    memmove(collector->text, collector->text + PATH_MAX, PATH_MAX);
    collector->length = PATH_MAX;
}

static void finish(struct collector *collector) {
    collector->text[collector->length] = '\0';
    /* Each text is a path from every slash on, since entries may point into its middle; of slashes in a row the last. */
    for (char *slash = strchr(collector->text, '/'); slash; slash = strchr(slash + 1, '/'))
        if (slash[1] != '/')
            collector->see(collector->context, slash);
    collector->length = 0;
}

static void take(struct collector *collector, const char *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!bytes[i]) {
            finish(collector);
            continue;
        }
        if (collector->length == sizeof collector->text - 1)
            keep_end(collector);
        collector->text[collector->length++] = bytes[i];
    }
}

/* The cache for reading; -1 when there is none. Opening some files does something (a FIFO waits, the kernel's log loses
 * what is read), so it is looked at first; and what /proc and /sys hold is never a cache, though it may say so. */
static int open_cache(const struct rootfs *rootfs) {
    cleanup_close int found = rootfs_resolve(rootfs, CACHE, O_PATH);
    struct stat facts;
    struct statfs system;
    if (found < 0 && !rootfs_absent(errno))
        fail("the image's %s can't be opened, %s; look at the image and its volumes", CACHE, why(errno));
    if (found < 0 || fstat(found, &facts) < 0 || !S_ISREG(facts.st_mode))
        return -1; /* nor does the loader read anything else */
    if (fstatfs(found, &system) < 0 || system.f_type == PROC_SUPER_MAGIC || system.f_type == SYSFS_MAGIC)
        fail("the image's %s can't be checked, it is a link into /proc or /sys; run ldconfig in the image", CACHE);
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", found);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        fail("the image's %s can't be opened, %s; look at the image and its volumes", CACHE, why(errno));
    return fd;
}

void cache_each_path(const struct rootfs *rootfs, see_path *see, void *context) {
    cleanup_close int fd = open_cache(rootfs);
    if (fd < 0)
        return;
    static struct collector collector;
    collector = (struct collector){.see = see, .context = context};
    static char bytes[65536];
    ssize_t got = 0;
    /* It may be in a volume and grow while it is read: what counts is what comes, not its size. */
    for (long total = 0; (got = read(fd, bytes, sizeof bytes)) > 0;) {
        total += got;
        if (total > BYTES)
            fail("the image's %s can't be checked, it is longer than 64 MiB; run ldconfig in the image", CACHE);
        take(&collector, bytes, (size_t)got);
    }
    if (got < 0)
        fail("the image's %s can't be read, %s; look at the image and its volumes", CACHE, why(errno));
    finish(&collector);
}
