/* Who a process is, so that another one can tell later whether it is still there. */
#ifndef RUNAI_IDENTITY_H
#define RUNAI_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

struct identity {
    uint64_t owner;  /* pid << 32 | 16 bits of the start time in clock ticks: a pid that comes again differs
                      *           | 16 bits of where the kernel put its image: an exec differs */
    uint64_t pid_ns; /* inode of the pid namespace in which that pid counts */
    uint64_t image;  /* differs after every exec (from the kernel's AT_RANDOM) */
};

/* The pid of an OWNER; 0 when there is none. */
static inline uint32_t identity_pid(uint64_t owner)
{
    return (uint32_t)(owner >> 32);
}

/* This process. owner is 0 when /proc can't tell. */
struct identity identity_self(void);

/* Whether OWNER of PID_NS has ended, or is another image since an exec, seen by SELF. A process of another pid
 * namespace counts as alive: its pid means nothing here, and taking a living process's share away is worse than
 * keeping a dead one's. */
bool identity_is_dead(const struct identity *self, uint64_t owner, uint64_t pid_ns);

#endif
