/* Processes that reserve and release on one account, as fast as they can. usage: account_pairs PROCESSES MILLISECONDS
 * Prints the pairs a second, of all together. */
#include "account.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES_MOST 1000

struct shared {
    struct account_page page;
    _Atomic int ready, over;
    uint64_t pairs[PROCESSES_MOST];
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void work(struct shared *shared, int number)
{
    struct account_member me = {.page = &shared->page, .self = identity_self(), .slot = -1};
    uint64_t pairs = 0;
    account_join(&me);
    atomic_fetch_add(&shared->ready, 1);
    while (!atomic_load_explicit(&shared->over, memory_order_relaxed)) {
        if (!account_reserve(&me, 0, 1, 1 << 20))
            _exit(1);
        account_release(&me, 0, 1);
        pairs++;
    }
    shared->pairs[number] = pairs;
    _exit(0);
}

int main(int argc, char **argv)
{
    int processes = argc > 2 ? atoi(argv[1]) : 16, status, failed = 0;
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || processes < 1 || processes > PROCESSES_MOST)
        return 2;
    for (int i = 0; i < processes; i++)
        if (fork() == 0)
            work(shared, i);
    while (atomic_load(&shared->ready) < processes)
        usleep(1000);
    double start = now();
    usleep((unsigned)atoi(argc > 2 ? argv[2] : "500") * 1000);
    atomic_store(&shared->over, 1);
    double taken = now() - start;
    uint64_t pairs = 0;
    while (wait(&status) > 0)
        failed |= status;
    for (int i = 0; i < processes; i++)
        pairs += shared->pairs[i];
    printf("%.0f\n", (double)pairs / taken);
    return failed || account_total(&shared->page, 0);
}
