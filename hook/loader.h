/* Where the container's loader looks for libraries, and what it could take for one of ours there. */
#ifndef RUNAI_LOADER_H
#define RUNAI_LOADER_H

#include "plan.h"
#include "rootfs.h"

#include <sys/stat.h>

struct ours {
    const char *soname;
    const char *source;
    dev_t device; /* of the source, known once it has been opened */
    ino_t inode;
    bool offered; /* found by the verification */
};

#define OURS 8
#define FOLDERS 4096

struct loader {
    struct rootfs *rootfs;
    char home[PATH_MAX]; /* the default library folder of the image's own loader, links resolved where it exists */
    size_t ours_count;
    struct ours ours[OURS];
    size_t cached; /* names of our libraries that the image's cache had */
    size_t folder_count;
    struct folder {
        char *path;
        dev_t device;
        ino_t inode;
        int mount;
    } folders[FOLDERS];
};

/* Finds the library folder, our libraries in the plan, and every folder that the loader can reach. */
void loader_open(struct loader *loader, struct rootfs *rootfs, const struct plan *plan);

/* True if one of the folders has a file NAME with something in it. */
bool loader_offers(const struct loader *loader, const char *name);

/* An entry of one of the folders that goes by a name of OURS: what PATH leads to is open as FD. */
typedef void see_entry(const struct loader *loader, struct ours *ours, const char *path, int fd,
                       const struct stat *facts);

/* Calls SEE for each of them. Links to nowhere are left out: there is nothing to load. */
void loader_each(struct loader *loader, see_entry *see);

#endif
