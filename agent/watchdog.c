#include "watchdog.h"
#include "clock.h"
#include "journal.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 500
/* Ticks. A page that a host short of memory fetches from a slow disk may take seconds; tests have less time. */
#ifndef PATIENCE
#define PATIENCE 20
#endif

static const struct process *_Atomic waited_for;
static _Atomic uint64_t waits;  /* so far: the same one at two ticks has lasted that long */
static _Atomic uint32_t awake; /* a thread that sleeps in the kernel is woken through it */
static pthread_mutex_t acting = PTHREAD_MUTEX_INITIALIZER; /* who was waited for isn't forgotten meanwhile */

void watchdog_enter(const struct process *process) {
    atomic_store(&waited_for, process);
    atomic_fetch_add(&waits, 1);
    if (atomic_load(&awake))
        return;
    atomic_store(&awake, 1);
    (void)syscall(SYS_futex, &awake, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void watchdog_leave(void) {
    (void)pthread_mutex_lock(&acting);
    atomic_store_explicit(&waited_for, NULL, memory_order_release);
    (void)pthread_mutex_unlock(&acting);
}

/* Without CPU time while nobody asks for anything. */
static void sleep_until_entered(uint64_t seen) {
    atomic_store(&awake, 0);
    if (atomic_load(&waits) != seen)
        return; /* entered meanwhile, and perhaps before it could see that it has to wake us */
    while (!atomic_load(&awake))
        (void)syscall(SYS_futex, &awake, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static void end_all(void) {
    const struct process *table = process_table();
    for (size_t i = 0; i < process_end(); i++)
        if (table[i].pid)
            (void)pidfd_kill(table[i].handle);
}

/* One process after the other could keep us waiting: the second within a minute is no accident. */
#define REPEATED_MS 60000

static bool is_repeated(void) {
    static int64_t before = -REPEATED_MS;
    int64_t since = now_ms() - before;
    before += since;
    return since < REPEATED_MS;
}

/* The table holds still: whoever changes it waits, at last for us. First goes the one whose page it is, with which a
 * userfaultfd of its own closes. Another process can hold that, or serve the file system: then what each of them may have
 * taken around us comes back with them, and at last the agent ends, without which nobody gets more. */
static void act(const struct process *process, unsigned ticks) {
    if (ticks == PATIENCE && !is_repeated()) {
        journal("process %d was ended: its memory kept the agent waiting for %d ms", (int)process->pid,
                PATIENCE * TICK_MS);
        (void)pidfd_kill(process->handle);
    } else if (ticks == PATIENCE || ticks == PATIENCE + 1) {
        journal("all processes that asked for device memory were ended: the memory of process %d keeps the agent "
                "waiting",
                (int)process->pid);
        end_all();
    } else if (ticks > PATIENCE + 1) {
        journal("the agent ends, since nothing else ends its wait: its container gets no more device memory");
        _exit(1);
    }
}

/* Who uses a processor isn't stuck: its address space stays locked while a process of 384 GiB forks (3.4 s of one processor)
 * or pins memory. Another thread can burn time as well, so that isn't waited for without end. */
#define BUSY_MS 60
#define BUSY_PATIENCE 40

static bool is_busy(const struct process *process) {
    static int64_t before;
    struct timespec used = {0};
    (void)clock_gettime((clockid_t)(~(uint32_t)process->pid << 3 | 2), &used); /* its CPU time: clock_getcpuclockid(3) */
    int64_t now = (int64_t)used.tv_sec * 1000 + used.tv_nsec / 1000000, more = now - before;
    before = now;
    return more >= BUSY_MS;
}

_Noreturn static void *watch(void *unused) {
    (void)unused;
    const struct timespec tick = {.tv_nsec = TICK_MS * 1000000l};
    uint64_t seen = 0;
    for (unsigned ticks = 0, waited = 0;;) {
        (void)nanosleep(&tick, NULL);
        (void)pthread_mutex_lock(&acting);
        const struct process *process = atomic_load(&waited_for);
        uint64_t now = atomic_load(&waits);
        bool same = process && now == seen;
        waited = same ? waited + 1 : 0;
        bool counts = same && !(is_busy(process) && waited < BUSY_PATIENCE);
        ticks = same ? ticks + counts : 0;
        if (counts)
            act(process, ticks);
        (void)pthread_mutex_unlock(&acting);
        if (!process && now == seen)
            sleep_until_entered(now);
        seen = now;
    }
}

bool watchdog_start(void) {
    pthread_t thread;
    return pthread_create(&thread, NULL, watch, NULL) == 0;
}
