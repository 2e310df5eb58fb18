#include "holdings.h"
#include "cleanup.h"
#include "doubt.h"
#include "watchdog.h"

#include <dirent.h>
#include <errno.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Measured on an H100 (driver 580): a group of channels of the graphics engine takes 4.3 MiB for which no ioctl asks, a
 * bare CUDA context with one such group 5.6 MiB, and what NVML has of its process less than the device by up to 8.8. */
#define CONTEXT_BYTES ((uint64_t)8 << 20)
#define PROCESS_BYTES ((uint64_t)2 << 20)

struct object {
    uint32_t root, handle, parent;
    uint32_t memory; /* index; for a device its GPU */
    enum kind kind;
};

struct memory {
    uint64_t bytes;
    uint32_t references;
    uint16_t gpu, process; /* process: the index of who is charged */
};

static struct client clients[CLIENTS];
static size_t clients_end; /* no entry from clients_end on is taken */
static struct client *newest; /* while it isn't confirmed */

/* Open addressing, by root and handle; as many places as a power of two. */
static struct object *objects;
static size_t places, taken; /* taken: those that aren't OBJECT_FREE */

static struct memory *memories;
static uint32_t memory_count, memory_room, memory_free = UINT32_MAX;

static uint64_t memory_bytes[ACCOUNT_GPUS], hidden_bytes[ACCOUNT_GPUS];

static uint64_t context_bytes(uint32_t contexts) {
    return contexts ? PROCESS_BYTES + contexts * CONTEXT_BYTES : 0;
}

uint64_t holdings_memory(unsigned gpu) {
    return memory_bytes[gpu];
}

uint64_t holdings_used(unsigned gpu) {
    return memory_bytes[gpu] + hidden_bytes[gpu];
}

static struct client *find_client(uint32_t root) {
    for (size_t i = 0; i < clients_end; i++)
        if (clients[i].root == root)
            return &clients[i];
    return NULL;
}

struct client *client_of(struct process *process, uint32_t root, int file, int remote) {
    struct client *client = root ? find_client(root) : NULL;
    if (client || !root)
        return client;
    client = find_client(0);
    if (!client && clients_end < CLIENTS)
        client = &clients[clients_end];
    int copy = client ? dup(file) : -1;
    if (copy < 0)
        return NULL;
    *client = (struct client){.root = root, .file = copy, .remote = remote, .process = process};
    if (client == &clients[clients_end])
        clients_end++;
    process->clients++;
    newest = client;
    return client;
}

static const struct client *in_use;

int holdings_file(const struct process *process, uint32_t root, int remote) {
    const struct client *client = root ? find_client(root) : NULL;
    if (!client || !client->confirmed || client->process != process || client->remote != remote)
        return -1;
    watchdog_enter(process);
    long same = syscall(SYS_kcmp, getpid(), process->pid, KCMP_FILE, client->file, remote);
    watchdog_leave();
    if (same != 0)
        return -1;
    in_use = client;
    return client->file;
}

void holdings_done(void) {
    in_use = NULL;
}

void client_confirm(struct client *client) {
    client->confirmed = true;
}

void client_forget_unconfirmed(void) {
    if (newest && newest->root && !newest->confirmed)
        client_remove(newest);
    newest = NULL;
}

static size_t home(uint32_t root, uint32_t handle) {
    uint64_t key = (uint64_t)root << 32 | handle;
    return (size_t)(key * 0x9e3779b97f4a7c15u >> 20) & (places - 1);
}

static struct object *find(uint32_t root, uint32_t handle) {
    if (!places)
        return NULL;
    for (size_t at = home(root, handle);; at = (at + 1) & (places - 1)) {
        struct object *object = &objects[at];
        if (object->kind == OBJECT_FREE)
            return NULL;
        if (object->kind != OBJECT_GONE && object->root == root && object->handle == handle)
            return object;
    }
}

static void put(const struct object *object) {
    size_t at = home(object->root, object->handle);
    while (objects[at].kind != OBJECT_FREE)
        at = (at + 1) & (places - 1);
    objects[at] = *object;
    taken++;
}

/* A duplicate takes nothing of the share, and its entry is memory of the host's. */
#define OBJECTS ((size_t)1 << 20)

