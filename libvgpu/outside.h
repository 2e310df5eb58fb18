/* What the container's processes hold beyond what the account counts: memory that moved outside the allocation
 * calls (modules, stacks, arrays, graphs). The driver's own figure for each process tells. */
#ifndef RUNAI_OUTSIDE_H
#define RUNAI_OUTSIDE_H

#include "account.h"
#include "figures.h"

/* What the driver takes for each context and leaves out of a process's figure (measured on an H100: 8 MiB), and what it
 * takes once for a process that has any (0.8 MiB there). */
#define CONTEXT_HIDDEN ((uint64_t)8 << 20)
#define PROCESS_HIDDEN ((uint64_t)1 << 20)

/* An account_slot's aside word: how many contexts, and granules of managed memory, which no figure has. */
static inline uint64_t aside_word(uint64_t contexts, uint64_t managed)
{
    return contexts << 32 | (uint32_t)managed;
}

static inline uint64_t aside_contexts(uint64_t word)
{
    return word >> 32;
}

static inline uint64_t aside_managed(uint64_t word)
{
    return (uint32_t)word;
}

/* What the slots of a page hold on one GPU, at one moment. */
struct held_snapshot {
    unsigned slots; /* those that came later aren't in it */
    uint64_t granules[ACCOUNT_SLOTS];
};

void outside_snapshot(const struct account_page *page, unsigned gpu, struct held_snapshot *held);

/* Granules that the process of FIGURE, whose SLOT is given, holds on GPU beyond its part of the account. BEFORE was
 * taken before the figure was asked for: if the process allocates or frees meanwhile it counts with the larger of
 * both, so that a change under way never looks like memory outside. */
uint64_t outside_of_process(const struct account_page *page, unsigned slot, unsigned gpu, const struct held_snapshot *before,
                            const struct process_figure *figure);

/* The sum over all of the container's processes in FIGURES. Others don't count: with the host's pid namespace, the
 * driver lists the neighbours' too. */
uint64_t outside_granules(const struct account_page *page, const struct identity *self, unsigned gpu,
                          const struct held_snapshot *before, const struct figures *figures);

/* Whether any process of the container has a context on GPU: without one there is nothing to ask the driver. */
bool outside_possible(const struct account_page *page, unsigned gpu);

#endif
