/* On the host, after the container's end: takes away what was made in its root, then gives the grant back. Whatever is
 * gone already is fine, so that it may be done twice, or again after half of it. */
#include "cleanup.h"
#include "fail.h"
#include "io.h"
#include "kernel.h"
#include "plan.h"
#include "stages.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

/* A path of the root without any link, and on the root's own mount: the container may have changed it. */
#define PLAIN (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)

/* As much as the longest plan with the longest paths makes. */
#define MADE_BYTES ((size_t)8 << 20)

/* The journal first, whose work is done; the grant last, since the ledger counts it. */
static const char *const FILES[] = {
    "made", "pid.new", "pid", "cgroup.new", "cgroup", "log", "agent", "control", "agent.log", "agent.conf", "page",
    "limits", "plan", "grant.json",
};

static int open_parent(int rootfs, char *path, const char **leaf) {
    char *slash = strrchr(path, '/');
    *leaf = slash + 1;
    if (slash == path)
        return sys_openat2(rootfs, ".", O_PATH | O_DIRECTORY, 0, PLAIN);
    *slash = '\0';
    return sys_openat2(rootfs, path + 1, O_PATH | O_DIRECTORY, 0, PLAIN);
}

/* Removes one mount point if it still is what we made: an empty file, or an empty folder. */
static void unmake(int rootfs, char *path) {
    if (path[0] != '/' || strlen(path) >= PATH_MAX)
        return;
    const char *leaf = NULL;
    cleanup_close int parent = open_parent(rootfs, path, &leaf);
    struct stat facts;
    if (parent < 0 || !*leaf || fstatat(parent, leaf, &facts, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    if (S_ISREG(facts.st_mode) && facts.st_size == 0)
        (void)unlinkat(parent, leaf, 0);
    /* rmdir leaves a folder in which the container has put something. */
    if (S_ISDIR(facts.st_mode))
        (void)unlinkat(parent, leaf, AT_REMOVEDIR);
}

static void clean_rootfs(int state) {
    static struct plan plan;
    static char made[MADE_BYTES];
    ssize_t length = read_file(state, "made", made, sizeof made);
    if (length <= 0 || plan_read(state, &plan))
        return;
    cleanup_close int rootfs = open(plan.rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (rootfs < 0)
        return;
    /* The last line may be cut off, which makes it another path: each line ends with a newline. */
    for (char *end = memrchr(made, '\n', (size_t)length); end;) {
        *end = '\0';
        char *before = memrchr(made, '\n', (size_t)(end - made));
        unmake(rootfs, before ? before + 1 : made);
        end = before;
    }
}

void stage_poststop(const char *path, int state) {
    drain_stdin();
    clean_rootfs(state);
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++)
        if (unlinkat(state, FILES[i], 0) < 0 && errno != ENOENT)
            fail("the file %s in %s can't be removed, %s; remove it by hand", FILES[i], path, why(errno));
    if (rmdir(path) < 0 && errno != ENOENT && errno != ENOTEMPTY)
        fail("%s can't be removed, %s; remove it by hand", path, why(errno));
}
