#include "doubt.h"
#include "driver.h"
#include "holdings.h"
#include "process.h"

#include <string.h>
#include <sys/random.h>

/* Of another process's context there are 5.6 MiB in no figure (measured on an H100, driver 580). */
#define OTHERS_CONTEXT ((uint64_t)5 << 20)

/* Up to so much that can't be explained, frees are settled together by the next look, which costs them nothing. With more
 * (managed memory is in no figure) that would leave all of them in doubt, and each is looked at. */
#define CALM ((uint64_t)16 << 20)

/* Beside a neighbour so many looks in a row are for one credit, each with up to so many readings of the used memory: no
 * rhythm that he could keep. */
#define SAMPLES 16
#define TIMES 4

#define PIDS (PROCESSES + PIDS_MOST)

/* FRESH: freed since the latest look. KEPT: of what was freed before, as much as the device had room for at every look.
 * Contexts explain some of that, but they may have been charged without being there, and that charge ends whenever the
 * container likes. So what they explain is left out of the charge only while they are charged. Managed memory explains
 * nothing: it comes to the device long after it was charged. */
static uint64_t fresh[ACCOUNT_GPUS], kept[ACCOUNT_GPUS], proven[ACCOUNT_GPUS];
static bool calm[ACCOUNT_GPUS];

/* What the latest look found: bytes in use that are in no process's figure, and what explains them. */
static struct {
    uint64_t hidden, own, others;
} found[ACCOUNT_GPUS];

static uint64_t less(uint64_t from, uint64_t bytes) {
    return from > bytes ? from - bytes : 0;
}

static uint64_t smaller(uint64_t one, uint64_t other) {
    return one < other ? one : other;
}

static uint64_t contexts(unsigned gpu) {
    return holdings_used(gpu) - holdings_memory(gpu);
}

uint64_t doubt_left(unsigned gpu) {
    uint64_t own = smaller(found[gpu].own, contexts(gpu));
    return smaller(kept[gpu], less(found[gpu].hidden, own + found[gpu].others));
}

uint64_t doubt_bytes(unsigned gpu) {
    return fresh[gpu] + doubt_left(gpu);
}

bool doubt_needs_proof(void) {
    for (unsigned gpu = 0; gpu < driver_gpus(); gpu++)
        if (!calm[gpu])
            return true;
    return false;
}

/* What falls with a free that gives back memory: the device's used memory, and what is its process's alone. Something that
 * comes back by itself at that moment (managed memory) lets the one fall, what gets a second holder then the other. */
struct level {
    uint64_t used, alone;
    bool known;
};

static struct level level_of(unsigned gpu, pid_t pid) {
    static struct pid_infos infos;
    struct level level = {0};
    infos.count = 1;
    infos.list[0] = (struct pid_info){.pid = (uint32_t)pid};
    level.known = driver_used(gpu, &level.used) && driver_figures(gpu, &infos);
    level.alone = infos.list[0].result == STATUS_OK ? infos.list[0].private : 0;
    return level;
}

/* Of memory alone: with another object more can go than was charged, a context's part for one, and then the fall is no
 * proof. Where a neighbour allocates meanwhile, some is left in doubt that isn't. */
bool doubt_free(int fd, struct free_call *call) {
    struct level before[ACCOUNT_GPUS] = {{0}};
    pid_t pid = holdings_owner_of_memory(call->root, call->handle);
    memset(proven, 0, sizeof proven);
    for (unsigned gpu = 0; gpu < driver_gpus(); gpu++)
        if (pid && !calm[gpu])
            before[gpu] = level_of(gpu, pid);
    if (!driver_call(fd, CALL_FREE, call))
        return false;
    for (unsigned gpu = 0; gpu < driver_gpus(); gpu++) {
        struct level after = before[gpu].known ? level_of(gpu, pid) : (struct level){0};
        if (after.known)
            proven[gpu] = smaller(less(before[gpu].used, after.used), less(before[gpu].alone, after.alone));
    }
    return true;
}

