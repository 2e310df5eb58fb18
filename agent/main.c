/* runai-agent STATE/ID: bounds one container. Descriptor 3 is the socket on which the runtime hands over the container's
 * calls, 4 the control socket; both were made by the shim, so nobody waits for this process to start. It ends with the
 * last task that it answers (docs/architecture.md, "The agent"). */
#include "config.h"
#include "control.h"
#include "driver.h"
#include "escape.h"
#include "handover.h"
#include "holdings.h"
#include "journal.h"
#include "managed.h"
#include "notification.h"
#include "process.h"
#include "privilege.h"
#include "reconcile.h"
#include "share.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SOCKET = 3, CONTROL = 4, FIRST_OTHER = 5 };

/* What an event is about: in the upper half of its data, with the descriptor in the lower. */
enum about { HANDOVER, REQUEST_OF_ROOT, CREATOR, CALL_WAITING };

static struct config config;
static int events = -1;
static unsigned listeners;
static bool creator_lives = true;
static int64_t last_look, next_look; /* ms */

static bool watch(int fd, enum about about) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)about << 32 | (uint32_t)fd};
    return epoll_ctl(events, EPOLL_CTL_ADD, fd, &event) == 0;
}

static void take_listener(void) {
    int listener = handover_listener(SOCKET);
    if (listener < 0)
        return;
    if (watch(listener, CALL_WAITING))
        listeners++;
    else
        (void)close(listener);
}

static void serve(int listener, uint32_t happened) {
    const struct seccomp_notif *notice = happened & EPOLLIN ? notification_receive(listener) : NULL;
    if (notice) {
        if (escape_answer(&config, listener, notice) && next_look > last_look + RECONCILE_SOON_MS)
            next_look = last_look + RECONCILE_SOON_MS;
    } else if (happened & (EPOLLHUP | EPOLLERR)) {
        (void)close(listener);
        listeners--;
    }
}

static void handle(const struct epoll_event *event) {
    int fd = (int)(uint32_t)event->data.u64;
    switch ((enum about)(event->data.u64 >> 32)) {
    case HANDOVER: take_listener(); return;
    case REQUEST_OF_ROOT: control_serve(&config, CONTROL); return;
    case CREATOR:
        creator_lives = false;
        (void)close(fd);
        return;
    case CALL_WAITING: serve(fd, event->events); return;
    }
}

/* Whether somebody holds device memory, or may have taken some without us. */
static bool any_to_look_at(void) {
    const struct process *table = process_table();
    for (size_t i = 0; i < PROCESSES; i++)
        if (table[i].pid && (table[i].clients || table[i].continued))
            return true;
    return false;
}

static int64_t now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether somebody is still to be bounded, or on the way: the runtime may have ended since it connected. */
static bool is_needed(void) {
    struct epoll_event happened;
    while (listeners == 0 && !creator_lives) {
        if (epoll_wait(events, &happened, 1, 0) != 1 || (happened.data.u64 >> 32) != HANDOVER)
            return false;
        handle(&happened);
    }
    return true;
}

static void run(void) {
    while (is_needed()) {
        struct epoll_event happened[16];
        int64_t now = now_ms();
        bool busy = any_to_look_at();
        if (busy && now >= next_look) {
            reconcile(&config);
            last_look = now;
            next_look = now + RECONCILE_MS;
        }
        int count = epoll_wait(events, happened, 16, busy ? (int)(next_look - now) : -1);
        if (count < 0 && errno != EINTR)
            return;
        for (int i = 0; i < count; i++)
            handle(&happened[i]);
    }
}

/* The creator, if it is still the one that started us. */
static int open_creator(void) {
    int creator = (int)syscall(SYS_pidfd_open, config.creator, 0);
    if (creator >= 0 && getppid() != config.creator) {
        (void)close(creator);
        return -1;
    }
    return creator;
}

int main(int argc, char **argv) {
    (void)signal(SIGPIPE, SIG_IGN);
    (void)syscall(SYS_close_range, FIRST_OTHER, ~0u, 0);
    struct rlimit files = {65536, 65536};
    (void)setrlimit(RLIMIT_NOFILE, &files); /* copies of callers' files; fewer where that isn't allowed */
    int folder = argc == 2 ? open(argv[1], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (folder < 0)
        return 1;
    journal_open(folder);
    managed_set_folder(folder);
    if (!config_read(folder, &config) || !driver_find_nodes(&config) || !share_open(folder, &config) ||
        !privilege_drop()) {
        journal("the agent can't start: its configuration or a device file isn't as it should be");
        return 1;
    }
    int creator = open_creator();
    creator_lives = creator >= 0;
    events = epoll_create1(EPOLL_CLOEXEC);
    if (events < 0 || !watch(SOCKET, HANDOVER) || !watch(CONTROL, REQUEST_OF_ROOT) ||
        (creator_lives && !watch(creator, CREATOR))) {
        journal("the agent can't start: there is no memory for it");
        return 1;
    }
    run();
    return 0;
}
