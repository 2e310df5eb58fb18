#include "loader.h"

#include "cache.h"
#include "cleanup.h"
#include "entries.h"
#include "fail.h"
#include "lists.h"
#include "propagation.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* LEGACY_FOLDERS: the subfolders that glibc before 2.37 tries in each folder (ld.so --help shows them). */
#if defined(__aarch64__)
#define TRIPLET "aarch64-linux-gnu"
#define LEGACY_FOLDERS "tls", "atomics", "aarch64"
#else
#define TRIPLET "x86_64-linux-gnu"
#define LEGACY_FOLDERS "tls", "haswell", "xeon_phi", "avx512_1", "x86_64"
#endif

/* The folders that the loaders of the distributions have built in; in this order the C library is looked for. */
static const char *const HOMES[] = {
    "/lib/" TRIPLET, "/usr/lib/" TRIPLET, "/lib64", "/usr/lib64", "/lib", "/usr/lib",
};

/* musl, or no C library at all. */
static const char OTHER_HOME[] = "/usr/lib";

/* Where images put a driver of their own and name it in ld.so.conf or LD_LIBRARY_PATH. */
static const char *const USUAL[] = {
    "/usr/local/lib",          "/usr/local/lib64",           "/usr/local/lib/" TRIPLET, "/usr/local/nvidia/lib",
    "/usr/local/nvidia/lib64", "/usr/local/cuda/compat",     "/usr/local/cuda/lib64",   "/usr/lib/wsl/lib",
    "/usr/lib/nvidia",         "/usr/lib/" TRIPLET "/nvidia",
};

/* They can be nested, in any order. */
static const char *const LEGACY[] = {LEGACY_FOLDERS};
#define LEGACY_DEPTH 4

#define CACHED 4096 /* names of our libraries in one cache; a real one has a handful */

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool is_library(const struct rootfs *rootfs, const char *folder, const char *name) {
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return false;
    cleanup_close int fd = rootfs_resolve(rootfs, path, O_PATH);
    struct stat facts;
    return fd >= 0 && fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode) && facts.st_size > 0;
}

static void find_home(struct rootfs *rootfs, char home[PATH_MAX]) {
    const char *found = OTHER_HOME;
    for (size_t i = COUNT(HOMES); i-- > 0;)
        if (is_library(rootfs, HOMES[i], "libc.so.6"))
            found = HOMES[i];
    cleanup_close int fd = rootfs_folder(rootfs, found);
    if (fd < 0 || !rootfs_path(rootfs, fd, home))
        strcpy(home, found);
}

/* The same folder under two mounts is two folders: what covers a file in one doesn't in the other. */
static bool have_folder(const struct loader *loader, const struct stat *facts, int mount) {
    for (size_t i = 0; i < loader->folder_count; i++) {
        const struct folder *folder = &loader->folders[i];
        if (folder->inode == facts->st_ino && folder->device == facts->st_dev && folder->mount == mount)
            return true;
    }
    return false;
}

/* Takes a folder in, if it is there and new. */
static bool add_one(struct loader *loader, const char *path) {
    cleanup_close int fd = rootfs_resolve(loader->rootfs, path, O_PATH | O_DIRECTORY);
    struct stat facts;
    if (fd < 0 && rootfs_absent(errno))
        return false;
    if (fd < 0 || fstat(fd, &facts) < 0)
        fail("the folder %s can't be checked for driver libraries, %s; look at the image and its volumes", path,
             why(errno));
    int mount = mount_id(fd);
    if (have_folder(loader, &facts, mount))
        return false;
    if (loader->folder_count == FOLDERS)
        fail("the image can't be checked for driver libraries, its loader is told of more than %d folders; "
             "look at its /etc/ld.so.cache", FOLDERS);
    struct folder *folder = &loader->folders[loader->folder_count++];
    *folder = (struct folder){strdup(path), facts.st_dev, facts.st_ino, mount};
    if (!folder->path)
        fail("the image can't be checked for driver libraries, %s; give the host more memory", why(ENOMEM));
    return true;
}

static void add_legacy(struct loader *loader, const char *path, int depth) {
    for (size_t i = 0; depth > 0 && i < COUNT(LEGACY); i++) {
        char below[PATH_MAX];
        if (snprintf(below, sizeof below, "%s/%s", path, LEGACY[i]) < (int)sizeof below && add_one(loader, below))
            add_legacy(loader, below, depth - 1);
    }
}

