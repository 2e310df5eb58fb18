/* /proc/PID/maps is the kernel's, but much of it is the container's choice: how many lines there are, and the names at
 * their ends, which are not read. */
#include "maps.h"
#include "node.h"
#include "watchdog.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Of one process: no address space is larger, and no sum of all overflows. */
#define MAPPED_MOST ((uint64_t)1 << 48)

struct mapping {
    uint64_t start, end, offset, inode;
};

static struct {
    bool found;
    struct stat facts;
} uvm;

void maps_find_node(const struct config *config) {
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
 * made, and whoever takes them away later keeps the memory. A forked child gets no copy (VM_DONTCOPY in uvm_mmap, from 530 on). */
static bool is_managed(const struct look *look, const struct mapping *mapping) {
    char path[80];
    struct statx facts;
    if (!mapping->inode || mapping->offset != mapping->start)
        return false;
    (void)snprintf(path, sizeof path, "/proc/%d/map_files/%llx-%llx", (int)look->process.thread,
                   (unsigned long long)mapping->start, (unsigned long long)mapping->end);
    if (!uvm.found || statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, &facts) < 0)
        return true;
    struct stat file = {.st_mode = facts.stx_mode,
                        .st_ino = facts.stx_ino,
                        .st_dev = makedev(facts.stx_dev_major, facts.stx_dev_minor),
                        .st_rdev = makedev(facts.stx_rdev_major, facts.stx_rdev_minor)};
    return is_node(&file, &uvm.facts);
}

static void count_lines(struct look *look, char *text) {
    char *next = NULL;
    struct mapping mapping;
    for (const char *line = strtok_r(text, "\n", &next); line; line = strtok_r(NULL, "\n", &next))
        if (parse(line, &mapping) && is_managed(look, &mapping) && look->bytes < MAPPED_MOST)
            look->bytes += mapping.end - mapping.start;
}

/* The kernel gives whole lines at a time, and goes on behind the last one it gave, whatever has changed before it. */
static bool read_on(struct look *look, size_t *left) {
    static char text[65536];
    while (*left > 0) {
        ssize_t length = read(look->maps, text, sizeof text - 1);
        if (length <= 0)
            return true;
        text[length] = '\0';
        count_lines(look, text);
        *left -= (size_t)length < *left ? (size_t)length : *left;
    }
    return false;
}

bool maps_read(struct look *look, size_t *left) {
    watchdog_enter(&look->process); /* what changes its mappings meanwhile can last */
    bool whole = read_on(look, left);
    watchdog_leave();
    return whole;
}

bool maps_begin(struct look *look, const struct process *process) {
    *look = (struct look){.process = *process};
    look->maps = process_maps(process, &look->process.thread);
    return look->maps >= 0;
}

void maps_end(struct look *look) {
    if (look->maps >= 0)
        (void)close(look->maps);
    look->maps = -1;
}
