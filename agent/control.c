#include "control.h"
#include "cleanup.h"
#include "io.h"
#include "journal.h"
#include "share.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static bool is_root(int peer) {
    struct ucred who;
    socklen_t size = sizeof who;
    return getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.uid == 0;
}

static int reply(const struct config *config, const char *request, char *text, size_t size) {
    unsigned gpu = 0;
    uint64_t bytes = 0;
    char end = '\0';
    if (sscanf(request, "share %u %" SCNu64 "%c", &gpu, &bytes, &end) != 3 || end != '\n' || gpu >= config->gpus)
        return snprintf(text, size, "error this agent doesn't know that request\n");
    share_set_limit(gpu, bytes);
    share_publish(false);
    journal("the share on GPU %u is %" PRIu64 " bytes now", gpu, bytes);
    return snprintf(text, size, "ok %" PRIu64 "\n", share_shown(gpu));
}

void control_serve(const struct config *config, int socket) {
    cleanup_close int peer = accept4(socket, NULL, NULL, SOCK_CLOEXEC);
    struct timeval patience = {.tv_sec = 1};
    if (peer < 0 || !is_root(peer) || setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0)
        return;
    char request[128], text[128];
    ssize_t length = recv(peer, request, sizeof request - 1, 0);
    if (length <= 0)
        return;
    request[length] = '\0';
    int more = reply(config, request, text, sizeof text);
    (void)send(peer, text, (size_t)more, MSG_NOSIGNAL);
}
