/* What the subcommands share: a GPU opened by hand, the ways to ask for memory, and the table of subcommands. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi.h"

#define MIB ((uint64_t)1 << 20)
#define OWNER 0x6e756d31 /* of memory: what it is called in the driver's heap, which wants a name */

/* How a call ended: the errno of the ioctl, or 0 and the driver's status. */
struct result {
    int error;
    uint32_t status;
};

static inline bool refused(struct result result)
{
    return result.error || result.status;
}

/* An open nvidiactl and nvidiaN with a client, and the handle of its device. */
struct gpu {
    int fd, node;
    uint32_t client, device;
};

/* A way to ask for *size bytes. On success *handle is the object, and *size what the driver gave, if it says so. */
typedef struct result way(const struct gpu *gpu, uint64_t *size, uint32_t *handle);

/* -d FOLDER: where the nodes lie; -g INDEX: which GPU, by its node; -u UUID: the same GPU, as the driver is to be asked
 * for the number that it has among the driver's devices (else INDEX); -w: wait for the input's end before the program ends.
 */
extern const char *node_folder, *gpu_uuid;
extern unsigned gpu_index;

/* Ends the program with a sentence where that isn't possible. */
struct gpu open_gpu(void);
int open_node(const char *name);
_Noreturn void die(const char *what);
uint64_t number(const char *text);
void wait_for_input(void);

unsigned long request(unsigned escape, size_t size);
/* One ioctl with the driver's usual request, again where a signal came between; `interrupted` counts these. */
struct result call(int fd, unsigned escape, void *message, size_t size, const uint32_t *status);
extern _Atomic uint64_t interrupted;

struct rm_alloc alloc_message(const struct gpu *gpu, uint32_t cls, void *params, size_t size);
struct result alloc_class(const struct gpu *gpu, uint32_t cls, void *params, size_t size, uint32_t *handle);
struct result free_object(const struct gpu *gpu, uint32_t handle);
way alloc_memory;

/* Handles of a context's parts, and how each was answered. */
struct context {
    uint32_t space, group, share;
    struct result space_result, group_result, share_result;
};

/* The group for a context, with an address space; the device stands for it where the driver gives none. */
struct result make_group(const struct gpu *gpu, struct context *context);
/* A context's share of the GPU, in a group that was made before. */
struct result make_share(const struct gpu *gpu, struct context *context);

/* Asks until refused, and prints what that came to. */
void fill(const struct gpu *gpu, way *how, uint64_t size);
void print_result(struct result result);

/* A subcommand with its arguments; a table ends with one that has no name. */
struct subcommand {
    const char *name, *usage;
    int arguments; /* at least so many */
    void (*run)(char **arguments);
};

extern const struct subcommand form_commands[], attack_commands[], sharing_commands[], load_commands[],
    account_commands[], context_commands[], managed_commands[];
