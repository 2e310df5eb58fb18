#include "own.h"

#include "../libvgpu/account_page.h"
#include "cleanup.h"
#include "fail.h"
#include "mount.h"
#include "propagation.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* Room for what is made here: the root, three folders, the share's mount point and one for each real library. */
#define BYTES 65536
#define INODES 64

static int make_folder(int folder, const char *name) {
    if (mkdirat(folder, name, 0755) < 0)
        fail("%s/%s can't be made, %s; look at the kernel's log", RUNAI_DIR, name, why(errno));
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        fail("%s/%s can't be opened, %s; look at the kernel's log", RUNAI_DIR, name, why(errno));
    return fd;
}

static int make_file(int folder, const char *name, mode_t mode) {
    int fd = openat(folder, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        fail("the file %s can't be made in %s, %s; look at the kernel's log", name, RUNAI_DIR, why(errno));
    return fd;
}

/* Puts MOUNT, which is SOURCE, at NAME in a folder of ours. */
static void put_file(int folder, const char *name, const char *source, int mount) {
    struct stat facts;
    if (fstat(mount, &facts) < 0 || !S_ISREG(facts.st_mode))
        fail("%s can't be mounted, it is no regular file; look at the host's driver files", source);
    cleanup_close int target = make_file(folder, name, 0444);
    mount_attach(mount, target, name);
}

static void bind_file(int folder, const char *name, const char *source, uint64_t attributes) {
    cleanup_close int mount = mount_clone(source, attributes);
    put_file(folder, name, source, mount);
}

/* Every page of it is there from the start: a write into a mapping must never find the tmpfs full. */
static void make_page(int folder) {
    cleanup_close int page = make_file(folder, "page", 0666);
    off_t size = (off_t)sizeof(struct account_page);
    int error = ftruncate(page, size) < 0 || fchmod(page, 0666) < 0 ? errno : posix_fallocate(page, 0, size);
    if (error)
        fail("the account of %zu bytes can't be made, %s; give the container more memory", sizeof(struct account_page),
             why(error));
}

/* Mounts the page on itself, with the attributes that its folder has now. */
static void mount_page(int folder, uint64_t attributes) {
    cleanup_close int page = openat(folder, "page", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    cleanup_close int mount = mount_clone_at(folder, "page", attributes);
    mount_attach(mount, page, RUNAI_DIR "/account/page");
}

/* The account's tmpfs has room for the page and nothing else. The folder is read-only and the page a writable mount on
 * itself: everyone may write the account, nobody can replace or remove it. */
static void add_account(int own) {
    uint64_t unit = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t size = (sizeof(struct account_page) + unit - 1) / unit * unit;
    unsigned int attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    cleanup_close int target = make_folder(own, "account");
    cleanup_close int folder = mount_tmpfs(size, 2, attributes);
    make_page(folder);
    mount_attach(folder, target, RUNAI_DIR "/account");
    mount_page(folder, attributes);
    mount_set(folder, MOUNT_ATTR_RDONLY, RUNAI_DIR "/account");
}

/* What the agent counts. The agent writes it, and nobody in the container can; without an agent there is none. */
static void add_agent_page(int own, const char *state) {
    char page[PATH_MAX];
    if (snprintf(page, sizeof page, "%s/page", state) >= (int)sizeof page)
        fail("the agent's page can't be mounted, the path of the state directory is too long; choose a shorter one");
    struct stat facts;
    if (lstat(page, &facts) == 0)
        bind_file(own, "page", page, READ_ONLY | MOUNT_ATTR_NOEXEC);
    else if (errno != ENOENT)
        fail("%s can't be looked at, %s; look at the state directory", page, why(errno));
}

int own_open(struct rootfs *rootfs, const char *state) {
    char limits[PATH_MAX];
    if (snprintf(limits, sizeof limits, "%s/limits", state) >= (int)sizeof limits)
        fail("the share can't be mounted, the path of the state directory is too long; choose a shorter one");
    cleanup_close int target = rootfs_own_folder(rootfs, &RUNAI_DIR[1]);
    refuse_shared(rootfs, target, RUNAI_DIR);
    int own = mount_tmpfs(BYTES, INODES, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    mount_attach(own, target, RUNAI_DIR);
    bind_file(own, "limits", limits, READ_ONLY | MOUNT_ATTR_NOEXEC);
    add_agent_page(own, state);
    add_account(own);
    cleanup_close int real = make_folder(own, "real");
    return own;
}

static int open_real(int own) {
    int real = openat(own, "real", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (real < 0)
        fail("%s/real can't be opened, %s; look at the kernel's log", RUNAI_DIR, why(errno));
    return real;
}

void own_add_real(int own, const char *soname, const char *source) {
    cleanup_close int real = open_real(own);
    bind_file(real, soname, source, READ_ONLY);
}

/* What tells a file from any other: as runai_runtime/compat.py writes it. */
static bool has_stamp(const struct stat *facts, const char *stamp) {
    char own[128];
    (void)snprintf(own, sizeof own, "%u:%u:%" PRIuMAX ":%" PRIdMAX ":%" PRIdMAX ".%ld", major(facts->st_dev),
                   minor(facts->st_dev), (uintmax_t)facts->st_ino, (intmax_t)facts->st_size,
                   (intmax_t)facts->st_mtim.tv_sec, facts->st_mtim.tv_nsec);
    return strcmp(own, stamp) == 0;
}

void own_add_image_real(const struct rootfs *rootfs, int own, const struct item *item) {
    cleanup_close int real = open_real(own);
    cleanup_close int found = rootfs_resolve(rootfs, item->source, O_PATH | O_NOFOLLOW);
    struct stat facts;
    if (found < 0 || fstat(found, &facts) < 0)
        fail("the image's own %s can't be opened, %s; start the container again", item->source, why(errno));
    if (!has_stamp(&facts, item->stamp))
        fail("the image's own %s can't be used, it is another file than a moment ago; start the container again",
             item->source);
    cleanup_close int mount = mount_clone_fd(found, item->source, READ_ONLY);
    put_file(real, item->name, item->source, mount);
}

void own_seal(int own) {
    mount_set(own, READ_ONLY, RUNAI_DIR);
}

bool own_holds(const struct rootfs *rootfs, int fd) {
    char path[PATH_MAX];
    if (!rootfs_path(rootfs, fd, path))
        return false;
    size_t length = strlen(RUNAI_DIR);
    return strncmp(path, RUNAI_DIR, length) == 0 && (!path[length] || path[length] == '/');
}
