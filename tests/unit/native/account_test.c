/* The container's account, by real processes on one page. usage: account_test TEST [COUNT] */
#include "account.h"
#include "check.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static struct account_page *new_page(void)
{
    void *page = mmap(NULL, sizeof(struct account_page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    return page;
}

static struct account_member new_member(struct account_page *page)
{
    return (struct account_member){.page = page, .self = identity_self(), .slot = -1};
}

static uint64_t sum_of_slots(const struct account_page *page, unsigned gpu)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < account_slots(page); i++)
        sum += account_held(page, i, gpu);
    return sum;
}

static void wait_for(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) != child)
        CHECK(errno == EINTR);
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0) || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
}

static void test_one_process(void)
{
    struct account_page *page = new_page();
    struct account_member me = new_member(page);
    CHECK(account_reserve(&me, 0, 10, 10));
    CHECK(!account_reserve(&me, 0, 1, 10));
    CHECK(account_reserve(&me, 1, 1, 1)); /* another GPU's account is another account */
    account_release(&me, 0, 3);
    CHECK(account_total(page, 0) == 7 && account_held(page, (unsigned)me.slot, 0) == 7);
    CHECK(account_reserve(&me, 0, 3, 10) && !account_reserve(&me, 0, 1, 10));
    account_release(&me, 0, 1000); /* more than it holds: what it holds */
    CHECK(account_total(page, 0) == 0 && account_total(page, 1) == 1);
    CHECK(!account_reserve(&me, 0, UINT64_MAX, UINT64_MAX) && !account_reserve(&me, 0, UINT64_MAX >> 21, 5));
}

/* Of CHILDREN processes that want the last granule at the same moment, exactly one gets it. */
static void test_last_granule(int rounds)
{
    enum { CHILDREN = 8 };
    for (int round = 0; round < rounds; round++) {
        struct account_page *page = new_page();
        struct account_member me = new_member(page);
        _Atomic int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(account_reserve(&me, 0, 99, 100));
        pid_t children[CHILDREN];
        for (int i = 0; i < CHILDREN; i++) {
            children[i] = fork();
            if (children[i] == 0) {
                struct account_member child = new_member(page);
                CHECK(account_join(&child));
                atomic_fetch_add(&shared[0], 1);
                while (atomic_load(&shared[0]) < CHILDREN) {
                }
                if (account_reserve(&child, 0, 1, 100))
                    atomic_fetch_add(&shared[1], 1);
                _exit(0);
            }
        }
        for (int i = 0; i < CHILDREN; i++)
            wait_for(children[i]);
        CHECK(atomic_load(&shared[1]) == 1 && account_total(page, 0) == 100);
        munmap((void *)shared, 4096);
        munmap(page, sizeof *page);
    }
}

static _Noreturn void work(struct account_page *page, unsigned seed, int changes, uint64_t ceiling)
{
    struct account_member me = new_member(page);
    uint64_t mine = 0;
    for (int i = 0; i < changes; i++) {
        uint64_t count = (uint64_t)(rand_r(&seed) % 7);
        if (rand_r(&seed) % 2) {
            if (account_reserve(&me, 0, count, ceiling))
                mine += count;
        } else if (count <= mine) {
            account_release(&me, 0, count);
            mine -= count;
        }
        CHECK(account_total(page, 0) <= ceiling);
        CHECK(me.slot < 0 || account_held(page, (unsigned)me.slot, 0) == mine);
    }
    _exit(0);
}

/* Processes come, change the account at random and are killed at random; what remains is nobody's, and goes back. */
static void test_killed_at_random(int rounds)
{
    enum { PROCESSES = 6, CEILING = 40 };
    struct account_page *page = new_page();
    struct account_member me = new_member(page);
    unsigned seed = 1;
    for (int round = 0; round < rounds; round++) {
        pid_t children[PROCESSES];
        for (int i = 0; i < PROCESSES; i++) {
            children[i] = fork();
            if (children[i] == 0)
                work(page, (unsigned)(round * PROCESSES + i), 2000, CEILING);
        }
        usleep((unsigned)rand_r(&seed) % 2000);
        for (int i = 0; i < PROCESSES; i++)
            if (rand_r(&seed) % 2)
                kill(children[i], SIGKILL);
        for (int i = 0; i < PROCESSES; i++)
            wait_for(children[i]);
        account_reclaim(&me);
        CHECK(account_reserve(&me, 0, CEILING, CEILING)); /* all of it is there again, and not one granule more */
        CHECK(!account_reserve(&me, 0, 1, CEILING));
        CHECK(sum_of_slots(page, 0) == CEILING);
        account_release(&me, 0, CEILING);
    }
}

/* What a process is killed in. */
static void reserve_and_release(struct account_member *me)
{
    account_reserve(me, 0, 7, 100);
    account_release(me, 0, 3);
}

/* Whoever joins gives back the 20 granules of a dead process. */
static void join_and_reclaim(struct account_member *me)
{
    account_join(me);
}

static void die_with_20(struct account_page *page)
{
    pid_t child = fork();
    if (child == 0) {
        struct account_member me = new_member(page);
        CHECK(account_reserve(&me, 0, 20, 100));
        _exit(0);
    }
    wait_for(child);
}

