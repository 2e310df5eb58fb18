#include "share.h"
#include "agent_page.h"
#include "doubt.h"
#include "holdings.h"
#include "managed.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static struct agent_page *page;
static unsigned gpus;
static uint64_t limits[ACCOUNT_GPUS], largest[ACCOUNT_GPUS], outside[ACCOUNT_GPUS];

bool share_open(int folder, const struct config *config) {
    int fd = openat(folder, "page", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return false;
    page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (page == MAP_FAILED)
        return false;
    gpus = config->gpus;
    for (unsigned gpu = 0; gpu < gpus; gpu++)
        share_set_limit(gpu, config->gpu[gpu].share);
    share_publish(true);
    atomic_store(&page->counted, 1);
    atomic_store(&page->magic, AGENT_PAGE_MAGIC);
    return true;
}

/* All that libvgpu doesn't count itself. */
static uint64_t beside_account(unsigned gpu) {
    return holdings_used(gpu) + outside[gpu] + managed_beyond();
}

uint64_t share_used(unsigned gpu) {
    return beside_account(gpu) + managed_in_account(gpu) + doubt_bytes(gpu);
}

uint64_t share_limit(unsigned gpu) {
    return limits[gpu];
}

uint64_t share_most(unsigned gpu) {
    return largest[gpu];
}

bool share_fits(unsigned gpu, uint64_t bytes) {
    uint64_t used = share_used(gpu);
    return used <= limits[gpu] && bytes <= limits[gpu] - used;
}

/* Whether what the processes had mapped is less than it was: one may have ended. */
static bool less_is_mapped(void) {
    uint64_t before = managed_beyond();
    if (before)
        managed_check_mappings(gpus);
    return managed_beyond() < before;
}

bool share_finds(unsigned gpu, uint64_t bytes) {
    (void)managed_look(gpu);
    return share_fits(gpu, bytes) || (less_is_mapped() && share_fits(gpu, bytes)) ||
           (holdings_sweep() && share_fits(gpu, bytes)) || (doubt_settle(gpu) && share_fits(gpu, bytes));
}

uint64_t share_shown(unsigned gpu) {
    return share_used(gpu) - doubt_bytes(gpu) + doubt_left(gpu);
}

void share_set_limit(unsigned gpu, uint64_t bytes) {
    limits[gpu] = bytes;
    largest[gpu] = bytes > largest[gpu] ? bytes : largest[gpu];
}

void share_set_outside(unsigned gpu, uint64_t bytes) {
    outside[gpu] = bytes;
}

static void publish_processes(void) {
    uint64_t count = 0;
    const struct process *table = process_table();
    atomic_fetch_add(&page->sequence, 1);
    atomic_thread_fence(memory_order_release); /* the list isn't written before that */
    for (size_t i = 0; i < process_end(); i++)
        for (unsigned gpu = 0; gpu < gpus; gpu++)
            if (table[i].pid && table[i].bytes[gpu] && count < AGENT_PROCESSES) {
                atomic_store_explicit(&page->process[count].pid, (uint32_t)table[i].inner, memory_order_relaxed);
                atomic_store_explicit(&page->process[count].gpu, gpu, memory_order_relaxed);
                atomic_store_explicit(&page->process[count++].bytes, table[i].bytes[gpu], memory_order_relaxed);
            }
    atomic_store(&page->process_count, count);
    atomic_fetch_add(&page->sequence, 1);
}

void share_note_refusal(unsigned gpu) {
    atomic_fetch_add(&page->refused[gpu], 1);
}

void share_publish(bool processes) {
    for (unsigned gpu = 0; gpu < gpus; gpu++) {
        uint64_t used = share_shown(gpu);
        atomic_store(&page->gpu[gpu].share, limits[gpu]);
        atomic_store(&page->gpu[gpu].used, used);
        if (used > atomic_load(&page->peak[gpu]))
            atomic_store(&page->peak[gpu], used);
        atomic_store(&page->device[gpu], beside_account(gpu) + doubt_left(gpu));
    }
    if (processes)
        publish_processes();
}
