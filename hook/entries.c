#include "entries.h"

#include "cleanup.h"
#include "fail.h"
#include "io.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* glibc, sysdeps/generic/dl-cache.h. The older format may stand before the newer one; the loader takes either. */
static const char CACHE[] = "/etc/ld.so.cache";
static const char OLDER[] = "ld.so-1.7.0";
static const char NEWER[] = "glibc-ld.so.cache1.1";
#define BYTES ((size_t)64 << 20)

struct format {
    size_t count_at; /* the number of entries, from the format's beginning */
    size_t header;
    size_t entry; /* flags, then where the name and the path are, 4 bytes each */
};
static const struct format OLDER_FORMAT = {12, 16, 12};
static const struct format NEWER_FORMAT = {20, 48, 24};

static uint32_t number(const char *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static bool begins(const char *text, size_t size, const char *magic) {
    return size >= strlen(magic) && memcmp(text, magic, strlen(magic)) == 0;
}

/* Where the entries of what begins at TEXT end. */
static size_t end_of(const char *text, size_t size, const struct format *format) {
    size_t room = (size - format->header) / format->entry;
    size_t count = number(text + format->count_at);
    return format->header + format->entry * (count < room ? count : room);
}

/* TEXT has a NUL behind its end. BASE: from where on the names and paths are counted. */
static void each_of(const char *text, size_t size, const struct format *format, size_t base, see_cached *see,
                    void *context) {
    size_t end = end_of(text, size, format);
    for (size_t at = format->header; at < end; at += format->entry) {
        size_t name = number(text + at + 4);
        size_t path = number(text + at + 8);
        if (name < size - base && path < size - base)
            see(context, text + base + name, text + base + path);
    }
}

static void each_newer(const char *text, size_t size, see_cached *see, void *context) {
    if (size >= NEWER_FORMAT.header && begins(text, size, NEWER))
        each_of(text, size, &NEWER_FORMAT, 0, see, context);
}

void entries_each(const struct rootfs *rootfs, see_cached *see, void *context) {
    cleanup_close int fd = image_open(rootfs, CACHE);
    struct stat facts;
    if (fd < 0 || fstat(fd, &facts) < 0)
        return;
    size_t room = facts.st_size < 0 || (size_t)facts.st_size > BYTES ? BYTES : (size_t)facts.st_size + 1;
    cleanup_free char *text = malloc(room + 1);
    ssize_t got = text ? read_up_to(fd, text, room) : -1;
    if (got < 0)
        fail("the image's %s can't be read, %s; look at the image and its volumes", CACHE, why(text ? errno : ENOMEM));
    size_t size = (size_t)got;
    text[size] = '\0';
    each_newer(text, size, see, context);
    if (size < OLDER_FORMAT.header || !begins(text, size, OLDER))
        return;
    size_t end = end_of(text, size, &OLDER_FORMAT);
    each_of(text, size, &OLDER_FORMAT, end, see, context);
    for (size_t start = end; start < size && start < end + 8; start++) /* aligned, by 4 or 8 */
        each_newer(text + start, size - start, see, context);
}
