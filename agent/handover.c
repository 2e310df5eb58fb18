#include "handover.h"
#include "cleanup.h"
#include "notification.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define DESCRIPTORS 16

/* The one listener among the descriptors of a message, which have one header; the others are closed. */
static int choose(struct msghdr *message) {
    const struct cmsghdr *part = CMSG_FIRSTHDR(message);
    int listener = -1;
    if (!part || part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
        return -1;
    size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
        int fd = -1;
        memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
        if (listener < 0 && notification_accept(fd))
            listener = fd;
        else
            (void)close(fd);
    }
    return listener;
}

int handover_listener(int socket) {
    static char state[65536]; /* of the container: JSON, which tells nothing that isn't known */
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
    } parts;
    cleanup_close int peer = accept4(socket, NULL, NULL, SOCK_CLOEXEC);
    struct timeval patience = {.tv_sec = 2};
    if (peer < 0 || setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0)
        return -1;
    struct iovec text = {state, sizeof state};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = &parts, .msg_controllen = sizeof parts};
    return recvmsg(peer, &message, MSG_CMSG_CLOEXEC) > 0 ? choose(&message) : -1;
}
