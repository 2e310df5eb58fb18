#include "handover.h"
#include "notification.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
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

int handover_accept(int socket) {
    return accept4(socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

bool handover_receive(int connection, int *listener) {
    static char state[65536]; /* of the container: JSON */
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
    } parts;
    struct iovec text = {state, sizeof state};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = &parts, .msg_controllen = sizeof parts};
    ssize_t length = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    *listener = length > 0 ? choose(&message) : -1;
    return length > 0 || (length < 0 && (errno == EAGAIN || errno == EINTR));
}