/* Room for one more; those that are gone are left out on the way. */
static bool make_room(void) {
    if (taken * 2 < places)
        return true;
    size_t live = 0, before = places;
    for (size_t i = 0; i < before; i++)
        live += objects[i].kind != OBJECT_FREE && objects[i].kind != OBJECT_GONE;
    if (live >= OBJECTS)
        return false;
    size_t wanted = live * 4 < 256 ? 256 : before;
    while (wanted < live * 4)
        wanted *= 2;
    struct object *old = objects, *fresh = calloc(wanted, sizeof *fresh);
    if (!fresh)
        return false;
    objects = fresh;
    places = wanted;
    taken = 0;
    for (size_t i = 0; i < before; i++)
        if (old[i].kind != OBJECT_FREE && old[i].kind != OBJECT_GONE)
            put(&old[i]);
    free(old);
    return true;
}

static bool new_memory(uint32_t *index) {
    if (memory_free != UINT32_MAX) {
        *index = memory_free;
        memory_free = (uint32_t)memories[memory_free].bytes;
        return true;
    }
    if (memory_count == memory_room) {
        uint32_t room = memory_room ? memory_room * 2 : 64;
        struct memory *more = realloc(memories, room * sizeof *more);
        if (!more)
            return false;
        memories = more;
        memory_room = room;
    }
    *index = memory_count++;
    return true;
}

static void let_go(uint32_t index) {
    struct memory *memory = &memories[index];
    if (--memory->references)
        return;
    memory_bytes[memory->gpu] -= memory->bytes;
    doubt_add(memory->gpu, memory->bytes);
    process_table()[memory->process].bytes[memory->gpu] -= memory->bytes;
    memory->bytes = memory_free;
    memory_free = index;
}

void holdings_contexts(struct client *client, unsigned gpu, uint32_t contexts) {
    uint64_t before = context_bytes(client->contexts[gpu]), after = context_bytes(contexts);
    hidden_bytes[gpu] += after - before;
    client->process->bytes[gpu] += after - before;
    client->contexts[gpu] = contexts;
}

uint64_t holdings_context_cost(const struct client *client, unsigned gpu, uint32_t contexts) {
    uint64_t before = context_bytes(client->contexts[gpu]), after = context_bytes(contexts);
    return after > before ? after - before : 0;
}

static void drop(struct client *client, struct object *object) {
    if (object->kind == OBJECT_MEMORY)
        let_go(object->memory);
    else if (object->kind == OBJECT_CONTEXT && --client->shares[object->memory] > 0)
        holdings_contexts(client, object->memory, client->shares[object->memory]);
    object->kind = OBJECT_GONE;
}

/* One of that name which went without our seeing it. */
static void forget_namesake(struct client *client, uint32_t handle) {
    struct object *object = find(client->root, handle);
    if (object)
        drop(client, object);
}

/* What isn't a parent of anything here can be freed without a look at all objects. */
static void note_parent(struct client *client, uint32_t parent) {
    for (unsigned i = 0; i < client->parents && i < PARENTS; i++)
        if (client->parent[i] == parent)
            return;
    if (client->parents < PARENTS)
        client->parent[client->parents] = parent;
    client->parents++;
}

static bool may_be_parent(const struct client *client, uint32_t handle) {
    bool found = client->parents > PARENTS;
    for (unsigned i = 0; i < client->parents && i < PARENTS; i++)
        found = found || client->parent[i] == handle;
    return found;
}

bool holdings_add(struct client *client, uint32_t handle, uint32_t parent, enum kind kind, unsigned gpu, uint64_t bytes) {
    struct object object = {client->root, handle, parent, gpu, kind};
    forget_namesake(client, handle);
    note_parent(client, parent);
    if (!make_room() || (kind == OBJECT_MEMORY && !new_memory(&object.memory)))
        return false;
    if (kind == OBJECT_MEMORY) {
        memories[object.memory] =
            (struct memory){bytes, 1, (uint16_t)gpu, (uint16_t)(client->process - process_table())};
        memory_bytes[gpu] += bytes;
        client->process->bytes[gpu] += bytes;
    }
    client->gpu = gpu;
    if (kind == OBJECT_CONTEXT)
        holdings_contexts(client, gpu, ++client->shares[gpu]);
    put(&object);
    return true;
}

bool holdings_dup(struct client *client, uint32_t handle, uint32_t parent, uint32_t source_root, uint32_t source) {
    forget_namesake(client, handle);
    note_parent(client, parent);
    if (!make_room())
        return false;
    const struct object *other = find(source_root, source);
    if (!other || other->kind != OBJECT_MEMORY)
        return true;
    struct object object = {client->root, handle, parent, other->memory, OBJECT_MEMORY};
    memories[object.memory].references++;
    put(&object);
    return true;
}

