/* The container's processes that ask the driver for something, or have managed memory, as the host sees them. */
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
    pid_t thread; /* that waits for an answer: its leader may have ended */
    int handle; /* pidfd */
    int memory; /* /proc/PID/mem: bound to the address space, whoever has the pid later */
    unsigned clients; /* of the driver's, that the agent knows */
    bool continued;   /* made a call itself, which may take memory at any time until its end */
    bool ended;       /* before the driver was last asked: it has taken no more since */
    uint64_t figure[ACCOUNT_GPUS]; /* what it had when the driver was last asked */
    uint64_t bytes[ACCOUNT_GPUS]; /* held by its clients, as charged */
    uint64_t mapped; /* bytes of nvidia-uvm in its address space, when that was last looked at */
    uint64_t beyond; /* what of it the account in the container doesn't have */
};

/* The id of THREAD's process, and what that is in its own pid namespace (/proc/THREAD/status). */
bool process_ids(pid_t thread, pid_t *pid, pid_t *inner);

/* The process of THREAD, which is waiting for an answer or has managed memory without having asked for any. NULL where
 * there is none, or too many. */
struct process *process_of(pid_t thread);

/* Copies SIZE bytes from the memory that its waiting thread has now, or to it. false where they aren't all there. */
bool process_read(struct process *process, uint64_t address, void *buffer, size_t size);
bool process_write(struct process *process, uint64_t address, const void *buffer, size_t size);

/* A copy of its descriptor FD; -1. */
int process_descriptor(const struct process *process, int fd);

/* Opens /proc/THREAD/maps of a thread of it that has its address space, which is in *THREAD then; -1. */
int process_maps(const struct process *process, pid_t *thread);

/* Whether the process of a pidfd lives; ends it. */
bool pidfd_lives(int handle);
bool pidfd_kill(int handle);

/* Whether a thread of it does: one that only wasn't waited for has ended. */
bool process_lives(const struct process *process);

/* Whether its pid is its own or nobody's: not that of one that came later. */
bool process_has_pid(const struct process *process);

/* Before the driver is asked for its figures: which have ended by now. After that: forgets those of them that hold nothing.
 * Not while one is in use. */
void process_note_ended(void);
void process_reap(void);

/* The entries, of which those up to process_end() may be taken. */
struct process *process_table(void);
size_t process_end(void);

#endif
