/* The container's processes that ask the driver for something, as the host sees them. */
#ifndef RUNAI_AGENT_PROCESS_H
#define RUNAI_AGENT_PROCESS_H

#include "account_page.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROCESSES 1024

struct process {
    pid_t pid; /* 0: the entry is free */
    pid_t inner; /* in the container's pid namespace */
    int handle; /* pidfd */
    int memory; /* /proc/PID/mem: bound to the address space, whoever has the pid later */
    unsigned clients; /* of the driver's, that the agent knows */
    uint64_t bytes[ACCOUNT_GPUS]; /* held by its clients, as charged */
};

/* The process of THREAD, which is waiting for an answer. NULL where there is none, or too many. */
struct process *process_of(pid_t thread);

/* Copies SIZE bytes from or to its memory. false where they aren't all there. */
bool process_read(struct process *process, uint64_t address, void *buffer, size_t size);
bool process_write(struct process *process, uint64_t address, const void *buffer, size_t size);

/* A copy of its descriptor FD; -1. */
int process_descriptor(const struct process *process, int fd);

bool process_lives(const struct process *process);

/* Forgets one that holds nothing. */
void process_forget(struct process *process);

/* The entries, of which those up to process_end() may be taken. */
struct process *process_table(void);
size_t process_end(void);

#endif
