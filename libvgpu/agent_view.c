#include "agent_view.h"
#include "account.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

const struct agent_page *agent_page_mapped;

__attribute__((constructor)) static void map_page(void)
{
    struct stat st;
    int fd = open(RUNAI_DIR "/page", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    void *page = MAP_FAILED;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= AGENT_PAGE_BYTES)
        page = mmap(NULL, AGENT_PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    agent_page_mapped = page == MAP_FAILED ? NULL : page;
}

uint64_t agent_left_for_managed(const struct agent_page *page, const struct account_page *account, unsigned gpu)
{
    uint64_t share = agent_share(page, gpu), beside = atomic_load(&page->device[gpu]);
    uint64_t used = agent_used(page, gpu), managed = account_total(account, gpu) << ACCOUNT_GRANULE_SHIFT;
    if (!beside) /* an agent that doesn't say */
        beside = used > managed ? used - managed : 0;
    return beside < share ? (share - beside) >> ACCOUNT_GRANULE_SHIFT : 0;
}

static size_t process_count(const struct agent_page *page)
{
    uint64_t count = atomic_load(&page->process_count);
    return count < AGENT_PROCESSES ? (size_t)count : AGENT_PROCESSES;
}

/* The processes on GPU into FIGURES, which has room for all. */
static void copy(const struct agent_page *page, unsigned gpu, struct figures *figures)
{
    size_t count = process_count(page);
    figures->count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct agent_process *process = &page->process[i];
        if (atomic_load(&process->gpu) == gpu)
            figures->list[figures->count++] =
                (struct process_figure){atomic_load(&process->pid), atomic_load(&process->bytes), NO_INSTANCE, NO_INSTANCE};
    }
}

/* The agent writes its list in some µs. If it lost its processor meanwhile, it gets it within milliseconds; if it was
   killed, never: then the list is what there is. */
#define ROUNDS 400
#define ROUNDS_AWAKE 200
static const struct timespec NAP = {.tv_nsec = 100000};

bool agent_processes(const struct agent_page *page, unsigned gpu, struct figures *figures)
{
    *figures = (struct figures){.list = calloc(AGENT_PROCESSES, sizeof *figures->list)};
    if (!figures->list)
        return false;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t before = atomic_load(&page->sequence);
        if (!(before & 1)) {
            copy(page, gpu, figures);
            if (atomic_load(&page->sequence) == before)
                return true;
        }
        if (round < ROUNDS_AWAKE)
            sched_yield();
        else
            nanosleep(&NAP, NULL);
    }
    copy(page, gpu, figures);
    return true;
}
