/* On the host, with the container's first process waiting: which process and cgroup the grant belongs to, and whether
 * everything is there that the next stage needs. */
#include "cleanup.h"
#include "fail.h"
#include "io.h"
#include "plan.h"
#include "stages.h"
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static pid_t read_pid(void) {
    static char text[STATE_BYTES + 1];
    ssize_t length = read_up_to(STDIN_FILENO, text, sizeof text);
    if (length < 0)
        fail("the container's state can't be read, %s; report this to runai-runtime", why(errno));
    if ((size_t)length > STATE_BYTES)
        fail("the container's state can't be read, it is longer than %zu MiB; use fewer annotations",
             STATE_BYTES >> 20);
    pid_t pid = 0;
    const char *wrong = state_pid(text, (size_t)length, &pid);
    if (wrong)
        fail("the container's state can't be read, %s; look at the low-level runtime", wrong);
    return pid;
}

static void check_source(const struct item *item) {
    cleanup_close int fd = open(item->source, O_PATH | O_CLOEXEC);
    struct stat facts;
    if (fd < 0 || fstat(fd, &facts) < 0)
        fail("%s can't be used, %s; run \"runai-ctl configure\" after a change of the driver", item->source,
             why(errno));
    if (!S_ISREG(facts.st_mode) && (item->kind != KIND_DEVICE || S_ISDIR(facts.st_mode)))
        fail("%s can't be used, it is no regular file; run \"runai-ctl configure\" after a change of the driver",
             item->source);
}

static void check_plan(const char *path, int state) {
    static struct plan plan;
    const char *wrong = plan_read(state, &plan);
    if (wrong)
        fail("the plan in %s can't be used, %s; start the container again", path, wrong);
    struct stat facts;
    if (fstatat(state, "limits", &facts, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(facts.st_mode))
        fail("the share in %s is missing, its file limits isn't there; start the container again", path);
    for (size_t i = 0; i < plan.count; i++)
        if (plan.items[i].source && plan.items[i].kind != KIND_IMAGE_REAL)
            check_source(&plan.items[i]);
}

static void put(int state, const char *name, const char *text, size_t length) {
    if (!replace_file(state, name, text, length))
        fail("the file %s can't be written for the container, %s; look at the state directory", name, why(errno));
}

void stage_prestart(const char *path, int state) {
    pid_t pid = read_pid();
    check_plan(path, state);
    char name[64];
    char text[16384];
    (void)snprintf(name, sizeof name, "/proc/%d/cgroup", (int)pid);
    ssize_t length = read_file(AT_FDCWD, name, text, sizeof text);
    if (length < 0)
        fail("the cgroup of process %d can't be read, %s; look at the low-level runtime", (int)pid, why(errno));
    put(state, "cgroup", text, (size_t)length);
    put(state, "pid", text, (size_t)snprintf(text, sizeof text, "%d\n", (int)pid));
}
