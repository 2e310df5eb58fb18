#include "propagation.h"

#include "cleanup.h"
#include "fail.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* Reading from /proc: the hook is in the container's pid namespace already, but /proc is still the host's, in which
 * /proc/self means us as well. */

int mount_id(int fd) {
    char path[48];
    char text[1024];
    (void)snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    ssize_t length = read_file(AT_FDCWD, path, text, sizeof text);
    const char *found = length > 0 ? strstr(text, "mnt_id:") : NULL;
    if (!found)
        fail("the mounts of the container can't be told apart, /proc/self/fdinfo doesn't show them; mount /proc on the "
             "host");
    return (int)strtol(found + strlen("mnt_id:"), NULL, 10);
}

static bool is_octal(char c) {
    return c >= '0' && c <= '7';
}

/* Undoes the \040 of a path in mountinfo, in place. */
static void unescape(char *text) {
    char *out = text;
    while (*text) {
        if (text[0] == '\\' && is_octal(text[1]) && is_octal(text[2]) && is_octal(text[3])) {
            *out++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
            text += 4;
        } else {
            *out++ = *text++;
        }
    }
    *out = '\0';
}

/* The rest of a line of mountinfo behind its id: parent, device, root, mount point, options, then optional fields such
 * as `shared:7` and `master:1`, up to a dash. */
static void read_facts(const struct rootfs *rootfs, char *rest, struct mount_facts *facts) {
    char *save = NULL;
    int number = 1;
    bool whole = false;
    for (char *field = strtok_r(rest, " ", &save); field; field = strtok_r(NULL, " ", &save), number++) {
        if (number == 3)
            whole = strcmp(field, "/") == 0;
        if (number == 4) {
            unescape(field);
            size_t root = strlen(rootfs->path);
            bool inside = strncmp(field, rootfs->path, root) == 0 && (!field[root] || field[root] == '/');
            const char *point = inside ? field + root : field;
            (void)snprintf(facts->point, sizeof facts->point, "%s", *point ? point : "/");
        }
        if (number > 5 && strcmp(field, "-") == 0) {
            const char *type = strtok_r(NULL, " ", &save);
            facts->own_tmpfs = whole && type && strcmp(type, "tmpfs") == 0;
            return;
        }
        if (number > 5 && strncmp(field, "shared:", strlen("shared:")) == 0)
            facts->shared = true;
    }
}

void mount_look_up(const struct rootfs *rootfs, int fd, struct mount_facts *facts) {
    int wanted = mount_id(fd);
    facts->shared = false;
    facts->own_tmpfs = false;
    facts->point[0] = '\0';
    cleanup_fclose FILE *mounts = fopen("/proc/self/mountinfo", "re");
    cleanup_free char *line = NULL;
    size_t size = 0;
    while (mounts && getline(&line, &size, mounts) > 0) {
        char *rest = line;
        if (strtol(line, &rest, 10) != wanted)
            continue;
        read_facts(rootfs, rest, facts);
        return;
    }
    fail("a mount of the container can't be found, /proc/self/mountinfo doesn't show it; mount /proc on the host");
}

bool mount_is_shared(const struct rootfs *rootfs, int fd) {
    /* Most targets are on the same few mounts, and mountinfo is long on a host with many containers. */
    static int known[16];
    static size_t count;
    int id = mount_id(fd);
    for (size_t i = 0; i < count; i++)
        if (known[i] == id)
            return false;
    struct mount_facts facts;
    mount_look_up(rootfs, fd, &facts);
    if (!facts.shared && count < sizeof known / sizeof *known)
        known[count++] = id;
    return facts.shared;
}

void refuse_shared(const struct rootfs *rootfs, int fd, const char *target) {
    if (!mount_is_shared(rootfs, fd))
        return;
    struct mount_facts facts;
    mount_look_up(rootfs, fd, &facts);
    if (strcmp(facts.point, "/") == 0)
        fail("nothing can be mounted at %s, the container's root has shared propagation and the mount would appear on "
             "the host; set linux.rootfsPropagation to rslave or rprivate", target);
    fail("nothing can be mounted at %s, the volume on %s is shared with the host and the mount would appear there; "
         "mount the volume with rslave or rprivate, or at another place", target, facts.point);
}
