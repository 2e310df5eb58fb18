/* Which mount a thing is on, and whether what is mounted there would appear elsewhere too. */
#ifndef RUNAI_PROPAGATION_H
#define RUNAI_PROPAGATION_H

#include "rootfs.h"

struct mount_facts {
    bool own_tmpfs; /* a tmpfs, from its root on */
    bool shared;
    char point[PATH_MAX]; /* in the container's terms where it is inside of the root */
};

/* The id of the mount that FD is on. */
int mount_id(int fd);

void mount_look_up(const struct rootfs *rootfs, int fd, struct mount_facts *facts);

/* True if a mount on FD would be passed on to other mount namespaces, the host's first of all. */
bool mount_is_shared(const struct rootfs *rootfs, int fd);

/* Ends the program if FD, which is TARGET in the container, is on a shared mount: a mount made there would appear on
 * the host, and stay when the container is gone. */
void refuse_shared(const struct rootfs *rootfs, int fd, const char *target);

#endif
