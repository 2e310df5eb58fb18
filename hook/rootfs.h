/* The container's root file system before pivot_root. The image and the volumes in it are hostile: their symbolic links
 * may point anywhere, and others may change them meanwhile. So every path is looked up by the kernel inside of
 * the root, and what is then checked, made or mounted on is the descriptor that came back, never the path again. */
#ifndef RUNAI_ROOTFS_H
#define RUNAI_ROOTFS_H

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

struct rootfs {
    int fd;
    int mount;              /* id of the mount that the root is on */
    int journal;            /* STATE/ID/made */
    char path[PATH_MAX];    /* as the kernel names it; empty when it is / */
    char blocked[PATH_MAX]; /* after EROFS: the mount point of the read-only volume, in the container's terms */
};

void rootfs_open(struct rootfs *rootfs, const char *path, int state);

/* Looks PATH up as the container would. FLAGS are those of open. Returns a descriptor, or -1 with errno. */
int rootfs_resolve(const struct rootfs *rootfs, const char *path, int flags);

/* The folder at PATH, for reading; NULL with errno. */
DIR *rootfs_list(const struct rootfs *rootfs, const char *path);

/* True if the errno of a look-up says that there is nothing. Not ELOOP: it also stands for the links of /proc, which
 * lead somewhere once the container runs. */
bool rootfs_absent(int error);

/* Where the thing behind FD lies in the container, without symbolic links. False: not inside of the root. */
bool rootfs_path(const struct rootfs *rootfs, int fd, char path[PATH_MAX]);

/* Opens the regular file at PATH to mount on it. Where there is none, makes an empty one, its folders too. Returns a
 * descriptor, or -1 where a read-only volume is in the way (`blocked` names it); everything else ends the program. */
int rootfs_mount_point(struct rootfs *rootfs, const char *path);

/* Opens the folder at PATH, made where it is missing, the folders above it too. Otherwise as rootfs_mount_point. */
int rootfs_folder(struct rootfs *rootfs, const char *path);

/* Opens the folder NAME in the root, made where it is missing; no link is followed. */
int rootfs_own_folder(struct rootfs *rootfs, const char *name);

#endif
