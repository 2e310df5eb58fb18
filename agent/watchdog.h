/* A page of the container's may block whoever reads it, for as long as the container likes: userfaultfd, a file on a file
 * system that it serves. The agent would answer and look no more. So what waits too long on a caller ends it. */
#ifndef RUNAI_AGENT_WATCHDOG_H
#define RUNAI_AGENT_WATCHDOG_H

#include "process.h"

#include <stdbool.h>

/* Starts the thread that watches. After what it may not have is dropped: capabilities are a thread's own. */
bool watchdog_start(void);

/* Around whatever can wait on PROCESS's memory or files, not on the driver. */
void watchdog_enter(const struct process *process);
void watchdog_leave(void);

#endif
