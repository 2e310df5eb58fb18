#include "managed.h"
#include "account_page.h"
#include "cleanup.h"
#include "clock.h"
#include "container.h"
#include "mappings.h"
#include "process.h"
#include "share.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAPPINGS_MS 1000 /* from one round over the mappings to the next, while all of them are accounted for */
#define OTHER_MAPPINGS ((uint64_t)8 << 20)
#define OTHER_PART 16

static int account = -1;
static uint64_t seen[ACCOUNT_GPUS], beyond;
static struct account_slot slots[ACCOUNT_SLOTS]; /* as they were read last */

/* Looked for when memory is first asked for: it is made after us. */
static int open_account(void) {
    cleanup_close int root = container_root();
    if (root < 0)
        return -1;
    struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS};
    cleanup_close int fd = (int)syscall(SYS_openat2, root, ".runai/account/page", &how, sizeof how);
    struct stat facts;
    if (fd < 0 || fstat(fd, &facts) < 0 || !S_ISREG(facts.st_mode))
        return -1;
    return take_fd(&fd);
}

/* Never mapped: whoever writes it could cut it short under us. */
static bool read_account(size_t at, void *buffer, size_t size) {
    return account >= 0 && pread(account, buffer, size, (off_t)at) == (ssize_t)size;
}

/* The slots that were ever taken. */
static unsigned read_slots(void) {
    uint64_t count = 0;
    if (!read_account(offsetof(struct account_page, slots), &count, sizeof count))
        return 0;
    count = count < ACCOUNT_SLOTS ? count : ACCOUNT_SLOTS;
    return read_account(offsetof(struct account_page, slot), slots, count * sizeof *slots) ? (unsigned)count : 0;
}

/* The living process that calls itself PID. All that use libvgpu are in the table, since they ask the driver first. */
static struct process *process_called(uint32_t pid) {
    struct process *table = process_table();
    for (size_t i = 0; i < process_end(); i++)
        if (table[i].pid && (uint32_t)table[i].inner == pid && process_lives(&table[i]))
            return &table[i];
    return NULL;
}

static uint64_t held(const struct account_slot *slot, unsigned gpu) {
    return slot->gpu[gpu].held >> ACCOUNT_HELD_SHIFT << ACCOUNT_GRANULE_SHIFT;
}

/* What processes hold in the account that have ended: libvgpu gives it back when the container's next program needs it. */
static uint64_t left_by_dead(unsigned gpu) {
    uint64_t left = 0;
    unsigned count = read_slots();
    for (unsigned i = 0; i < count; i++)
        if (held(&slots[i], gpu) && !process_called((uint32_t)(slots[i].owner >> 32)))
            left += held(&slots[i], gpu);
    return left;
}

uint64_t managed_in_account(unsigned gpu) {
    return seen[gpu];
}

uint64_t managed_beyond(void) {
    return beyond;
}

/* The total comes first: what is given back in between counts once more, and not once less. */
uint64_t managed_look(unsigned gpu) {
    uint64_t word = 0;
    if (account < 0)
        account = open_account();
    if (!read_account(offsetof(struct account_page, total) + gpu * sizeof word, &word, sizeof word))
        return seen[gpu];
    uint64_t total = word >> ACCOUNT_TOTAL_SHIFT << ACCOUNT_GRANULE_SHIFT;
    uint64_t left = total ? left_by_dead(gpu) : 0;
    seen[gpu] = left < total ? total - left : 0;
    return seen[gpu];
}

/* The account is the container's to write, so on no GPU it explains more than the largest share there was. */
static uint64_t explained(unsigned gpus) {
    uint64_t sum = 0;
    for (unsigned gpu = 0; gpu < gpus; gpu++) {
        uint64_t bytes = managed_look(gpu), most = share_most(gpu);
        sum += bytes < most ? bytes : most;
    }
    return sum;
}

/* What of nvidia-uvm the driver's libraries map for other purposes: one mapping of 2 MiB, with a bare context and with
 * PyTorch (measured on an H100, driver 580). Never more than a part of what the process was
 * charged: a bare context is 526 MiB on an H100, and many processes that hold nothing are let off nothing. */
static uint64_t managed_of(const struct process *process, unsigned gpus) {
    uint64_t charged = 0;
    for (unsigned gpu = 0; gpu < gpus; gpu++)
        charged += process->bytes[gpu];
    uint64_t other = charged / OTHER_PART < OTHER_MAPPINGS ? charged / OTHER_PART : OTHER_MAPPINGS;
    return process->mapped > other ? process->mapped - other : 0;
}

/* Shares out FOUND, which the processes have mapped beyond the account, by what each has beyond its own slots. Where these
 * say less than that they aren't true, and each answers for all that it has mapped. */
static void blame(unsigned gpus, uint64_t found) {
    struct process *table = process_table();
    uint64_t sum = 0;
    unsigned count = read_slots();
    for (size_t i = 0; i < process_end(); i++)
        table[i].beyond = managed_of(&table[i], gpus);
    for (unsigned i = 0; i < count; i++) {
        struct process *process = process_called((uint32_t)(slots[i].owner >> 32));
        for (unsigned gpu = 0; process && gpu < gpus; gpu++)
            process->beyond -= held(&slots[i], gpu) < process->beyond ? held(&slots[i], gpu) : process->beyond;
    }
    for (size_t i = 0; i < process_end(); i++)
        sum += table[i].beyond;
    for (size_t i = 0; i < process_end(); i++)
        if (!found || sum < found)
            table[i].beyond = found ? managed_of(&table[i], gpus) : 0;
}

/* libvgpu charges before it maps, and credits after it has unmapped: at no moment is more mapped than charged. But a round
 * takes its time, so the account counts as it was at its fullest, and of two rounds the one that found less. */
void managed_check_mappings(unsigned gpus) {
    static int64_t next;
    static uint64_t most, found;
    static bool under_way;
    if (!under_way && now_ms() < next)
        return;
    uint64_t before = explained(gpus);
    most = under_way && most > before ? most : before;
    under_way = !mappings_look();
    if (under_way)
        return;
    uint64_t after = explained(gpus), mapped = 0, last = found;
    most = most > after ? most : after;
    for (size_t i = 0; i < process_end(); i++)
        mapped += managed_of(&process_table()[i], gpus);
    found = mapped > most ? mapped - most : 0;
    beyond = found < last ? found : last;
    blame(gpus, found);
    next = now_ms() + (found ? 0 : MAPPINGS_MS);
}
