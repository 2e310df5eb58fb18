#include "reconcile.h"
#include "container.h"
#include "doubt.h"
#include "driver.h"
#include "holdings.h"
#include "journal.h"
#include "managed.h"
#include "process.h"
#include "share.h"

#include <string.h>

/* Above the share by more than this part of it, for so many looks: what moves while it is looked at is no excess. */
#define TOLERANCE 100
#define LOOKS 2
#define LOOKS_AT_DEAD 20 /* one that was killed may take a while to give back what it has */

static unsigned looks_above[ACCOUNT_GPUS];

/* The process that got most beyond what was charged to it. */
struct excess {
    struct process *process;
    uint64_t bytes, total; /* its own; the container's sum of the driver's figures */
};

static bool look(unsigned gpu, struct excess *excess) {
    static struct pid_infos infos;
    struct process *table = process_table();
    size_t next = 0;
    *excess = (struct excess){0};
    while (next < process_end()) {
        struct process *asked[PID_INFO_MOST];
        memset(&infos, 0, sizeof infos);
        for (; next < process_end() && infos.count < PID_INFO_MOST; next++)
            if (table[next].pid) {
                infos.list[infos.count].pid = (uint32_t)table[next].pid;
                asked[infos.count++] = &table[next];
            }
        if (!infos.count)
            break;
        if (!driver_figures(gpu, &infos))
            return false;
        for (uint32_t i = 0; i < infos.count; i++) {
            uint64_t got = process_has_pid(asked[i]) ? driver_figure(&infos.list[i]) : 0, charged = asked[i]->bytes[gpu];
            asked[i]->figure[gpu] = got;
            excess->total += got;
            uint64_t more = (got > charged ? got - charged : 0) + asked[i]->beyond;
            if (more > excess->bytes) {
                excess->bytes = more;
                excess->process = asked[i];
            }
        }
    }
    return true;
}

/* OUTSIDE is the sum over all processes: many may each have taken a little. The one that took most is ended, then the
 * next. A share that was lowered under what was charged ends nobody. */
static void judge(unsigned gpu, uint64_t outside, const struct excess *excess) {
    uint64_t share = share_limit(gpu), room = share / TOLERANCE;
    bool above = share_used(gpu) > share + room && outside + managed_beyond() > room && excess->process;
    looks_above[gpu] = above ? looks_above[gpu] + 1 : 0;
    bool lives = excess->process && process_lives(excess->process);
    if (looks_above[gpu] < (lives ? LOOKS : LOOKS_AT_DEAD))
        return;
    looks_above[gpu] = 0;
    const char *whole = "";
    if (lives) {
        (void)pidfd_kill(excess->process->handle);
    } else { /* others have its file, and which they are can't be told */
        whole = ", with its container, in which others keep that after its end";
        if (!container_end())
            return; /* what it took stays in the account */
    }
    journal("process %d was ended%s: it took %llu bytes on GPU %u around the agent, which brought the container to %llu "
            "of %llu",
            (int)excess->process->pid, whole, (unsigned long long)excess->bytes, gpu, (unsigned long long)share_used(gpu),
            (unsigned long long)share);
}

void reconcile(const struct config *config) {
    process_note_ended();
    (void)holdings_sweep();
    managed_check_mappings(config->gpus);
    for (unsigned gpu = 0; driver_open(config) && gpu < config->gpus; gpu++) {
        struct excess excess;
        if (!look(gpu, &excess))
            continue;
        (void)managed_look(gpu);
        uint64_t charged = holdings_memory(gpu);
        uint64_t outside = excess.total > charged ? excess.total - charged : 0;
        share_set_outside(gpu, outside);
        (void)doubt_settle(gpu);
        judge(gpu, outside, &excess);
    }
    process_reap();
    share_publish(true);
}
