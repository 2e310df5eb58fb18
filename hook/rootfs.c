#include "rootfs.h"

#include "cleanup.h"
#include "fail.h"
#include "kernel.h"
#include "propagation.h"
#include "writable.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define IN_ROOT (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
#define LINKS 40   /* as many as the kernel follows */
#define SECONDS 2  /* of the processor; usually it is a thousandth of that */
#define RETRIES 64 /* a look-up gives up when something is renamed or mounted meanwhile */

static bool own_path(int fd, char path[PATH_MAX]) {
    char link[32];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0)
        return false;
    path[length] = '\0';
    return path[0] == '/';
}

void rootfs_open(struct rootfs *rootfs, const char *path, int state) {
    rootfs->fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (rootfs->fd < 0)
        fail("the container's root %s can't be opened, %s; look at the runtime's bundle", path, why(errno));
    if (!own_path(rootfs->fd, rootfs->path))
        fail("the container's root %s can't be named, /proc doesn't tell its path; mount /proc on the host", path);
    if (strcmp(rootfs->path, "/") == 0)
        rootfs->path[0] = '\0';
    rootfs->mount = mount_id(rootfs->fd);
    rootfs->journal = openat(state, "made", O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (rootfs->journal < 0)
        fail("the list of mount points can't be written, %s; look at the state directory", why(errno));
}

static int look_up(int folder, const char *path, int flags, uint64_t resolve) {
    for (int i = 0; i < RETRIES; i++) {
        int fd = sys_openat2(folder, path, (uint64_t)(unsigned int)flags, 0, resolve);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            return fd;
    }
    return -1;
}

/* An image can have look-ups without end: lists of millions of paths, links of links. The runtime would stop us without a
 * word, much later. Only our own time counts, so that a busy host is no reason. */
static void check_time(void) {
    struct timespec used;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) == 0 && used.tv_sec >= SECONDS)
        fail("the image can't be checked for driver libraries, that takes more than %d seconds; look at /etc/ld.so.conf.d "
             "and at links in its library folders", SECONDS);
}

int rootfs_resolve(const struct rootfs *rootfs, const char *path, int flags) {
    check_time();
    return look_up(rootfs->fd, path, flags, IN_ROOT);
}

