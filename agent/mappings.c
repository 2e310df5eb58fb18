/* A round over the processes of the table, then some of the container's others. /proc/PID/maps is the kernel's, but how much
 * there is to read is the container's choice. */
#include "mappings.h"
#include "cleanup.h"
#include "clock.h"
#include "journal.h"
#include "maps.h"
#include "members.h"
#include "process.h"
#include "watchdog.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What is read in one call, so that a container with millions of mappings can't keep its agent from answering: some
 * 40,000 lines, in 10 to 40 ms. A PyTorch process has some thousands. */
#define TEXT_BYTES ((size_t)4 << 20)

/* Of those that never asked the driver for anything, most never will: one is looked at when it is new, when its address
 * space has grown by so many pages (2 MiB, the least that the driver takes), and else at this pace. */
#define GROWN 512
#define AGAIN_MS 8000

/* What else one costs, as text: each, and one that has managed memory. */
#define MEMBER_BYTES 2048
#define FOUND_BYTES 65536

static struct {
    size_t at; /* in the table */
    struct look look;
} known = {.look.maps = -1};

/* ---- those that have asked the driver for something ----------------------------------------------------------- */

/* Whether that is done with PROCESS. */
static bool look_at(struct process *process, size_t *left) {
    struct look *look = &known.look;
    if (look->maps >= 0 && look->process.pid != process->pid)
        maps_end(look); /* of one that has ended */
    if (!process->pid || !process_lives(process)) {
        maps_end(look);
        process->mapped = 0;
        return true;
    }
    if (look->maps < 0 && !maps_begin(look, process))
        return true; /* it keeps the figure that it had */
    if (!maps_read(look, left))
        return false;
    process->mapped = look->bytes;
    maps_end(look);
    return true;
}

static bool look_at_known(size_t *left) {
    for (; known.at < process_end(); known.at++)
        if (!look_at(&process_table()[known.at], left))
            return false;
    maps_end(&known.look);
    known.at = 0;
    return true;
}

/* ---- those that haven't --------------------------------------------------------------------------------------- */

/* What is remembered of a process that has no managed memory. */
#define SEEN 4096
static struct {
    pid_t pid;
    uint64_t pages; /* of address space */
    int64_t when;   /* ms */
} seen[SEEN];

static struct {
    size_t at, count;
    pid_t list[MEMBERS_MOST];
    struct look look;
} unknown = {.look.maps = -1};

static uint64_t address_space(pid_t pid) {
    char path[32], text[32];
    (void)snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    cleanup_close int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    text[length > 0 ? length : 0] = '\0';
    return strtoull(text, NULL, 10);
}

/* Whether PID is new, has grown or hasn't been looked at for long; if so that is done now. */
static bool is_due(pid_t pid) {
    size_t at = (size_t)pid % SEEN;
    uint64_t pages = address_space(pid);
    int64_t now = now_ms();
    if (seen[at].pid == pid && pages < seen[at].pages + GROWN && now < seen[at].when + AGAIN_MS)
        return false;
    seen[at].pid = pid;
    seen[at].pages = pages;
    seen[at].when = now;
    return true;
}

static bool is_known(pid_t pid) {
    const struct process *table = process_table();
    for (size_t i = 0; i < process_end(); i++)
        if (table[i].pid == pid && process_lives(&table[i]))
            return true;
    return false;
}

static bool share(pid_t one, pid_t other) {
    return syscall(SYS_kcmp, one, other, KCMP_VM, 0, 0) == 0;
}

/* Whether THREAD has the address space of a process in the table: between clone(CLONE_VM) and exec any child has, and for
 * good where it likes. One whose first thread has ended is told by another, as long as that is still its own. */
static bool is_counted(pid_t thread) {
    const struct process *table = process_table();
    for (size_t i = 0; i < process_end(); i++)
        if (table[i].pid && process_lives(&table[i]) &&
            (share(table[i].pid, thread) || (table[i].thread != thread && share(table[i].thread, thread))))
            return true;
    return false;
}

/* A kernel that can't compare address spaces would have us count them twice. */
static bool can_compare(void) {
    return share(getpid(), getpid());
}

/* PROCESS, which was looked at, has managed memory and never asked the driver for anything. */
static void enter(const struct look *look) {
    const struct process *process = &look->process;
    seen[(size_t)process->pid % SEEN].pid = 0; /* it stays due */
    watchdog_enter(process); /* in the middle of an exec nobody may compare it */
    bool counted = is_counted(process->thread);
    watchdog_leave();
    cleanup_close int certain = counted ? -1 : members_open(process->pid);
    if (certain < 0)
        return;
    struct process *entry = process_of(process->thread);
    if (entry && entry->pid == process->pid) {
        entry->mapped = look->bytes;
    } else if (process_end() == PROCESSES) {
        (void)pidfd_kill(certain);
        journal("process %d was ended: it had managed memory, and %d processes that use the GPU were there already",
                (int)process->pid, PROCESSES);
    }
}

static void spend(size_t *left, size_t bytes) {
    *left -= bytes < *left ? bytes : *left;
}

/* Whether that is done with the process. */
static bool look_at_unknown(pid_t pid, size_t *left) {
    struct look *look = &unknown.look;
    if (look->maps < 0) {
        spend(left, MEMBER_BYTES);
        if (is_known(pid) || !is_due(pid))
            return true;
        struct process process = {.pid = pid, .handle = (int)syscall(SYS_pidfd_open, pid, 0)};
        if (process.handle < 0 || !maps_begin(look, &process)) {
            if (process.handle >= 0)
                (void)close(process.handle);
            return true;
        }
    }
    if (!maps_read(look, left))
        return false;
    if (look->bytes) {
        spend(left, FOUND_BYTES);
        enter(look);
    }
    maps_end(look);
    (void)close(look->process.handle);
    return true;
}

/* A part of them: where they are many, all of them take several rounds. */
static void look_at_members(void) {
    size_t left = TEXT_BYTES;
    if (unknown.at == unknown.count) {
        unknown.at = 0;
        unknown.count = can_compare() ? members_list(unknown.list) : 0;
    }
    while (left > 0 && unknown.at < unknown.count && look_at_unknown(unknown.list[unknown.at], &left))
        unknown.at++;
}

bool mappings_look(void) {
    size_t left = TEXT_BYTES;
    if (!look_at_known(&left))
        return false;
    look_at_members();
    return true;
}
