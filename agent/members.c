/* Names and depth of the cgroups below the container's are its own choice, where it may make any. */
#include "members.h"
#include "cleanup.h"
#include "io.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define DEPTH 8     /* of cgroups below the container's */
#define FOLDERS 256 /* together */
#define PID_NAMESPACES 32 /* of each other: the kernel makes no more */

/* How often those are killed that are there: others may have been forked meanwhile. A millisecond lies between. */
#define KILLS 100

static struct {
    int folder;        /* the cgroup; -1: none */
    int first;         /* pidfd of the first process */
    pid_t pid;         /* its pid */
    int pid_namespace; /* that it began; -1: it was put into one that others may have */
} own = {.folder = -1, .pid_namespace = -1};

/* ---- where it is ---------------------------------------------------------------------------------------------- */

/* The hierarchies, by the second field of /proc/PID/cgroup: each container's devices are bounded, so it has a place of
 * its own in the first where that is there (version 1, or both versions). The folders are where every distribution has them. */
static const struct hierarchy {
    const char *name, *folder;
    long type;
} hierarchies[] = {
    {"devices", "/sys/fs/cgroup/devices", CGROUP_SUPER_MAGIC},
    {"pids", "/sys/fs/cgroup/pids", CGROUP_SUPER_MAGIC},
    {"", "/sys/fs/cgroup", CGROUP2_SUPER_MAGIC},
};

/* NUMBER:NAME:PATH (cgroups(7)). The path in the hierarchy NAME, with the line's end behind it; NULL. */
static const char *path_in(const char *text, const char *name) {
    size_t length = strlen(name);
    for (const char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        const char *at = strchr(line, ':');
        if (at && strncmp(at + 1, name, length) == 0 && at[1 + length] == ':')
            return at + 2 + length;
    }
    return NULL;
}

/* Whether the cgroup PATH holds OTHER, or one of them can't be told. Each ends with its line. */
static bool holds(const char *path, const char *other) {
    size_t length = strcspn(path, "\n");
    if (!other || length < 2)
        return true;
    return strncmp(path, other, length) == 0 && strchr("/\n", other[length]);
}