DIR *rootfs_list(const struct rootfs *rootfs, const char *path) {
    cleanup_close int fd = rootfs_resolve(rootfs, path, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (folder)
        (void)take_fd(&fd);
    return folder;
}

bool rootfs_absent(int error) {
    return error == ENOENT || error == ENOTDIR || error == ENAMETOOLONG;
}

bool rootfs_path(const struct rootfs *rootfs, int fd, char path[PATH_MAX]) {
    char host[PATH_MAX];
    size_t root = strlen(rootfs->path);
    if (!own_path(fd, host) || strncmp(host, rootfs->path, root) != 0 || (host[root] && host[root] != '/'))
        return false;
    memmove(path, host[root] ? host + root : "/", host[root] ? strlen(host + root) + 1 : 2);
    return true;
}

/* FOLDER/LEAF, or the end of the program: a path that long can't be mounted on. */
static void join(char path[PATH_MAX], const char *folder, const char *leaf) {
    int length = snprintf(path, PATH_MAX, "%s/%s", strcmp(folder, "/") == 0 ? "" : folder, leaf);
    if (length < 0 || length >= PATH_MAX)
        fail("%s can't be made in %s, the path gets too long; choose another place", leaf, folder);
}

/* Notes down what is about to be made, for poststop. What lies in a volume isn't noted: on the host's side, where
 * poststop looks, the volume is not there and the path would mean something else. */
static void note(const struct rootfs *rootfs, int folder, const char *leaf) {
    char parent[PATH_MAX];
    char line[PATH_MAX];
    if (mount_id(folder) != rootfs->mount)
        return;
    if (!rootfs_path(rootfs, folder, parent))
        fail("%s can't be made, its folder left the container's root meanwhile; start the container again", leaf);
    join(line, parent, leaf);
    if (strchr(line, '\n'))
        fail("%s can't be made, its path holds a newline; rename the folder in the image", line);
    size_t length = strlen(line);
    line[length++] = '\n';
    if (write(rootfs->journal, line, length) != (ssize_t)length)
        fail("the list of mount points can't be written, %s; look at the state directory", why(errno));
}

/* The error of an attempt to make PATH in FOLDER: a volume is for the caller, anything else is the end. */
static int not_made(struct rootfs *rootfs, int folder, const char *path) {
    if (errno != EROFS || mount_id(folder) == rootfs->mount)
        fail("the mount point %s can't be made, %s; look at the image and its volumes", path, why(errno));
    struct mount_facts facts;
    mount_look_up(rootfs, folder, &facts);
    memcpy(rootfs->blocked, facts.point, sizeof facts.point);
    errno = EROFS;
    return -1;
}

/* Nothing is made in a volume: it would stay there, in a folder of the host. A tmpfs of the container's own, such as
 * /dev, goes with it. */
static bool is_volume(const struct rootfs *rootfs, int folder) {
    struct mount_facts facts;
    if (mount_id(folder) == rootfs->mount)
        return false;
    mount_look_up(rootfs, folder, &facts);
    return !facts.own_tmpfs;
}

static int make_in(int folder, const char *leaf, bool is_folder) {
    if (!is_folder)
        return openat(folder, leaf, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644);
    if (mkdirat(folder, leaf, 0755) < 0)
        return -1;
    return look_up(folder, leaf, O_PATH | O_DIRECTORY | O_NOFOLLOW, RESOLVE_BENEATH);
}

/* The same by way of a writable mount of the root. What is mounted on has to be on the container's own. */
static int make_anyway(const struct rootfs *rootfs, int folder, const char *leaf, bool is_folder) {
    cleanup_close int writable = writable_folder(rootfs, folder);
    cleanup_close int made = writable < 0 ? -1 : make_in(writable, leaf, is_folder);
    return made < 0 ? -1 : writable_found(folder, leaf, made);
}

/* Makes LEAF, an empty file or a folder, in FOLDER; PATH is its name for messages. */
static int make(struct rootfs *rootfs, int folder, const char *leaf, const char *path, bool is_folder) {
    refuse_shared(rootfs, folder, path);
    if (is_volume(rootfs, folder)) {
        errno = EROFS;
        return not_made(rootfs, folder, path);
    }
    note(rootfs, folder, leaf);
    int fd = make_in(folder, leaf, is_folder);
    if (fd < 0 && errno == EROFS && mount_id(folder) == rootfs->mount)
        fd = make_anyway(rootfs, folder, leaf, is_folder);
    return fd >= 0 ? fd : not_made(rootfs, folder, path);
}

/* Splits PATH into its folder and its last part, a copy each. A path that ends in a slash or dots has no last part. */
static bool split_path(const char *path, char folder[PATH_MAX], char leaf[PATH_MAX]) {
    const char *slash = strrchr(path, '/');
    if (!slash || strlen(path) >= PATH_MAX)
        return false;
    size_t length = (size_t)(slash - path);
    memcpy(folder, length ? path : "/", length ? length : 1);
    folder[length ? length : 1] = '\0';
    strcpy(leaf, slash + 1);
    return *leaf && strcmp(leaf, ".") != 0 && strcmp(leaf, "..") != 0;
}

int rootfs_folder(struct rootfs *rootfs, const char *path) {
    int fd = rootfs_resolve(rootfs, path, O_PATH | O_DIRECTORY);
    if (fd >= 0)
        return fd;
    char above[PATH_MAX];
    char leaf[PATH_MAX];
    if (errno != ENOENT || !split_path(path, above, leaf))
        fail("the folder %s can't be opened, %s; look at the image and its volumes", path, why(errno));
    cleanup_close int folder = rootfs_folder(rootfs, above);
    if (folder < 0)
        return -1;
    cleanup_close int link = look_up(folder, leaf, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH);
    if (link >= 0)
        fail("the folder %s can't be made, a symbolic link to nowhere has its name; remove it from the image", path);
    return make(rootfs, folder, leaf, path, true);
}

/* Where the link LINK in FOLDER points to, as a path of the container. */
static void follow(const struct rootfs *rootfs, int folder, int link, char path[PATH_MAX]) {
    char body[PATH_MAX];
    char parent[PATH_MAX];
    ssize_t length = readlinkat(link, "", body, sizeof body - 1);
    if (length <= 0 || !rootfs_path(rootfs, folder, parent))
        fail("the link %s can't be followed, it changed meanwhile; start the container again", path);
    body[length] = '\0';
    if (body[0] == '/')
        memcpy(path, body, (size_t)length + 1);
    else
        join(path, parent, body);
}

/* Makes the missing file at PATH. A link that has its name is followed inside of the root, and the file made where it
 * points to; but no folders are made for the sake of a link. */
static int make_missing(struct rootfs *rootfs, const char *wanted) {
    char path[PATH_MAX];
    char above[PATH_MAX];
    char leaf[PATH_MAX];
    if (strlen(wanted) >= sizeof path)
        fail("the mount point %s can't be made, its path is too long; choose another place", wanted);
    strcpy(path, wanted);
    for (int links = 0; links < LINKS; links++) {
        if (!split_path(path, above, leaf))
            fail("the mount point %s can't be made, it leads to %s, which names no file; look at the image", wanted,
                 path);
        cleanup_close int folder =
            links ? rootfs_resolve(rootfs, above, O_PATH | O_DIRECTORY) : rootfs_folder(rootfs, above);
        if (folder < 0 && links == 0)
            return -1;
        if (folder < 0)
            fail("the mount point %s can't be made, it is a link to %s, and that folder isn't there; "
                 "remove the link from the image", wanted, path);
        cleanup_close int there = look_up(folder, leaf, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH);
        if (there < 0 && errno == ENOENT)
            return make(rootfs, folder, leaf, wanted, false);
        struct stat facts;
        if (there < 0 || fstat(there, &facts) < 0 || !S_ISLNK(facts.st_mode))
            fail("the mount point %s can't be made, %s changed meanwhile; start the container again", wanted, path);
        follow(rootfs, folder, there, path);
    }
    fail("the mount point %s can't be made, %s; look at the image", wanted, why(ELOOP));
}

static const char *type_name(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFDIR: return "a folder";
    case S_IFIFO: return "a FIFO";
    case S_IFSOCK: return "a socket";
    case S_IFCHR:
    case S_IFBLK: return "a device";
    default: return "no regular file";
    }
}

