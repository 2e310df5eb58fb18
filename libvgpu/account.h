/* The container's account: how many granules each of its processes holds on each GPU, with one total a GPU that
 * never passes the share. Lock-free between processes: one that is stopped or killed at any instruction holds
 * nobody up, and what it held can be told exactly (account.c says how). */
#ifndef RUNAI_ACCOUNT_H
#define RUNAI_ACCOUNT_H

#include "account_page.h"
#include "identity.h"
#include <stdbool.h>
#include <stdint.h>

#define GRANULE ((uint64_t)1 << ACCOUNT_GRANULE_SHIFT)

/* Bytes as granules, rounded up; never wraps. */
static inline uint64_t granules(uint64_t bytes)
{
    return (bytes >> ACCOUNT_GRANULE_SHIFT) + ((bytes & (GRANULE - 1)) != 0);
}

/* A process's seat at a page. Calls with the same member must not run at the same time. */
struct account_member {
    struct account_page *page;
    struct identity self;
    int slot; /* -1 until it has one */
};

/* Maps PATH. NULL when it isn't there, too short, or can't be mapped. */
struct account_page *account_map(const char *path, bool writable);

/* Takes a slot if MEMBER has none. false when all are in use by living processes. */
bool account_join(struct account_member *member);

/* Adds COUNT granules to what MEMBER holds on GPU if the total then stays within CEILING. */
bool account_reserve(struct account_member *member, unsigned gpu, uint64_t count, uint64_t ceiling);

/* Gives COUNT granules back; at most what MEMBER holds. */
void account_release(struct account_member *member, unsigned gpu, uint64_t count);

/* Gives back what processes hold that have ended. Whether there was any. */
bool account_reclaim(struct account_member *member);

/* Granules that are held on GPU, those of ended processes included. */
uint64_t account_total(const struct account_page *page, unsigned gpu);

/* Those of them that processes hold that have ended, as SELF sees it. For those who only look. */
uint64_t account_left(const struct account_page *page, const struct identity *self, unsigned gpu);

/* Slots from this number on were never taken: most containers use a handful, and the rest is never paged in. */
unsigned account_slots(const struct account_page *page);

/* The slot of the living process that has this PID in SELF's pid namespace, or -1. */
int account_find(const struct account_page *page, const struct identity *self, uint32_t pid);

/* Granules that SLOT holds on GPU. */
uint64_t account_held(const struct account_page *page, unsigned slot, unsigned gpu);

#endif
