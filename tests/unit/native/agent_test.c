/* The agent's page as libvgpu reads it. usage: agent_test */
#include "account.h"
#include "agent_view.h"
#include "check.h"

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#define MIB ((uint64_t)1 << 20)

static struct agent_page page;
static struct account_page account;

static void test_what_managed_memory_may_come_to(void)
{
    struct account_member me = {.page = &account, .self = identity_self(), .slot = -1};
    atomic_store(&page.gpu[1].share, 1000 * MIB);
    CHECK(agent_left_for_managed(&page, &account, 1) == 500);
    CHECK(agent_left_for_managed(&page, &account, 0) == 0); /* no share */
    atomic_store(&page.gpu[1].used, 601 * MIB);
    CHECK(agent_left_for_managed(&page, &account, 1) == 199);
    CHECK(account_reserve(&me, 1, 100, 199));
    CHECK(agent_left_for_managed(&page, &account, 1) == 299); /* of what is used, 200 MiB are its own */
    CHECK(account_reserve(&me, 1, 199, 299));
    CHECK(account_reserve(&me, 1, 100, 500));
    CHECK(agent_left_for_managed(&page, &account, 1) == 500); /* the agent hasn't looked since then: never below 0 */
    atomic_store(&page.device[1], 600 * MIB);
    CHECK(agent_left_for_managed(&page, &account, 1) == 200); /* one that says so needs no subtraction */
    atomic_store(&page.device[1], 2000 * MIB);
    CHECK(agent_left_for_managed(&page, &account, 1) == 0);
}

static void test_a_count_out_of_bounds(void)
{
    struct figures figures;
    atomic_store(&page.process_count, UINT64_MAX);
    CHECK(agent_processes(&page, 0, &figures) && figures.count == AGENT_PROCESSES);
    free(figures.list);
    atomic_store(&page.process_count, 0);
}

/* ---- a list that is written while it is read ------------------------------------------------------------------- */

static _Atomic bool stop;

/* Lists that are all of one number, each as long as it. */
static void *write_lists(void *unused)
{
    for (uint32_t n = 1; !atomic_load(&stop); n = n % 200 + 1) {
        atomic_fetch_add(&page.sequence, 1);
        atomic_store(&page.process_count, n);
        for (uint32_t i = 0; i < n; i++) {
            atomic_store(&page.process[i].pid, n);
            atomic_store(&page.process[i].gpu, n % 2);
            atomic_store(&page.process[i].bytes, n);
        }
        atomic_fetch_add(&page.sequence, 1);
        struct timespec rest = {.tv_nsec = 20000};
        nanosleep(&rest, NULL);
    }
    return unused;
}

static void test_a_list_of_one_moment(void)
{
    pthread_t writer;
    CHECK(pthread_create(&writer, NULL, write_lists, NULL) == 0);
    for (int round = 0; round < 2000; round++) {
        struct figures figures;
        CHECK(agent_processes(&page, 1, &figures));
        for (size_t i = 0; i < figures.count; i++)
            CHECK(figures.list[i].pid == figures.count && figures.list[i].bytes == figures.count);
        free(figures.list);
    }
    atomic_store(&stop, true);
    pthread_join(writer, NULL);
}

int main(void)
{
    CHECK(!agent_view());
    agent_page_mapped = &page;
    CHECK(!agent_view()); /* it is there, but the agent isn't */
    atomic_store(&page.magic, AGENT_PAGE_MAGIC);
    CHECK(agent_view() == &page);
    test_what_managed_memory_may_come_to();
    test_a_count_out_of_bounds();
    test_a_list_of_one_moment();
    return 0;
}