/* The variants for newer processors (glibc 2.33 and later): which one is taken hangs on the machine, so all of them. */
static void add_variants(struct loader *loader, const char *path) {
    char variants[PATH_MAX];
    char below[PATH_MAX];
    if (snprintf(variants, sizeof variants, "%s/glibc-hwcaps", path) >= (int)sizeof variants)
        return;
    cleanup_closedir DIR *folder = rootfs_list(loader->rootfs, variants);
    if (!folder && !rootfs_absent(errno))
        fail("the folder %s can't be listed, %s; look at the image and its volumes", variants, why(errno));
    for (struct dirent *entry = NULL; folder && (entry = readdir(folder)) != NULL;)
        if (entry->d_name[0] != '.' &&
            snprintf(below, sizeof below, "%s/%s", variants, entry->d_name) < (int)sizeof below)
            (void)add_one(loader, below);
}

static void add_folder(void *context, const char *path) {
    struct loader *loader = context;
    if (!add_one(loader, path))
        return;
    add_variants(loader, path);
    add_legacy(loader, path, LEGACY_DEPTH);
}

/* How much of a SONAME every name of that library begins with: libcuda.so of libcuda.so.1. */
static size_t stem(const char *soname) {
    const char *end = strstr(soname, ".so");
    return end ? (size_t)(end - soname) + strlen(".so") : strlen(soname);
}

static struct ours *find_ours(struct loader *loader, const char *name) {
    for (size_t i = 0; i < loader->ours_count; i++) {
        struct ours *ours = &loader->ours[i];
        if (strncmp(name, ours->soname, stem(ours->soname)) == 0)
            return ours;
    }
    return NULL;
}

static bool is_wanted(void *context, const char *name) {
    return find_ours(context, name) != NULL;
}

/* The folder of PATH, if its file goes by a name of our libraries. */
static bool add_folder_of(struct loader *loader, char *path) {
    char *slash = strrchr(path, '/');
    if (!find_ours(loader, slash + 1))
        return false;
    *slash = '\0';
    add_folder(loader, *path ? path : "/");
    *slash = '/';
    return true;
}

/* One path of the cache: where one of our libraries' names is, there is a folder of the loader's. */
static void add_cached(void *context, char *path) {
    struct loader *loader = context;
    if (add_folder_of(loader, path) && ++loader->cached > CACHED)
        fail("the image can't be checked for driver libraries, its /etc/ld.so.cache names more than %d; run ldconfig in "
             "the image", CACHED);
}

/* ldconfig writes no entry that leads to another name or hangs on where a program is. The folders of what it writes
 * are found by add_cached. */
static void check_cached(void *context, const char *name, const char *path) {
    const char *slash = strrchr(path, '/');
    if (find_ours(context, name) && (path[0] != '/' || !find_ours(context, slash + 1)))
        fail("the image's /etc/ld.so.cache can't be followed, it has %s for %s; run ldconfig in the image", path, name);
}

/* Newer drivers that CUDA images bring along lie in /usr/local/cuda-VERSION/compat or a subfolder of it, and some put
 * them into the loader's way only when they start. */
static void add_compat(struct loader *loader) {
    static const char LOCAL[] = "/usr/local";
    cleanup_closedir DIR *local = rootfs_list(loader->rootfs, LOCAL);
    char compat[PATH_MAX];
    char below[PATH_MAX];
    for (struct dirent *entry = NULL; local && (entry = readdir(local)) != NULL;) {
        if (strncmp(entry->d_name, "cuda", 4) != 0)
            continue;
        if (snprintf(compat, sizeof compat, "%s/%s/compat", LOCAL, entry->d_name) >= (int)sizeof compat)
            continue;
        add_folder(loader, compat);
        cleanup_closedir DIR *folder = rootfs_list(loader->rootfs, compat);
        for (struct dirent *inner = NULL; folder && (inner = readdir(folder)) != NULL;)
            if (inner->d_name[0] != '.' && !strstr(inner->d_name, ".so") &&
                snprintf(below, sizeof below, "%s/%s", compat, inner->d_name) < (int)sizeof below)
                add_folder(loader, below);
    }
}

static noreturn void refuse_relative(const char *file, const char *path) {
    fail("the image can't be checked for driver libraries, its %s has %s, which hangs on where a program is; write an "
         "absolute path", file, path);
}

/* ldconfig takes no relative path, and musl takes any. */
static void add_told(void *context, const char *file, char *path) {
    if (path[0] == '/')
        add_folder(context, path);
    else if (strstr(file, "musl"))
        refuse_relative(file, path);
}

