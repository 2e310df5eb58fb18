/* A call that the kernel holds for its answer: what is known of it, and the ways to answer. */
#ifndef RUNAI_AGENT_HELD_H
#define RUNAI_AGENT_HELD_H

#include "abi.h"
#include "config.h"
#include "holdings.h"
#include "process.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct held {
    const struct config *config;
    int listener;
    uint64_t id, message; /* where the caller's message lies */
    const uint8_t *said;  /* what stood there */
    struct process *process;
    int file, remote; /* a descriptor of ours for the file, and its number there */
    bool *let_through;
};

/* The driver copies as many bytes of parameters as the class has, whatever the message says: always a page. One for all,
 * since one call is answered at a time. */
extern _Alignas(4096) uint8_t held_params[PARAMS_MOST];

/* Lets the kernel make the call. */
void held_let_through(const struct held *held);

/* Answers with ERROR, or 0. The page comes first: whoever has its answer may look at it. false: the caller waits no more. */
bool held_answer(const struct held *held, int error);

/* Writes the message back, if it isn't what it was, and answers. false: the caller waits no more. */
bool held_deliver(const struct held *held, const void *message, size_t size);

/* The caller's client ROOT, as of this call's file. */
struct client *held_client(const struct held *held, uint32_t root);

/* Frees an object in the driver, whatever that says. */
void held_free(const struct held *held, uint32_t root, uint32_t parent, uint32_t handle);

#endif
