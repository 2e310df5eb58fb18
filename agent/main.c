/* runai-agent STATE/ID [detached]: bounds one container. Descriptor 3 is the socket on which the runtime hands over the
 * container's calls, 4 the control socket; both were made by the shim, so nobody waits for this process to start. It ends
 * with the last task that it answers (docs/architecture.md, "The agent"). */
#include "clock.h"
#include "config.h"
#include "container.h"
#include "control.h"
#include "driver.h"
#include "escape.h"
#include "handover.h"
#include "holdings.h"
#include "journal.h"
#include "managed.h"
#include "maps.h"
#include "notification.h"
#include "process.h"
#include "privilege.h"
#include "reconcile.h"
#include "share.h"
#include "watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SOCKET = 3, CONTROL = 4, FIRST_OTHER = 5 };

/* Each docker exec that runs has a listener of its own. */
#define LISTENERS 1024

/* What is waited for: the two sockets, the creator, then connections of runtimes and listeners. With poll, not epoll: a
 * call then wakes us on its own processor and at once (SYNC_WAKE_UP), which epoll doesn't hand on. */
enum { HANDOVER, REQUEST_OF_ROOT, CREATOR, FIRST_OF_MANY };
static struct pollfd watched[FIRST_OF_MANY + LISTENERS];
static bool is_connection[FIRST_OF_MANY + LISTENERS]; /* of a runtime, that has a listener to hand over */
static nfds_t count = FIRST_OF_MANY;

static struct config config;
static int64_t last_look, next_look, next_search; /* ms */

/* Others may hold managed memory when nobody is left that asked the driver for anything: soon after that, then at leisure. */
#define SEARCH_SOON_MS 1500
#define SEARCH_MS 10000

static void watch(int fd, bool connection) {
    if (fd < 0)
        return;
    if (count == FIRST_OF_MANY + LISTENERS) {
        (void)close(fd); /* what would have run there can't ask for memory */
        return;
    }
    is_connection[count] = connection;
    watched[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static void forget(nfds_t at) {
    (void)close(watched[at].fd);
    watched[at] = watched[--count];
    is_connection[at] = is_connection[count];
}

static bool serve_connection(nfds_t at) {
    int listener = -1;
    bool open = handover_receive(watched[at].fd, &listener);
    if (listener >= 0)
        container_find(); /* its first process is waiting for that to be done */
    watch(listener, false);
    return open;
}

static bool serve_listener(nfds_t at) {
    const struct pollfd *one = &watched[at];
    const struct seccomp_notif *notice = one->revents & POLLIN ? notification_receive(one->fd) : NULL;
    if (!notice)
        return !(one->revents & (POLLHUP | POLLERR | POLLNVAL));
    if (escape_answer(&config, one->fd, notice) && next_look > last_look + RECONCILE_SOON_MS)
        next_look = last_look + RECONCILE_SOON_MS;
    return true;
}

static void serve_all(void) {
    for (nfds_t at = FIRST_OF_MANY; at < count;) {
        if (watched[at].revents && !(is_connection[at] ? serve_connection(at) : serve_listener(at)))
            forget(at); /* another has its place now */
        else
            at++;
    }
    if (watched[HANDOVER].revents)
        watch(handover_accept(SOCKET), true);
    if (watched[REQUEST_OF_ROOT].revents)
        control_serve(&config, CONTROL);
    if (watched[CREATOR].revents) {
        (void)close(watched[CREATOR].fd);
        watched[CREATOR].fd = -1;
    }
}

/* Whether somebody holds device memory, or may have taken some without us. */
static bool any_to_look_at(void) {
    const struct process *table = process_table();
    for (size_t i = 0; i < process_end(); i++)
        if (table[i].pid && (table[i].clients || table[i].continued || table[i].mapped))
            return true;
    return false;
}

/* Whether somebody is still to be bounded, or on the way: the runtime may have ended since it connected. */
static bool is_needed(void) {
    return count > FIRST_OF_MANY || watched[CREATOR].fd >= 0 || poll(&watched[HANDOVER], 1, 0) == 1;
}

static void run(void) {
    while (is_needed()) {
        int64_t now = now_ms();
        bool busy = any_to_look_at();
        if (busy && now >= next_look) {
            reconcile(&config);
            last_look = now;
            next_look = now + RECONCILE_MS;
            next_search = now + SEARCH_SOON_MS;
        } else if (!busy && next_search && now >= next_search) {
            managed_check_mappings(config.gpus);
            next_search = now + SEARCH_MS;
            continue;
        }
        int ready = poll(watched, count, busy ? (int)(next_look - now) : next_search ? (int)(next_search - now) : -1);
        if (ready < 0 && errno != EINTR)
            return;
        if (ready > 0)
            serve_all();
    }
}

/* Goes on as a child of nobody who waits for it: the creator becomes the low-level runtime, and crun run ends with its
 * last child, while we end after the creator. */
static bool detach(void) {
    pid_t child = fork();
    if (child > 0)
        _exit(0);
    return child == 0;
}

int main(int argc, char **argv) {
    (void)signal(SIGPIPE, SIG_IGN);
    (void)syscall(SYS_close_range, FIRST_OTHER, ~0u, 0);
    struct rlimit files = {65536, 65536};
    (void)setrlimit(RLIMIT_NOFILE, &files); /* copies of callers' files; fewer where that isn't allowed */
    pid_t parent = getppid();
    int creator = (int)syscall(SYS_pidfd_open, parent, 0);
    if (argc < 2 || argc > 3 || (argc == 3 && !detach()))
        return 1;
    int folder = open(argv[1], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return 1;
    journal_open(folder);
    container_set_folder(folder);
    if (!config_read(folder, &config) || !driver_find_nodes(&config) || !share_open(folder, &config) ||
        !privilege_drop() || !watchdog_start()) {
        journal("the agent can't start: its configuration or a device file isn't as it should be");
        return 1;
    }
    maps_find_node(&config);
    watched[HANDOVER] = (struct pollfd){.fd = SOCKET, .events = POLLIN};
    watched[REQUEST_OF_ROOT] = (struct pollfd){.fd = CONTROL, .events = POLLIN};
    watched[CREATOR] = (struct pollfd){.fd = parent == config.creator ? creator : -1, .events = POLLIN};
    run();
    return 0;
}