static void remove_below(struct client *client, uint32_t parent) {
    for (size_t i = 0; i < places; i++) {
        struct object *object = &objects[i];
        if (object->kind == OBJECT_FREE || object->kind == OBJECT_GONE || object->root != client->root ||
            object->parent != parent)
            continue;
        enum kind kind = object->kind;
        uint32_t handle = object->handle;
        drop(client, object);
        if (kind == OBJECT_DEVICE && handle != parent) /* devices lie below clients alone, so this ends */
            remove_below(client, handle);
    }
}

void holdings_remove(struct client *client, uint32_t handle) {
    struct object *object = find(client->root, handle);
    if (object)
        drop(client, object);
    if (may_be_parent(client, handle))
        remove_below(client, handle);
}

void client_remove(struct client *client) {
    for (size_t i = 0; i < places; i++)
        if (objects[i].kind != OBJECT_FREE && objects[i].kind != OBJECT_GONE && objects[i].root == client->root)
            drop(client, &objects[i]);
    for (unsigned gpu = 0; gpu < ACCOUNT_GPUS; gpu++)
        holdings_contexts(client, gpu, 0);
    (void)close(client->file);
    client->process->clients--;
    memset(client, 0, sizeof *client);
    while (clients_end > 0 && !clients[clients_end - 1].root)
        clients_end--;
}

pid_t holdings_owner_of_memory(uint32_t root, uint32_t handle) {
    const struct object *object = find(root, handle);
    const struct client *client = object && object->kind == OBJECT_MEMORY ? find_client(root) : NULL;
    return client ? client->process->pid : 0;
}

void holdings_free_memory(struct client *client, int file, uint32_t above) {
    bool all = above == client->root;
    for (size_t i = 0; doubt_needs_proof() && (all || may_be_parent(client, above)) && i < places; i++) {
        struct object *object = &objects[i];
        if (object->kind != OBJECT_MEMORY || object->root != client->root || (!all && object->parent != above))
            continue;
        struct free_call call = {.root = client->root, .parent = object->parent, .handle = object->handle};
        if (doubt_free(file, &call) && call.status == STATUS_OK)
            drop(client, object);
    }
}

bool holdings_know(const struct client *client, uint32_t handle) {
    return find(client->root, handle) != NULL;
}

bool holdings_is_group(const struct client *client, uint32_t handle) {
    const struct object *object = find(client->root, handle);
    return object && (object->kind == OBJECT_CONTEXT || object->kind == OBJECT_GROUP);
}

int holdings_device(const struct client *client, uint32_t handle) {
    const struct object *object = find(client->root, handle);
    return object && object->kind == OBJECT_DEVICE ? (int)object->memory : -1;
}

/* How many descriptors are looked at in one sweep: a process may have a million, and a new number for a file each time. */
#define DESCRIPTORS 20000
static unsigned to_look_at;

/* Whether the process still has the file open, under whatever number. Yes as well where that can't be told now, and where
 * no descriptor is to be seen: those of a process whose first thread has ended aren't. */
static bool has_file(struct client *client) {
    pid_t self = getpid(), pid = client->process->pid;
    long same = syscall(SYS_kcmp, self, pid, KCMP_FILE, client->file, client->remote);
    if (same == 0 || (same < 0 && errno != EBADF))
        return true; /* or a kernel that can't tell */
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    cleanup_closedir DIR *folder = opendir(path);
    if (!folder)
        return true;
    bool any = false;
    for (const struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.')
            continue;
        any = true;
        if (!to_look_at)
            return true;
        to_look_at--;
        if (syscall(SYS_kcmp, self, pid, KCMP_FILE, client->file, fd) != 0)
            continue;
        client->remote = fd;
        return true;
    }
    return !any;
}

/* In the middle of an exec, while that closes files, nobody may look at a process. */
static bool still_open(struct client *client) {
    watchdog_enter(client->process);
    bool open = has_file(client);
    watchdog_leave();
    return open;
}

static void free_client(struct client *client) {
    struct free_call call = {.root = client->root, .handle = client->root};
    holdings_free_memory(client, client->file, client->root);
    (void)doubt_free(client->file, &call);
    client_remove(client);
}

bool holdings_sweep(void) {
    bool any = false;
    to_look_at = DESCRIPTORS;
    for (size_t i = 0; i < clients_end; i++) {
        struct client *client = &clients[i];
        if (!client->root || client == in_use || (process_lives(client->process) && still_open(client)))
            continue;
        free_client(client);
        any = true;
    }
    return any;
}