void doubt_add(unsigned gpu, uint64_t bytes) {
    uint64_t known = smaller(proven[gpu], bytes);
    proven[gpu] -= known;
    fresh[gpu] += bytes - known;
}

/* ---- what the device says ------------------------------------------------------------------------------------ */

struct holder {
    uint32_t pid;
    bool own;
    uint64_t bytes;
};

static struct holder holders[PIDS];
static size_t holder_count;

static void add_holder(uint32_t pid, bool own) {
    for (size_t i = 0; i < holder_count; i++)
        if (holders[i].pid == pid)
            return;
    if (holder_count < PIDS)
        holders[holder_count++] = (struct holder){pid, own, UINT64_MAX};
}

static bool find_holders(unsigned gpu) {
    static struct pids others;
    const struct process *table = process_table();
    holder_count = 0;
    for (size_t i = 0; i < process_end(); i++)
        if (table[i].pid)
            add_holder((uint32_t)table[i].pid, true);
    if (!driver_pids(gpu, &others))
        return false;
    for (uint32_t i = 0; i < others.count && i < PIDS_MOST; i++)
        add_holder(others.pid[i], false);
    return true;
}

/* The least that each had at two moments: what came or went between them is nobody's explanation. */
static bool look_at_holders(unsigned gpu) {
    static struct pid_infos infos;
    for (size_t next = 0; next < holder_count; next += infos.count) {
        memset(&infos, 0, sizeof infos);
        for (; infos.count < PID_INFO_MOST && next + infos.count < holder_count; infos.count++)
            infos.list[infos.count].pid = holders[next + infos.count].pid;
        if (!driver_figures(gpu, &infos))
            return false;
        for (uint32_t i = 0; i < infos.count; i++) {
            uint64_t bytes = driver_figure(&infos.list[i]);
            if (bytes < holders[next + i].bytes)
                holders[next + i].bytes = bytes;
        }
    }
    return true;
}

/* What of the used memory is in no figure, as one look has it. */
static bool look(unsigned gpu, unsigned readings, uint64_t *hidden, uint64_t *others) {
    uint64_t used = 0, again = 0, figures = 0;
    if (!find_holders(gpu) || !look_at_holders(gpu))
        return false;
    for (; readings > 0; readings--) {
        if (!driver_used(gpu, &again))
            return false;
        used = used > again ? used : again;
    }
    if (!look_at_holders(gpu))
        return false;
    *others = 0;
    for (size_t i = 0; i < holder_count; i++) {
        figures += holders[i].bytes;
        *others += holders[i].bytes && !holders[i].own ? OTHERS_CONTEXT : 0;
    }
    *hidden = less(used, figures);
    return true;
}

/* A neighbour who has memory at both ends of a look and none in between hides as much. */
static bool look_often(unsigned gpu) {
    uint64_t hidden = 0, others = 0;
    if (!look(gpu, 1, &found[gpu].hidden, &found[gpu].others))
        return false;
    for (unsigned i = 1; i < SAMPLES && found[gpu].others && found[gpu].hidden < kept[gpu] + fresh[gpu]; i++) {
        uint8_t more = 0;
        (void)getrandom(&more, sizeof more, GRND_NONBLOCK);
        if (!look(gpu, 1 + more % TIMES, &hidden, &others))
            return false;
        if (hidden > found[gpu].hidden) {
            found[gpu].hidden = hidden;
            found[gpu].others = others;
        }
    }
    found[gpu].own = contexts(gpu);
    return true;
}

bool doubt_settle(unsigned gpu) {
    uint64_t before = doubt_bytes(gpu);
    if (!look_often(gpu))
        return false;
    calm[gpu] = less(found[gpu].hidden, found[gpu].own + found[gpu].others) < CALM;
    kept[gpu] = smaller(kept[gpu] + fresh[gpu], found[gpu].hidden);
    fresh[gpu] = 0;
    return doubt_bytes(gpu) < before;
}
