#include "cache.h"

#include "cleanup.h"
#include "fail.h"

#include <errno.h>
#include <string.h>

static const char CACHE[] = "/etc/ld.so.cache";
#define BYTES (64L << 20)

/* The text that is being collected, up to the next NUL. The loader can't open a path of PATH_MAX or more bytes: of a
 * longer text only the end can matter. */
struct collector {
    is_sought *wanted;
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
    const char *last = strrchr(collector->text, '/');
    bool wanted = last && collector->wanted(collector->context, last + 1);
    /* Each text is a path from every slash on, since entries may point into its middle; of slashes in a row the last. */
    for (char *slash = wanted ? strchr(collector->text, '/') : NULL; slash; slash = strchr(slash + 1, '/'))
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

void cache_each_path(const struct rootfs *rootfs, is_sought *wanted, see_path *see, void *context) {
    cleanup_close int fd = image_open(rootfs, CACHE);
    if (fd < 0)
        return;
    static struct collector collector;
    collector = (struct collector){.wanted = wanted, .see = see, .context = context};
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
