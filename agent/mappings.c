/* /proc/PID/maps is the kernel's, but much of it is the container's choice: how many lines there are, and the names at
 * their ends, which are not read. */
#include "mappings.h"
#include "node.h"
#include "process.h"
#include "watchdog.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* What is read in one call, so that a container with millions of mappings can't keep its agent from answering: some
 * 40,000 lines, in 10 to 40 ms. A PyTorch process has some thousands. */
#define TEXT_BYTES ((size_t)4 << 20)

/* Of one process: no address space is larger, and no sum of all overflows. */
#define MAPPED_MOST ((uint64_t)1 << 48)

struct mapping {
    uint64_t start, end, offset, inode;
};

static struct {
    bool found;
    struct stat facts;
} uvm;

/* The process that is being looked at: one of the table, which may have another in that place later. */
static struct {
    size_t at;
    pid_t pid, thread;
    int maps; /* -1: none */
    uint64_t bytes;
} current = {.maps = -1};

void mappings_find_node(const struct config *config) {
    uvm.found = stat(config->uvm, &uvm.facts) == 0;
}

/* START-END PERMISSIONS OFFSET MAJOR:MINOR INODE NAME (proc_pid_maps(5)) */
static bool parse(const char *line, struct mapping *mapping) {
    char *at = NULL;
    mapping->start = strtoull(line, &at, 16);
    if (*at != '-')
        return false;
    mapping->end = strtoull(at + 1, &at, 16);
    if (*at != ' ' || strlen(at) < 6)
        return false;
    mapping->offset = strtoull(at + 6, &at, 16);
    at = *at == ' ' ? strchr(at + 1, ' ') : NULL;
    if (!at)
        return false;
    mapping->inode = strtoull(at, NULL, 10);
    return true;
}

/* Whether a mapping is counted as managed memory. The driver takes mappings of nvidia-uvm whose offset in the file is
 * their address, and no others (NVIDIA's open modules, uvm_mmap), so the few that look so are all that has to be looked at,
 * and no honest program has any of another file. The file is told by its node: its name, and the number of its inode in
 * the container, are the container's choice. Its file system isn't asked, which may not answer. What can't be told, since
 * another thread has changed it meanwhile, counts. Permissions say nothing: the driver wants them all when the mapping is
 * made, and whoever takes them away later keeps the memory. */
static bool is_managed(const struct mapping *mapping) {
    char path[80];
    struct statx facts;
    if (!mapping->inode || mapping->offset != mapping->start)
        return false;
    (void)snprintf(path, sizeof path, "/proc/%d/map_files/%llx-%llx", (int)current.thread,
                   (unsigned long long)mapping->start, (unsigned long long)mapping->end);
    if (!uvm.found || statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, &facts) < 0)
        return true;
    struct stat file = {.st_mode = facts.stx_mode,
                        .st_ino = facts.stx_ino,
                        .st_dev = makedev(facts.stx_dev_major, facts.stx_dev_minor),
                        .st_rdev = makedev(facts.stx_rdev_major, facts.stx_rdev_minor)};
    return is_node(&file, &uvm.facts);
}

static void count_lines(char *text) {
    char *next = NULL;
    struct mapping mapping;
    for (const char *line = strtok_r(text, "\n", &next); line; line = strtok_r(NULL, "\n", &next))
        if (parse(line, &mapping) && is_managed(&mapping) && current.bytes < MAPPED_MOST)
            current.bytes += mapping.end - mapping.start;
}

/* Reads on, at most *LEFT bytes, of which it takes off what it read. Whether that was the end. The kernel gives whole lines
 * at a time, and goes on behind the last one it gave, whatever has changed before it. */
static bool read_on(size_t *left) {
    static char text[65536];
    while (*left > 0) {
        ssize_t length = read(current.maps, text, sizeof text - 1);
        if (length <= 0)
            return true;
        text[length] = '\0';
        count_lines(text);
        *left -= (size_t)length < *left ? (size_t)length : *left;
    }
    return false;
}

static void begin(const struct process *process) {
    current.bytes = 0;
    current.pid = process->pid;
    current.maps = process_maps(process, &current.thread);
}

static void end(void) {
    if (current.maps >= 0)
        (void)close(current.maps);
    current.maps = -1;
}

/* Whether that is done with PROCESS. */
static bool look_at(struct process *process, size_t *left) {
    if (current.maps >= 0 && current.pid != process->pid)
        end(); /* of one that has ended */
    if (!process->pid || !process_lives(process)) {
        end();
        process->mapped = 0;
        return true;
    }
    if (current.maps < 0)
        begin(process);
    if (current.maps < 0)
        return true; /* it keeps the figure that it had */
    watchdog_enter(process); /* what changes its mappings meanwhile can last */
    bool whole = read_on(left);
    watchdog_leave();
    if (!whole)
        return false;
    process->mapped = current.bytes;
    end();
    return true;
}

bool mappings_look(void) {
    size_t left = TEXT_BYTES;
    for (; current.at < process_end(); current.at++)
        if (!look_at(&process_table()[current.at], &left))
            return false;
    end();
    current.at = 0;
    return true;
}