/* Steps through INSTRUCTION instructions of a child's work; false when that is all. */
static bool stopped_at(struct account_page *page, void (*part)(struct account_member *), long instruction, pid_t *child)
{
    *child = fork();
    if (*child == 0) {
        struct account_member me = new_member(page);
        CHECK(part == join_and_reclaim || account_reserve(&me, 0, 5, 100));
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        part(&me);
        _exit(0);
    }
    int status;
    CHECK(waitpid(*child, &status, 0) == *child && WIFSTOPPED(status));
    for (long i = 0; i < instruction; i++) {
        CHECK(ptrace(PTRACE_SINGLESTEP, *child, NULL, NULL) == 0);
        CHECK(waitpid(*child, &status, 0) == *child);
        if (WIFEXITED(status))
            return false;
    }
    return true;
}

/* Kills a process at its Nth instruction inside PART, for every N: nothing may be in doubt after, and while it stands
 * there nobody is held up. */
static bool dies_at(struct account_page *page, void (*part)(struct account_member *), long instruction)
{
    pid_t child;
    if (part == join_and_reclaim)
        die_with_20(page);
    if (!stopped_at(page, part, instruction, &child))
        return false;
    struct account_member other = new_member(page);
    CHECK(account_reserve(&other, 0, 1, 100));
    account_release(&other, 0, 1);
    uint64_t held = sum_of_slots(page, 0);
    CHECK(held == account_total(page, 0) && (part == join_and_reclaim ? held % 20 == 0 : held == 5 || held == 12 || held == 9));
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(account_reserve(&other, 0, 1, 100));
    account_reclaim(&other);
    CHECK(account_total(page, 0) == 1 && sum_of_slots(page, 0) == 1);
    account_release(&other, 0, 1);
    atomic_store(&page->slot[other.slot].owner, 0);
    return true;
}

static void test_killed_at_every_instruction(int step)
{
    struct account_page *page = new_page();
    long instruction = 0;
    while (dies_at(page, reserve_and_release, instruction))
        instruction += step;
    CHECK(instruction > 200);
    for (instruction = 0; dies_at(page, join_and_reclaim, instruction);)
        instruction += 20 * step;
    CHECK(instruction > 1000);
}

/* A process that ends, one that is only a zombie, and one of another image: what each held comes back. */
static void test_reclaim(void)
{
    struct account_page *page = new_page();
    struct account_member me = new_member(page);
    CHECK(account_reserve(&me, 0, 1, 10));
    pid_t child = fork();
    if (child == 0) {
        struct account_member other = new_member(page);
        CHECK(account_reserve(&other, 0, 9, 10));
        _exit(0);
    }
    while (account_total(page, 0) < 10) {
    }
    siginfo_t info;
    CHECK(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0); /* it stays a zombie */
    CHECK(account_left(page, &me.self, 0) == 9 && account_total(page, 0) == 10);
    CHECK(!account_reserve(&me, 0, 1, 10));
    CHECK(account_reclaim(&me) && account_reserve(&me, 0, 9, 10));
    wait_for(child);

    struct account_member again = new_member(page); /* the same process after an exec */
    again.self.image++;
    CHECK(account_join(&again) && account_total(page, 0) == 0);
}

static void test_all_slots_taken(void)
{
    struct account_page *page = new_page();
    struct account_member me = new_member(page);
    for (unsigned i = 0; i < ACCOUNT_SLOTS; i++) {
        struct identity self = identity_self();
        atomic_store(&page->slot[i].owner, self.owner);
        atomic_store(&page->slot[i].pid_ns, self.pid_ns);
        atomic_store(&page->slot[i].image, self.image);
    }
    atomic_store(&page->slots, ACCOUNT_SLOTS);
    CHECK(!account_reserve(&me, 0, 1, 10));
    atomic_store(&page->slot[7].owner, 0);
    CHECK(account_reserve(&me, 0, 1, 10) && me.slot == 7);
}

/* The page can be written by anything in the container: whatever stands in it, calls return. */
static void test_hostile_page(int rounds)
{
    struct account_page *page = new_page();
    unsigned seed = 3;
    for (int round = 0; round < rounds; round++) {
        uint64_t *words = (uint64_t *)page;
        for (size_t i = 0; i < sizeof *page / sizeof *words; i++)
            words[i] = (uint64_t)(unsigned)rand_r(&seed) << 33 ^ (uint64_t)(unsigned)rand_r(&seed);
        struct account_member me = new_member(page);
        account_reserve(&me, 3, 5, 10);
        account_release(&me, 3, 5);
        account_reclaim(&me);
        account_left(page, &me.self, 3);
    }
}

int main(int argc, char **argv)
{
    const char *test = argc > 1 ? argv[1] : "";
    int count = argc > 2 ? atoi(argv[2]) : 1;
    if (!strcmp(test, "one_process"))
        test_one_process();
    else if (!strcmp(test, "last_granule"))
        test_last_granule(count);
    else if (!strcmp(test, "killed_at_random"))
        test_killed_at_random(count);
    else if (!strcmp(test, "killed_at_every_instruction"))
        test_killed_at_every_instruction(count);
    else if (!strcmp(test, "reclaim"))
        test_reclaim();
    else if (!strcmp(test, "all_slots_taken"))
        test_all_slots_taken();
    else if (!strcmp(test, "hostile_page"))
        test_hostile_page(count);
    else
        CHECK(!"a test of that name");
    return 0;
}