/* A library that is loaded before all others: where it is a driver's, under its own name or behind a link, it is covered
 * as one in a folder of the loader's. */
static void add_preloaded(struct loader *loader, char *path) {
    char real[PATH_MAX];
    cleanup_close int fd = rootfs_resolve(loader->rootfs, path, O_PATH);
    if (fd < 0 && !rootfs_absent(errno))
        fail("the preloaded library %s can't be looked at, %s; look at LD_PRELOAD and /etc/ld.so.preload", path,
             why(errno));
    (void)add_folder_of(loader, path);
    if (fd >= 0 && rootfs_path(loader->rootfs, fd, real))
        (void)add_folder_of(loader, real);
}

/* In ld.so.preload there may be $LIB and its like as well. */
static void add_listed(void *context, const char *file, char *path) {
    const char *slash = strrchr(path, '/');
    if (path[0] == '/')
        add_preloaded(context, path);
    if (slash && (path[0] != '/' || strchr(path, '$')) && find_ours(context, slash + 1))
        refuse_relative(file, path);
}

/* What the container's environment names. */
static void add_planned(struct loader *loader, const struct item *item) {
    char path[PATH_MAX];
    if (item->kind == KIND_SEARCH)
        add_folder(loader, item->name);
    if (item->kind == KIND_PRELOAD && snprintf(path, sizeof path, "%s", item->name) < (int)sizeof path)
        add_preloaded(loader, path);
}

void loader_open(struct loader *loader, struct rootfs *rootfs, const struct plan *plan) {
    *loader = (struct loader){.rootfs = rootfs};
    find_home(rootfs, loader->home);
    for (size_t i = 0; i < plan->count; i++) {
        const struct item *item = &plan->items[i];
        if (item->kind != KIND_OURS)
            continue;
        if (loader->ours_count == OURS)
            fail("the plan has too many libraries, at most %d can be covered; report this to runai-runtime", OURS);
        loader->ours[loader->ours_count++] = (struct ours){.soname = item->name, .source = item->source};
    }
    for (size_t i = 0; i < COUNT(HOMES); i++)
        add_folder(loader, HOMES[i]);
    for (size_t i = 0; i < COUNT(USUAL); i++)
        add_folder(loader, USUAL[i]);
    add_compat(loader);
    for (size_t i = 0; i < plan->count; i++)
        add_planned(loader, &plan->items[i]);
    lists_each_folder(rootfs, add_told, loader);
    lists_each_preload(rootfs, add_listed, loader);
    cache_each_path(rootfs, is_wanted, add_cached, loader);
    entries_each(rootfs, check_cached, loader);
}

bool loader_offers(const struct loader *loader, const char *name) {
    for (size_t i = 0; i < loader->folder_count; i++)
        if (is_library(loader->rootfs, loader->folders[i].path, name))
            return true;
    return false;
}

/* What a name leads to. From a link to nowhere nothing can be loaded; any other trouble might hide a library. */
static void see_one(const struct loader *loader, struct ours *ours, const char *path, see_entry *see) {
    cleanup_close int fd = rootfs_resolve(loader->rootfs, path, O_PATH);
    if (fd < 0 && rootfs_absent(errno))
        return;
    struct stat facts;
    if (fd < 0 || fstat(fd, &facts) < 0)
        fail("the library %s can't be looked at, %s; look at the image and its volumes", path, why(errno));
    see(loader, ours, path, fd, &facts);
}

static void each_in(struct loader *loader, const char *path, see_entry *see) {
    cleanup_closedir DIR *folder = rootfs_list(loader->rootfs, path);
    if (!folder)
        fail("the folder %s can't be listed, %s; look at the image and its volumes", path, why(errno));
    errno = 0;
    for (struct dirent *entry = NULL; (entry = readdir(folder)) != NULL; errno = 0) {
        struct ours *ours = find_ours(loader, entry->d_name);
        char name[PATH_MAX];
        if (!ours)
            continue;
        if (snprintf(name, sizeof name, "%s/%s", path, entry->d_name) >= (int)sizeof name)
            fail("a library in %s can't be looked at, %s; look at the image", path, why(ENAMETOOLONG));
        see_one(loader, ours, name, see);
    }
    if (errno)
        fail("the folder %s can't be listed, %s; look at the image and its volumes", path, why(errno));
}

void loader_each(struct loader *loader, see_entry *see) {
    for (size_t i = 0; i < loader->folder_count; i++)
        each_in(loader, loader->folders[i].path, see);
}
