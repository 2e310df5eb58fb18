#include "process.h"
#include "cleanup.h"
#include "watchdog.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static struct process table[PROCESSES];
static size_t table_end; /* no entry from here on is taken */

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
    return table_end;
}

bool pidfd_lives(int handle) {
    struct pollfd ended = {.fd = handle, .events = POLLIN};
    return poll(&ended, 1, 0) == 0;
}

bool pidfd_kill(int handle) {
    return syscall(SYS_pidfd_send_signal, handle, SIGKILL, NULL, 0) == 0;
}

bool process_lives(const struct process *process) {
    return pidfd_lives(process->handle);
}

bool process_has_pid(const struct process *process) {
    return syscall(SYS_pidfd_send_signal, process->handle, 0, NULL, 0) == 0 || kill(process->pid, 0) < 0;
}

bool process_ids(pid_t thread, pid_t *pid, pid_t *inner) {
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
    const char *line_end = strchr(names + 9, '\n');
    const char *last = line_end ? memrchr(names, '\t', (size_t)(line_end - names)) : NULL;
    *inner = last ? (pid_t)strtol(last + 1, NULL, 10) : *pid;
    return *pid > 0;
}

static int open_memory(const struct process *process) {
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/%d/mem", (int)process->thread);
    watchdog_enter(process);
    int memory = open(path, O_RDWR | O_CLOEXEC);
    watchdog_leave();
    return memory;
}

static void forget(struct process *process) {
    if (process->handle >= 0)
        (void)close(process->handle);
    if (process->memory >= 0)
        (void)close(process->memory);
    memset(process, 0, sizeof *process);
    while (table_end > 0 && !table[table_end - 1].pid)
        table_end--;
}

static bool holds_nothing(const struct process *process) {
    for (unsigned gpu = 0; gpu < ACCOUNT_GPUS; gpu++)
        if (process->figure[gpu] || process->bytes[gpu])
            return false;
    return !process->clients && ((!process->continued && !process->mapped) || process->ended);
}

void process_note_ended(void) {
    for (size_t i = 0; i < table_end; i++)
        table[i].ended = table[i].pid && !process_lives(&table[i]);
}

void process_reap(void) {
    for (size_t i = 0; i < table_end; i++)
        if (table[i].ended && holds_nothing(&table[i]))
            forget(&table[i]);
}

/* A place for one more. Those that hold nothing come back when they ask again; one that may have taken memory itself
 * stays, or its memory would be forgotten with it. */
static struct process *free_place(void) {
    for (size_t i = 0; i < table_end; i++)
        if (!table[i].pid)
            return &table[i];
    if (table_end < PROCESSES)
        return &table[table_end++];
    for (size_t i = 0; i < table_end; i++)
        if (holds_nothing(&table[i])) {
            forget(&table[i]);
            table_end = i < table_end ? table_end : i + 1;
            return &table[i];
        }
    return NULL;
}

/* Whether THREAD is one of PROCESS's, so that what was opened by its id just now is the process's own. */
static bool has_thread(const struct process *process, pid_t thread) {
    return syscall(SYS_tgkill, process->pid, thread, 0) == 0 && process_lives(process);
}

static struct process *enter(pid_t pid, pid_t inner, pid_t thread) {
    struct process *place = free_place();
    if (!place)
        return NULL;
    *place = (struct process){.pid = pid, .inner = inner, .thread = thread};
    place->handle = (int)syscall(SYS_pidfd_open, pid, 0);
    place->memory = open_memory(place);
    if (place->handle < 0 || place->memory < 0 || !has_thread(place, thread)) {
        forget(place);
        return NULL;
    }
    return place;
}

static struct process *find(pid_t pid) {
    for (size_t i = 0; i < table_end; i++) {
        if (table[i].pid != pid)
            continue;
        if (process_lives(&table[i]))
            return &table[i];
    }
    return NULL;
}

struct process *process_of(pid_t thread) {
    unsigned at = (unsigned)thread % HINTS;
    struct process *known = &table[hints[at].entry];
    if (hints[at].thread == thread && known->pid && has_thread(known, thread)) {
        known->thread = thread;
        return known;
    }
    pid_t pid = 0, inner = 0;
    if (!process_ids(thread, &pid, &inner))
        return NULL;
    struct process *found = find(pid);
    if (!found)
        found = enter(pid, inner, thread);
    if (found) {
        found->thread = thread;
        hints[at].thread = thread;
        hints[at].entry = (uint16_t)(found - table);
    }
    return found;
}

/* After an exec the old address space is empty: nothing comes of it. */
static bool renew(struct process *process) {
    int memory = open_memory(process);
    if (memory < 0 || !has_thread(process, process->thread)) {
        if (memory >= 0)
            (void)close(memory);
        return false;
    }
    (void)close(process->memory);
    process->memory = memory;
    return true;
}

bool process_read(struct process *process, uint64_t address, void *buffer, size_t size) {
    /* Not by /proc/PID/mem: that stays with the address space from before an exec, which a process that shared it can
     * keep, and the driver would read another message than we do. */
    struct iovec here = {buffer, size}, there = {(void *)(uintptr_t)address, size};
    watchdog_enter(process);
    ssize_t got = process_vm_readv(process->thread, &here, 1, &there, 1, 0);
    watchdog_leave();
    return got == (ssize_t)size;
}

static ssize_t put(const struct process *process, uint64_t address, const void *buffer, size_t size) {
    watchdog_enter(process);
    ssize_t done = pwrite(process->memory, buffer, size, (off_t)address);
    watchdog_leave();
    return done;
}

bool process_write(struct process *process, uint64_t address, const void *buffer, size_t size) {
    if (address > INT64_MAX)
        return false;
    ssize_t done = put(process, address, buffer, size);
    if (done == 0 && renew(process))
        done = put(process, address, buffer, size);
    return done == (ssize_t)size;
}

/* A thread that has ended and wasn't waited for, as the first one may be while others go on, has no address space. */
static int open_maps(pid_t pid, pid_t thread) {
    char path[48], first = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/maps", (int)pid, (int)thread);
    cleanup_close int maps = open(path, O_RDONLY | O_CLOEXEC);
    return maps >= 0 && pread(maps, &first, 1, 0) == 1 ? take_fd(&maps) : -1;
}

static int find_maps(const struct process *process, pid_t *thread) {
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)process->pid);
    cleanup_closedir DIR *threads = opendir(path);
    cleanup_close int maps = -1;
    for (const struct dirent *entry = threads ? readdir(threads) : NULL; entry && maps < 0; entry = readdir(threads)) {
        *thread = (pid_t)strtol(entry->d_name, NULL, 10);
        if (*thread > 0)
            maps = open_maps(process->pid, *thread);
    }
    return process_lives(process) ? take_fd(&maps) : -1; /* then the pid was its own until now */
}

int process_maps(const struct process *process, pid_t *thread) {
    watchdog_enter(process);
    int maps = find_maps(process, thread);
    watchdog_leave();
    return maps;
}

int process_descriptor(const struct process *process, int fd) {
    watchdog_enter(process);
    int copy = (int)syscall(SYS_pidfd_getfd, process->handle, fd, 0);
    watchdog_leave();
    return copy;
}
