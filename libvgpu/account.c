/* One change of the account is three steps, and whoever comes next can finish it:
 *
 *   1. intent: the process writes into its slot what it is about to do, with the next sequence number;
 *   2. total:  one compare-and-swap puts the new total, the slot's number and that sequence number into the GPU's
 *              word. This is the moment at which the change happens;
 *   3. held:   one compare-and-swap brings the slot's sum to that sequence number.
 *
 * Before anybody replaces the word, it does step 3 for the slot that the word names, if that isn't done. So at
 * every moment the total is the sum of what the slots hold, plus at most one change, which the word names. A
 * process that dies between two steps leaves nothing in doubt, and one that is stopped there stops nobody.
 *
 * Only a slot's owner starts changes on it. The owner of a dead process's slot is whoever puts its own name in
 * place of the dead one's; it gives back what the slot holds by the same three steps, and then frees it.
 * A sequence number has 30 bits: to be taken for an old one, a process would have to be stopped inside a step
 * while the same slot made exactly 2^30 changes and came back to the same sum. */
#include "account.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEQUENCE_BITS ACCOUNT_HELD_SHIFT
#define SEQUENCE_MASK (((uint64_t)1 << SEQUENCE_BITS) - 1)
#define SLOT_BITS 10
#define TOTAL_SHIFT ACCOUNT_TOTAL_SHIFT
#define TOTAL_MAX (((uint64_t)1 << (64 - TOTAL_SHIFT)) - 1)

_Static_assert(ACCOUNT_SLOTS == 1 << SLOT_BITS && TOTAL_SHIFT == SEQUENCE_BITS + SLOT_BITS,
               "a slot's number fits the total's word exactly");

static uint64_t sequence(uint64_t word)
{
    return word & SEQUENCE_MASK;
}

static uint64_t amount(uint64_t held)
{
    return held >> SEQUENCE_BITS;
}

/* Amounts are kept modulo 2^34, so that adding a negative intent subtracts. */
static uint64_t share_word(uint64_t granule_count, uint64_t seq)
{
    return granule_count << SEQUENCE_BITS | seq;
}

static unsigned changer(uint64_t total)
{
    return (unsigned)(total >> SEQUENCE_BITS) & (ACCOUNT_SLOTS - 1);
}

/* Does step 3 of the change that TOTAL names, if it isn't done. */
static void finish(struct account_page *page, unsigned gpu, uint64_t total)
{
    struct account_share *share = &page->slot[changer(total)].gpu[gpu];
    uint64_t held = atomic_load(&share->held);
    if (sequence(held) == sequence(total))
        return;
    uint64_t intent = atomic_load(&share->intent);
    if (sequence(intent) != sequence(total))
        return; /* it was done, and the slot has gone on, since TOTAL was read */
    atomic_compare_exchange_strong(&share->held, &held,
                                   share_word(amount(held) + amount(intent), sequence(total)));
}

/* The GPU's word, with the change that it names finished. */
static uint64_t settled_total(struct account_page *page, unsigned gpu)
{
    uint64_t total = atomic_load(&page->total[gpu]);
    finish(page, gpu, total);
    return total;
}

/* Up to a microsecond's rest after somebody else was faster. That one most likely goes on: with the word's cache line
 * going to and fro at each step, two processors together make half as many changes (measured: 5 million pairs a second
 * instead of 10, by 16 processes on 2 processors). */
static void rest(void)
{
    for (int i = 0; i < 16; i++) {
#if defined __x86_64__
        __asm__ volatile("pause");
#elif defined __aarch64__
        __asm__ volatile("isb");
#endif
    }
}

/* Changes what SLOT holds by DELTA granules, if the total stays within CEILING or gets smaller. TOTAL is the GPU's word
 * as it was read last, and the change that it names is finished: for SLOT itself that may be one of a former owner. */
static bool change(struct account_page *page, unsigned slot, unsigned gpu, uint64_t total, int64_t delta, uint64_t ceiling)
{
    struct account_share *share = &page->slot[slot].gpu[gpu];
    uint64_t seq = (sequence(atomic_load(&share->held)) + 1) & SEQUENCE_MASK;
    atomic_store_explicit(&share->intent, share_word((uint64_t)delta, seq), memory_order_release);
    for (;;) {
        uint64_t sum = (total >> TOTAL_SHIFT) + (uint64_t)delta;
        if (delta > 0 && (sum > ceiling || sum > TOTAL_MAX))
            return false;
        uint64_t wanted = sum << TOTAL_SHIFT | (uint64_t)slot << SEQUENCE_BITS | seq;
        if (atomic_compare_exchange_weak(&page->total[gpu], &total, wanted)) {
            finish(page, gpu, wanted);
            return true;
        }
        rest();
        total = settled_total(page, gpu);
    }
}

/* The page is writable by whatever runs in the container: an amount read from it is checked before it is used. */
static void give_back(struct account_page *page, unsigned slot, unsigned gpu, uint64_t count)
{
    uint64_t total = settled_total(page, gpu), held = account_held(page, slot, gpu);
    if (count > held)
        count = held;
    if (count > total >> TOTAL_SHIFT)
        count = total >> TOTAL_SHIFT;
    if (count)
        change(page, slot, gpu, total, -(int64_t)count, 0);
}

