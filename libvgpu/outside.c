#include "outside.h"

void outside_snapshot(const struct account_page *page, unsigned gpu, struct held_snapshot *held)
{
    held->slots = account_slots(page);
    for (unsigned i = 0; i < held->slots; i++)
        held->granules[i] = account_held(page, i, gpu);
}

static const struct process_figure *find(const struct process_figure *figures, size_t count, uint32_t pid)
{
    for (size_t i = 0; i < count; i++)
        if (figures[i].pid == pid)
            return &figures[i];
    return NULL;
}

uint64_t outside_granules(const struct account_page *page, const struct identity *self, unsigned gpu,
                          const struct held_snapshot *before, const struct process_figure *figures, size_t count)
{
    uint64_t outside = 0;
    for (unsigned i = 0; i < account_slots(page); i++) {
        const struct account_slot *slot = &page->slot[i];
        uint64_t owner = atomic_load(&slot->owner), aside = atomic_load(&slot->aside[gpu]);
        if (!owner || !aside_contexts(aside) || atomic_load(&slot->pid_ns) != self->pid_ns)
            continue;
        const struct process_figure *figure = find(figures, count, (uint32_t)(owner >> 32));
        if (!figure)
            continue;
        uint64_t held = account_held(page, i, gpu);
        if (i < before->slots && before->granules[i] > held)
            held = before->granules[i];
        uint64_t counted = held - (aside_managed(aside) < held ? aside_managed(aside) : held);
        uint64_t given = granules(figure->bytes + aside_contexts(aside) * CONTEXT_HIDDEN);
        if (given > counted)
            outside += given - counted;
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
