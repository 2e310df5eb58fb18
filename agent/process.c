#include "process.h"
#include "cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct process table[PROCESSES];
static size_t end; /* no entry from here on is taken */

/* Which entry a thread was last seen to belong to. */
#define HINTS 512
static struct {
    pid_t thread;
    uint16_t entry;
} hints[HINTS];

struct process *process_table(void) {
    return table;
}

size_t process_end(void) {
    return end;
}

bool process_lives(const struct process *process) {
    return syscall(SYS_pidfd_send_signal, process->handle, 0, NULL, 0) == 0;
}

/* Thread group and the pid in the innermost namespace, from /proc/THREAD/status. */
static bool look_up(pid_t thread, pid_t *pid, pid_t *inner) {
    char path[32], text[4096];
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)thread);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (length <= 0)
        return false;
    text[length] = '\0';
    const char *group = strstr(text, "\nTgid:\t"), *names = strstr(text, "\nNStgid:\t");
    if (!group || !names)
        return false;
    *pid = (pid_t)strtol(group + 7, NULL, 10);
    const char *end = strchr(names + 9, '\n');
    const char *last = end ? memrchr(names, '\t', (size_t)(end - names)) : NULL;
    *inner = last ? (pid_t)strtol(last + 1, NULL, 10) : *pid;
    return *pid > 0;
}

static int open_memory(pid_t pid) {
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/%d/mem", (int)pid);
    return open(path, O_RDWR | O_CLOEXEC);
}

void process_forget(struct process *process) {
    if (process->handle >= 0)
        (void)close(process->handle);
    if (process->memory >= 0)
        (void)close(process->memory);
    memset(process, 0, sizeof *process);
    while (end > 0 && !table[end - 1].pid)
        end--;
}

/* Those that hold nothing come back when they ask again. */
static struct process *free_place(void) {
    for (size_t i = 0; i < end; i++)
        if (!table[i].pid)
            return &table[i];
    if (end < PROCESSES)
        return &table[end++];
    for (size_t i = 0; i < end; i++)
        if (!table[i].clients) {
            process_forget(&table[i]);
            return free_place();
        }
    return NULL;
}

static struct process *enter(pid_t pid, pid_t inner) {
    struct process *place = free_place();
    if (!place)
        return NULL;
    *place = (struct process){.pid = pid, .inner = inner, .handle = -1, .memory = -1};
    place->handle = (int)syscall(SYS_pidfd_open, pid, 0);
    place->memory = open_memory(pid);
    /* It lives, so what was opened in between by its pid is its own. */
    if (place->handle < 0 || place->memory < 0 || !process_lives(place)) {
        process_forget(place);
        return NULL;
    }
    return place;
}

static struct process *find(pid_t pid) {
    for (size_t i = 0; i < end; i++) {
        if (table[i].pid != pid)
            continue;
        if (process_lives(&table[i]))
            return &table[i];
        if (!table[i].clients)
            process_forget(&table[i]);
    }
    return NULL;
}

struct process *process_of(pid_t thread) {
    unsigned at = (unsigned)thread % HINTS;
    struct process *known = &table[hints[at].entry];
    /* Should the pid be another process's by now: the address space and the descriptors that we ask are still the old
     * one's, and answer nothing. */
    if (hints[at].thread == thread && known->pid && syscall(SYS_tgkill, known->pid, thread, 0) == 0)
        return known;
    pid_t pid = 0, inner = 0;
    if (!look_up(thread, &pid, &inner))
        return NULL;
    struct process *found = find(pid);
    if (!found)
        found = enter(pid, inner);
    if (found) {
        hints[at].thread = thread;
        hints[at].entry = (uint16_t)(found - table);
    }
    return found;
}

/* After an exec the old address space is empty: nothing comes of it. */
static bool renew(struct process *process) {
    int memory = open_memory(process->pid);
    if (memory < 0 || !process_lives(process)) {
        if (memory >= 0)
            (void)close(memory);
        return false;
    }
    (void)close(process->memory);
    process->memory = memory;
    return true;
}

bool process_read(struct process *process, uint64_t address, void *buffer, size_t size) {
    if (address > INT64_MAX)
        return false;
    ssize_t got = pread(process->memory, buffer, size, (off_t)address);
    if (got == 0 && renew(process))
        got = pread(process->memory, buffer, size, (off_t)address);
    return got == (ssize_t)size;
}

bool process_write(struct process *process, uint64_t address, const void *buffer, size_t size) {
    return address <= INT64_MAX && pwrite(process->memory, buffer, size, (off_t)address) == (ssize_t)size;
}

int process_descriptor(const struct process *process, int fd) {
    return (int)syscall(SYS_pidfd_getfd, process->handle, fd, 0);
}