static void empty_slot(struct account_page *page, unsigned slot)
{
    for (unsigned gpu = 0; gpu < ACCOUNT_GPUS; gpu++) {
        settled_total(page, gpu);
        give_back(page, slot, gpu, account_held(page, slot, gpu));
        atomic_store(&page->slot[slot].aside[gpu], 0);
    }
}

unsigned account_slots(const struct account_page *page)
{
    uint64_t count = atomic_load(&page->slots);
    return count < ACCOUNT_SLOTS ? (unsigned)count : ACCOUNT_SLOTS;
}

static void raise_slots(struct account_page *page, uint64_t count)
{
    uint64_t seen = atomic_load(&page->slots);
    while (seen < count && !atomic_compare_exchange_weak(&page->slots, &seen, count)) {
    }
}

struct account_page *account_map(const char *path, bool writable)
{
    struct stat st;
    int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    void *page = MAP_FAILED;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= (off_t)sizeof(struct account_page))
        page = mmap(NULL, sizeof(struct account_page), PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    close(fd);
    return page == MAP_FAILED ? NULL : page;
}

/* Makes SELF the owner of SLOT if OWNER still is. Until pid_ns is written nobody takes SELF for dead: a free slot
 * has none, and a dead process's slot is only taken by one of the same namespace. */
static bool take(struct account_slot *slot, const struct identity *self, uint64_t owner)
{
    if (!atomic_compare_exchange_strong(&slot->owner, &owner, self->owner))
        return false;
    atomic_store(&slot->pid_ns, self->pid_ns);
    atomic_store(&slot->image, self->image);
    return true;
}

static void set_free(struct account_slot *slot)
{
    atomic_store(&slot->pid_ns, 0);
    atomic_store(&slot->owner, 0);
}

/* A slot that this process had before an exec: the driver took back what it held. */
static bool is_former_self(const struct account_slot *slot, const struct identity *self, uint64_t owner)
{
    return owner == self->owner && atomic_load(&slot->pid_ns) == self->pid_ns &&
           atomic_load(&slot->image) != self->image; /* at the same addresses: where they aren't random */
}

static bool is_left(const struct account_slot *slot, const struct identity *self)
{
    uint64_t owner = atomic_load(&slot->owner);
    return owner && (is_former_self(slot, self, owner) ||
                     (owner != self->owner && identity_is_dead(self, owner, atomic_load(&slot->pid_ns))));
}

bool account_join(struct account_member *member)
{
    if (member->slot >= 0)
        return true;
    if (!member->self.owner)
        return false;
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < ACCOUNT_SLOTS; i++) {
            if (take(&member->page->slot[i], &member->self, 0)) {
                member->slot = (int)i;
                raise_slots(member->page, i + 1);
                account_reclaim(member); /* what this process held before an exec, among others */
                return true;
            }
        }
        if (!account_reclaim(member))
            return false;
    }
    return false;
}

bool account_reserve(struct account_member *member, unsigned gpu, uint64_t count, uint64_t ceiling)
{
    if (count > TOTAL_MAX || !account_join(member))
        return false;
    uint64_t total = settled_total(member->page, gpu);
    return change(member->page, (unsigned)member->slot, gpu, total, (int64_t)count, ceiling);
}

void account_release(struct account_member *member, unsigned gpu, uint64_t count)
{
    if (member->slot >= 0)
        give_back(member->page, (unsigned)member->slot, gpu, count);
}

bool account_reclaim(struct account_member *member)
{
    bool any = false;
    for (unsigned i = 0; i < account_slots(member->page); i++) {
        struct account_slot *slot = &member->page->slot[i];
        uint64_t owner = atomic_load(&slot->owner);
        if ((int)i == member->slot || !is_left(slot, &member->self) || !take(slot, &member->self, owner))
            continue;
        empty_slot(member->page, i);
        set_free(slot);
        any = true;
    }
    return any;
}

uint64_t account_total(const struct account_page *page, unsigned gpu)
{
    return atomic_load(&page->total[gpu]) >> TOTAL_SHIFT;
}

uint64_t account_left(const struct account_page *page, const struct identity *self, unsigned gpu)
{
    uint64_t left = 0;
    for (unsigned i = 0; i < account_slots(page); i++) {
        uint64_t held = account_held(page, i, gpu);
        if (held && is_left(&page->slot[i], self))
            left += held;
    }
    return left;
}

int account_find(const struct account_page *page, const struct identity *self, uint32_t pid)
{
    for (unsigned i = 0; i < account_slots(page); i++) {
        const struct account_slot *slot = &page->slot[i];
        uint64_t owner = atomic_load(&slot->owner);
        if (owner && identity_pid(owner) == pid && atomic_load(&slot->pid_ns) == self->pid_ns &&
            !is_left(slot, self))
            return (int)i;
    }
    return -1;
}

uint64_t account_held(const struct account_page *page, unsigned slot, unsigned gpu)
{
    return amount(atomic_load(&page->slot[slot].gpu[gpu].held));
}
