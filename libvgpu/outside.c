#include "outside.h"

void outside_snapshot(const struct account_page *page, unsigned gpu, struct held_snapshot *held)
{
    held->slots = account_slots(page);
    for (unsigned i = 0; i < held->slots; i++)
        held->granules[i] = account_held(page, i, gpu);
}

/* All that the driver gave the process, without managed memory. */
static uint64_t given(const struct process_figure *figure, uint64_t contexts)
{
    return granules(figure->bytes + contexts * CONTEXT_HIDDEN + PROCESS_HIDDEN);
}

uint64_t outside_of_process(const struct account_page *page, unsigned slot, unsigned gpu, const struct held_snapshot *before,
                            const struct process_figure *figure)
{
    uint64_t aside = atomic_load(&page->slot[slot].aside[gpu]), held = account_held(page, slot, gpu);
    if (!aside_contexts(aside) || figure->bytes == BYTES_UNKNOWN)
        return 0;
    if (slot < before->slots && before->granules[slot] > held)
        held = before->granules[slot];
    uint64_t counted = held - (aside_managed(aside) < held ? aside_managed(aside) : held);
    uint64_t all = given(figure, aside_contexts(aside));
    return all > counted ? all - counted : 0;
}

uint64_t outside_granules(const struct account_page *page, const struct identity *self, unsigned gpu,
                          const struct held_snapshot *before, const struct figures *figures)
{
    uint64_t outside = 0;
    for (size_t i = 0; i < figures->count; i++) {
        int slot = account_find(page, self, figures->list[i].pid);
        if (slot >= 0)
            outside += outside_of_process(page, (unsigned)slot, gpu, before, &figures->list[i]);
    }
    return outside;
}

bool outside_possible(const struct account_page *page, unsigned gpu)
{
    for (unsigned i = 0; i < account_slots(page); i++)
        if (aside_contexts(atomic_load(&page->slot[i].aside[gpu])))
            return true;
    return false;
}