int rootfs_mount_point(struct rootfs *rootfs, const char *path) {
    int fd = rootfs_resolve(rootfs, path, O_PATH);
    if (fd < 0 && errno == ENOENT)
        return make_missing(rootfs, path);
    if (fd < 0)
        fail("the mount point %s can't be opened, %s; look at the image and its volumes", path, why(errno));
    struct stat facts;
    if (fstat(fd, &facts) < 0)
        fail("the mount point %s can't be looked at, %s; look at the image and its volumes", path, why(errno));
    if (!S_ISREG(facts.st_mode))
        fail("%s can't be used as a mount point, it is %s; remove it from the image or the volume", path,
             type_name(facts.st_mode));
    return fd;
}

int rootfs_own_folder(struct rootfs *rootfs, const char *name) {
    int fd = look_up(rootfs->fd, name, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH);
    if (fd < 0 && errno == ENOENT)
        fd = make(rootfs, rootfs->fd, name, name, true);
    if (fd < 0)
        fail("the folder /%s can't be made, %s; make the container's root writable for the runtime", name, why(errno));
    struct stat facts;
    if (fstat(fd, &facts) < 0 || !S_ISDIR(facts.st_mode))
        fail("/%s can't be used, it is a link or a file; this name belongs to runai, remove it from the image", name);
    return fd;
}