static int open_below(const struct hierarchy *hierarchy, const char *path) {
    char name[4096];
    struct statfs facts;
    cleanup_close int top = open(hierarchy->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (top < 0 || fstatfs(top, &facts) < 0 || (long)facts.f_type != hierarchy->type)
        return -1;
    (void)snprintf(name, sizeof name, ".%.*s", (int)strcspn(path, "\n"), path);
    return strstr(name, "/../") ? -1 : openat(top, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* A container that was given no cgroup of its own is in the runtime's, as we are. */
static int open_cgroup(int state) {
    char text[16384], ours[16384];
    if (read_file(state, "cgroup", text, sizeof text) <= 0 ||
        read_file(AT_FDCWD, "/proc/self/cgroup", ours, sizeof ours) <= 0)
        return -1;
    for (size_t i = 0; i < sizeof hierarchies / sizeof *hierarchies; i++) {
        const char *path = path_in(text, hierarchies[i].name);
        int folder = path && !holds(path, path_in(ours, hierarchies[i].name)) ? open_below(&hierarchies[i], path) : -1;
        if (folder >= 0)
            return folder;
    }
    return -1;
}

/* ---- whose they are ------------------------------------------------------------------------------------------- */

static int open_namespace(pid_t pid, const char *name) {
    char path[48];
    (void)snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static bool is_same(int one, int other) {
    struct stat left, right;
    return one >= 0 && other >= 0 && fstat(one, &left) == 0 && fstat(other, &right) == 0 &&
           left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

/* One that the first process began has nobody but the container's processes, and no process leaves its own. */
static int open_pid_namespace(pid_t pid) {
    pid_t group = 0, inner = 0;
    cleanup_close int its = open_namespace(pid, "pid"), ours = open_namespace(getpid(), "pid");
    if (its < 0 || ours < 0 || is_same(its, ours) || !process_ids(pid, &group, &inner) || inner != 1)
        return -1;
    return take_fd(&its);
}

static bool is_in_pid_namespace(pid_t pid) {
    int at = own.pid_namespace < 0 ? -1 : open_namespace(pid, "pid");
    for (unsigned i = 0; at >= 0 && i < PID_NAMESPACES; i++) {
        cleanup_close int here = at;
        if (is_same(here, own.pid_namespace))
            return true;
        at = ioctl(here, NS_GET_PARENT);
    }
    if (at >= 0)
        (void)close(at);
    return false;
}

/* Nobody else has the container's mounts: to get there takes CAP_SYS_ADMIN over them. They aren't kept open, as that would
 * keep the mounts as well, so it is the first process that tells which they are, and that lives. */
static bool has_its_mounts(pid_t pid) {
    cleanup_close int its = open_namespace(pid, "mnt"), first = open_namespace(own.pid, "mnt"),
                      ours = open_namespace(getpid(), "mnt");
    return ours >= 0 && is_same(its, first) && !is_same(first, ours) && pidfd_lives(own.first);
}

int members_open(pid_t pid) {
    cleanup_close int process = own.folder < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
    bool certain = process >= 0 && (is_in_pid_namespace(pid) || has_its_mounts(pid));
    return certain && pidfd_lives(process) ? take_fd(&process) : -1; /* then the pid was its own until now */
}

void members_find(int state, int first, pid_t pid) {
    cleanup_close int folder = open_cgroup(state);
    own.first = first;
    own.pid = pid;
    own.pid_namespace = open_pid_namespace(pid);
    if (pidfd_lives(first))
        own.folder = take_fd(&folder);
}

/* ---- all of them ---------------------------------------------------------------------------------------------- */

struct walk {
    pid_t *list;
    size_t count;
    unsigned folders;
};

/* Whether that could be read. */
static bool read_ids(int folder, const char *name, struct walk *walk) {
    char text[4096];
    long id = 0;
    ssize_t length = 0;
    cleanup_close int file = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    while (file >= 0 && walk->count < MEMBERS_MOST && (length = read(file, text, sizeof text)) > 0)
        for (ssize_t i = 0; i < length; i++) {
            if (text[i] != '\n') {
                id = id * 10 + text[i] - '0';
                continue;
            }
            if (id > 0 && walk->count < MEMBERS_MOST)
                walk->list[walk->count++] = (pid_t)id;
            id = 0;
        }
    return file >= 0 && length >= 0;
}

/* Of a threaded cgroup the kernel names no processes, but threads: among them the first of each process. */
static void visit(int folder, unsigned depth, struct walk *walk) {
    if (!read_ids(folder, "cgroup.procs", walk))
        (void)read_ids(folder, "cgroup.threads", walk);
    int copy = depth < DEPTH ? openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    cleanup_closedir DIR *entries = copy < 0 ? NULL : fdopendir(copy);
    if (!entries && copy >= 0)
        (void)close(copy);
    for (const struct dirent *entry = entries ? readdir(entries) : NULL; entry; entry = readdir(entries)) {
        if (entry->d_type != DT_DIR || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (walk->folders++ == FOLDERS)
            return;
        cleanup_close int below = openat(folder, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0)
            visit(below, depth + 1, walk);
    }
}

size_t members_list(pid_t *list) {
    struct walk walk = {.list = list};
    if (own.folder >= 0)
        visit(own.folder, 0, &walk);
    return walk.count;
}

static size_t kill_all(void) {
    static pid_t list[MEMBERS_MOST];
    size_t count = members_list(list), killed = 0;
    for (size_t i = 0; i < count; i++) {
        cleanup_close int process = list[i] == own.pid ? -1 : members_open(list[i]);
        killed += process >= 0 && pidfd_kill(process);
    }
    return killed;
}

/* With a pid namespace of its own the kernel does that. cgroup.kill isn't used: where it would help, with the host's pids,
 * nothing proves that the cgroup is the container's alone. */
void members_end(void) {
    for (unsigned i = 0; own.pid_namespace < 0 && i < KILLS && kill_all() > 0; i++)
        (void)usleep(1000);
}
