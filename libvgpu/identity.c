#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

struct stat_line {
    char state;
    unsigned long threads;
    uint64_t start;
};

/* State, number of threads and start time from /proc/PID/stat (fields 3, 20 and 22 of proc(5)). The command name,
 * field 2, stands in parentheses and may hold anything, so the fields are counted from the last parenthesis. */
static int read_stat(pid_t pid, struct stat_line *out)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return -1;
    text[length] = '\0';
    char *at = strrchr(text, ')');
    if (!at || at[1] != ' ' || !at[2])
        return -1;
    out->state = at[2];
    at += 2;
    for (int field = 3; field < 22; field++) {
        at = strchr(at, ' ');
        if (!at)
            return -1;
        at++;
        if (field + 1 == 20)
            out->threads = strtoul(at, NULL, 10);
    }
    out->start = strtoull(at, NULL, 10);
    return 0;
}

static uint64_t owner_of(pid_t pid, uint64_t start, uint16_t layout)
{
    return (uint64_t)(uint32_t)pid << 32 | (uint64_t)(uint16_t)start << 16 | layout;
}

/* What of the auxiliary vector differs from one exec to the next: each of these addresses is random. */
static const unsigned long layout_types[] = {AT_PHDR, AT_BASE, AT_RANDOM, AT_SYSINFO_EHDR};
#define LAYOUT_TYPES (sizeof layout_types / sizeof *layout_types)

static uint16_t layout_hash(const unsigned long addresses[LAYOUT_TYPES])
{
    uint64_t hash = 0;
    for (size_t i = 0; i < LAYOUT_TYPES; i++)
        hash = (hash ^ (addresses[i] >> 4)) * 0x9e3779b97f4a7c15u;
    return (uint16_t)(hash >> 48);
}

static uint16_t own_layout(void)
{
    unsigned long addresses[LAYOUT_TYPES];
    for (size_t i = 0; i < LAYOUT_TYPES; i++)
        addresses[i] = getauxval(layout_types[i]);
    return layout_hash(addresses);
}

/* The same of another process; -1 where that may not be read. */
static int layout_of(pid_t pid)
{
    char path[32];
    unsigned long vector[128], addresses[LAYOUT_TYPES] = {0};
    snprintf(path, sizeof path, "/proc/%d/auxv", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t length = read(fd, vector, sizeof vector);
    close(fd);
    if (length <= 0)
        return -1;
    for (size_t at = 0; at + 1 < (size_t)length / sizeof *vector; at += 2)
        for (size_t i = 0; i < LAYOUT_TYPES; i++)
            if (vector[at] == layout_types[i])
                addresses[i] = vector[at + 1];
    return layout_hash(addresses);
}

struct identity identity_self(void)
{
    struct identity self = {0};
    struct stat_line line;
    struct stat ns;
    if (read_stat(getpid(), &line) == 0)
        self.owner = owner_of(getpid(), line.start, own_layout());
    if (stat("/proc/self/ns/pid", &ns) == 0)
        self.pid_ns = (uint64_t)ns.st_ino;
    const void *random = (const void *)getauxval(AT_RANDOM); /* 16 bytes, new at every exec */
    if (random)
        memcpy(&self.image, random, sizeof self.image);
    return self;
}

bool identity_is_dead(const struct identity *self, uint64_t owner, uint64_t pid_ns)
{
    struct stat_line line;
    pid_t pid = (pid_t)identity_pid(owner);
    if (pid_ns != self->pid_ns)
        return false;
    if (kill(pid, 0) != 0 && errno == ESRCH)
        return true;
    if (read_stat(pid, &line) != 0)
        return false;
    /* A zombie's files are closed, unless it is only the first thread that has ended. */
    bool zombie = (line.state == 'Z' || line.state == 'X') && line.threads <= 1;
    if (zombie || owner_of(pid, line.start, (uint16_t)owner) != owner)
        return true;
    int layout = layout_of(pid);
    return layout >= 0 && (uint16_t)layout != (uint16_t)owner;
}
