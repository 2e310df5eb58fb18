/* The container's processes, whether or not they ever asked the driver for anything. Its cgroup tells where to look; which
 * of those are certainly its own, and not those of a container that was put into the same cgroup, their namespaces tell. */
#ifndef RUNAI_AGENT_MEMBERS_H
#define RUNAI_AGENT_MEMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define MEMBERS_MOST 4096 /* that are looked at: of more, those that the kernel names last aren't */

/* Takes hold of the cgroup that STATE/cgroup names. FIRST is a pidfd of the container's first process, PID, which lives.
 * Where that can't be, or where others than the container are in it by all appearances, nobody is found later. */
void members_find(int state, int first, pid_t pid);

/* The processes in the cgroup and those below, at most MEMBERS_MOST. Of all that are there some may be another's. */
size_t members_list(pid_t *list);

/* A pidfd of the process PID if it lives and certainly is the container's; -1. */
int members_open(pid_t pid);

/* Kills those that wouldn't end with the first process, which lives. */
void members_end(void);

#endif
