/* What the container holds of the device: its clients of the driver, their objects, and the memory behind those. Memory
 * is charged once and credited with its last reference. */
#ifndef RUNAI_AGENT_HOLDINGS_H
#define RUNAI_AGENT_HOLDINGS_H

#include "process.h"

#include <stdbool.h>
#include <stdint.h>

#define CLIENTS 1024
#define PARENTS 6

/* One client: a root object. It lives as long as its file, of which the agent has a copy from the first charge on. */
struct client {
    uint32_t root; /* 0: the entry is free */
    bool confirmed; /* the driver has taken a call for it through its file */
    int file;
    int remote; /* the caller's number for that file */
    struct process *process;
    unsigned gpu; /* of its last device or memory */
    uint32_t shares[ACCOUNT_GPUS];   /* contexts that are known */
    uint32_t contexts[ACCOUNT_GPUS]; /* for how many the driver's own part is charged */
    unsigned parents;           /* how many objects have others below them; the first are in parent */
    uint32_t parent[PARENTS];
};

/* A context is a group of channels that the driver takes memory for, a group one that it takes none for. */
enum kind { OBJECT_FREE, OBJECT_MEMORY, OBJECT_DEVICE, OBJECT_CONTEXT, OBJECT_GROUP, OBJECT_GONE };

/* The client ROOT of PROCESS that uses FILE (of which a copy is kept; REMOTE is its number there); NULL where there are
 * too many. */
struct client *client_of(struct process *process, uint32_t root, int file, int remote);

/* The copy of the file that PROCESS has under REMOTE, if its client ROOT has one of it; -1. That client stays until
 * holdings_done(). */
int holdings_file(const struct process *process, uint32_t root, int remote);
void holdings_done(void);

/* The driver has taken a call of CLIENT: it is one, and of that file. */
void client_confirm(struct client *client);

/* Forgets the client that the last client_of() made, if it wasn't confirmed: anybody can name a root that another is going
 * to have. */
void client_forget_unconfirmed(void);

/* Notes an object. For memory BYTES are charged to the client's process on GPU. false where there is no room. */
bool holdings_add(struct client *client, uint32_t handle, uint32_t parent, enum kind kind, unsigned gpu, uint64_t bytes);

/* Notes a second object of CLIENT for the memory that SOURCE of SOURCE_ROOT stands for. true also where that isn't known:
 * it is somebody else's then. */
bool holdings_dup(struct client *client, uint32_t handle, uint32_t parent, uint32_t source_root, uint32_t source);

/* An object is gone, with all below it. */
void holdings_remove(struct client *client, uint32_t handle);

/* A client is gone, with all its objects. */
void client_remove(struct client *client);

/* Whether HANDLE is a group of channels, of either kind. */
bool holdings_is_group(const struct client *client, uint32_t handle);

/* Frees the memory of CLIENT that goes with the object ABOVE through FILE, one after the other, where it matters what each
 * gives back. */
void holdings_free_memory(struct client *client, int file, uint32_t above);

/* Whose the object HANDLE of the client ROOT is, if it is memory that is charged; 0 otherwise. */
pid_t holdings_owner_of_memory(uint32_t root, uint32_t handle);

/* Whether CLIENT has an object HANDLE. */
bool holdings_know(const struct client *client, uint32_t handle);

/* The GPU of the device object HANDLE; -1 if it is none that is known. */
int holdings_device(const struct client *client, uint32_t handle);

/* Contexts: what the driver takes for one without being asked is charged by their number, which is at least one where
 * there is memory. */
void holdings_contexts(struct client *client, unsigned gpu, uint32_t contexts);
uint64_t holdings_context_cost(const struct client *client, unsigned gpu, uint32_t contexts);

/* Frees the clients whose process has ended, or has closed their file, through our copy of it. Whether there was any. */
bool holdings_sweep(void);

/* Bytes that are charged on GPU: those of memory, and all. */
uint64_t holdings_memory(unsigned gpu);
uint64_t holdings_used(unsigned gpu);

#endif
