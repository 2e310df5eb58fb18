/* What the agent counts, as libvgpu reads it. With an agent, the container's share is held where the driver is asked for
 * memory: what it refuses, the driver refuses. Nothing is charged here then but managed memory, which no ioctl asks for. */
#ifndef RUNAI_AGENT_VIEW_H
#define RUNAI_AGENT_VIEW_H

#include "agent_page.h"
#include "figures.h"

/* The mapped page, or NULL; from before anything that links with us runs. */
extern const struct agent_page *agent_page_mapped __attribute__((visibility("hidden")));

/* The agent's page, or NULL where no agent bounds this container. It is looked at each time, since the agent starts
 * beside the container; but a process has no device memory before the agent has answered its driver's first calls, so
 * what is charged before and after can't get mixed up. */
static inline const struct agent_page *agent_view(void)
{
    const struct agent_page *page = agent_page_mapped;
    if (__builtin_expect(page != NULL, 0))
        return atomic_load_explicit(&page->magic, memory_order_acquire) == AGENT_PAGE_MAGIC ? page : NULL;
    return NULL;
}

static inline uint64_t agent_share(const struct agent_page *page, unsigned gpu)
{
    return atomic_load(&page->gpu[gpu].share);
}

static inline uint64_t agent_used(const struct agent_page *page, unsigned gpu)
{
    return atomic_load(&page->gpu[gpu].used);
}

/* The granules that ACCOUNT may come to on GPU: there it counts managed memory alone. */
uint64_t agent_left_for_managed(const struct agent_page *page, const struct account_page *account, unsigned gpu);

/* Fills FIGURES with the container's processes on GPU, as they were at one moment; a writer that has ended in the middle
 * isn't waited for. false when there is no memory; then there is no list. */
bool agent_processes(const struct agent_page *page, unsigned gpu, struct figures *figures);

#endif
