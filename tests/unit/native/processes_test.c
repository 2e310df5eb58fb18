/* NVML's process lists, over a driver that is scripted here. usage: processes_test (RUNAI_DIR: an empty folder) */
#include "account.h"
#include "agent_view.h"
#include "check.h"
#include "outside.h"
#include "real.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)
#define SHARE (1024 * MIB)
#define CONTEXT (64 * MIB)
#define LISTED (54 * MIB) /* of a bare context, in NVML's figure */
#define MOST 3000

/* ---- the driver ------------------------------------------------------------------------------------------------ */

/* All that it knows. GROWS: so many more processes each time it is asked. */
static struct {
    nvmlReturn_t result;
    unsigned count, grows, asked, memory_asked;
    nvmlProcessDetail_v1_t list[MOST];
} driver;

struct nvmlDevice_st {
    const char *uuid;
};

static struct nvmlDevice_st with_share = {"GPU-a"}, without_share = {"GPU-b"};

static void listed(unsigned pid, uint64_t bytes)
{
    driver.list[driver.count++] = (nvmlProcessDetail_v1_t){
        .pid = pid, .usedGpuMemory = bytes, .gpuInstanceId = 3, .computeInstanceId = 5, .usedGpuCcProtectedMemory = 7};
}

static nvmlReturn_t get_uuid(nvmlDevice_t device, char *uuid, unsigned length)
{
    snprintf(uuid, length, "%s", device->uuid);
    return driver.result;
}

static nvmlReturn_t get_memory(nvmlDevice_t device, nvmlMemory_t *memory)
{
    (void)device;
    driver.memory_asked++;
    *memory = (nvmlMemory_t){.total = 4 * SHARE, .free = 3 * SHARE, .used = SHARE};
    return NVML_SUCCESS;
}

/* Whether there is room; else what a list function answers. */
static nvmlReturn_t answer(unsigned *count, const void *infos, unsigned *room)
{
    if (!count || (*count && !infos))
        return NVML_ERROR_INVALID_ARGUMENT;
    driver.asked++;
    for (unsigned i = 0; i < driver.grows; i++)
        listed(900000 + driver.count, MIB);
    *room = *count;
    *count = driver.count;
    return driver.result ? driver.result : *room < driver.count ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

static nvmlReturn_t list_v1(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_v1_t *infos)
{
    unsigned room;
    nvmlReturn_t result = answer(count, infos, &room);
    (void)device;
    for (unsigned i = 0; result == NVML_SUCCESS && i < driver.count; i++)
        infos[i] = (nvmlProcessInfo_v1_t){driver.list[i].pid, driver.list[i].usedGpuMemory};
    return result;
}

static nvmlReturn_t list_v2(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_v2_t *infos)
{
    unsigned room;
    nvmlReturn_t result = answer(count, infos, &room);
    (void)device;
    for (unsigned i = 0; result == NVML_SUCCESS && i < driver.count; i++)
        infos[i] = (nvmlProcessInfo_v2_t){driver.list[i].pid, driver.list[i].usedGpuMemory, 3, 5};
    return result;
}

static nvmlReturn_t details(nvmlDevice_t device, nvmlProcessDetailList_t *all)
{
    unsigned room;
    (void)device;
    if (!all || all->version != nvmlProcessDetailList_v1 || all->mode != NVML_PROCESS_MODE_ALL)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t result = answer(&all->numProcArrayEntries, all->procArray, &room);
    if (result == NVML_SUCCESS)
        memcpy(all->procArray, driver.list, driver.count * sizeof *driver.list);
    return result;
}

static nvmlReturn_t empty(nvmlDevice_t device, unsigned *count, void *infos)
{
    (void)device, (void)infos;
    *count = 0;
    return NVML_SUCCESS;
}

static int missing(void)
{
    return MISSING;
}

struct real libvgpu_real;

/* A driver with the list functions up to that VERSION. */
static void use_driver(int version)
{
    for (void **slot = (void **)&libvgpu_real; slot < (void **)(&libvgpu_real + 1); slot++)
        *slot = (void *)missing;
    libvgpu_real.nvmlDeviceGetUUID = (void *)get_uuid;
    libvgpu_real.nvmlDeviceGetMemoryInfo = (void *)get_memory;
    libvgpu_real.nvmlDeviceGetComputeRunningProcesses = (void *)list_v1;
    if (version >= 2)
        libvgpu_real.nvmlDeviceGetComputeRunningProcesses_v2 = (void *)list_v2;
    if (version < 3)
        return;
    libvgpu_real.nvmlDeviceGetComputeRunningProcesses_v3 = (void *)list_v2;
    libvgpu_real.nvmlDeviceGetGraphicsRunningProcesses_v3 = (void *)list_v2;
    libvgpu_real.nvmlDeviceGetMPSComputeRunningProcesses_v3 = (void *)empty;
    libvgpu_real.nvmlDeviceGetRunningProcessDetailList = (void *)details;
}

/* ---- the container --------------------------------------------------------------------------------------------- */

static struct account_page *page;

static void write_file(const char *path, const void *content, size_t size)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, content, size) == (ssize_t)size);
    close(fd);
}

static void make_container(void)
{
    static const struct account_page nothing;
    char limits[100];
    int length = snprintf(limits, sizeof limits, "GPU-a %lu %lu\n", SHARE, CONTEXT);
    mkdir(RUNAI_DIR "/account", 0700);
    write_file(RUNAI_DIR "/limits", limits, (size_t)length);
    write_file(RUNAI_DIR "/account/page", &nothing, sizeof nothing);
    page = account_map(RUNAI_DIR "/account/page", true);
    CHECK(page);
}

static void hold(uint64_t count, uint64_t contexts, uint64_t managed)
{
    struct account_member me = {.page = page, .self = identity_self(), .slot = -1};
    CHECK(account_reserve(&me, 0, count, SHARE >> ACCOUNT_GRANULE_SHIFT));
    atomic_store(&page->slot[me.slot].aside[0], aside_word(contexts, managed));
}

/* A process of the container that holds that much, until it is ended. */
static pid_t start(uint64_t count, uint64_t contexts, uint64_t managed)
{
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a check that fails must not leave anybody behind */
        hold(count, contexts, managed);
        CHECK(write(ready[1], "x", 1) == 1);
        pause();
    }
    CHECK(child > 0 && read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    close(ready[1]);
    return child;
}

static void end(pid_t child)
{
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
}

static uint64_t used(void)
{
    nvmlMemory_t memory;
    CHECK(nvmlDeviceGetMemoryInfo(&with_share, &memory) == NVML_SUCCESS);
    CHECK(memory.total == SHARE && memory.free == SHARE - memory.used);
    return memory.used;
}

/* ---- the tests ------------------------------------------------------------------------------------------------- */

static pid_t one, two;

/* Two of the container's, among neighbours; the second with 100 MiB of modules, and managed memory. */
static void list_all(unsigned neighbours)
{
    driver.count = driver.asked = 0;
    for (unsigned i = 0; i < neighbours; i++)
        listed(900000 + i, 2048 * MIB);
    listed((unsigned)one, LISTED + 10 * MIB);
    for (unsigned i = 0; i < neighbours; i++)
        listed(950000 + i, 2048 * MIB);
    listed((unsigned)two, LISTED + 100 * MIB);
}

#define HELD_BY_ONE (CONTEXT + 10 * MIB)
#define HELD_BY_TWO (CONTEXT + 20 * MIB + 100 * MIB)

#define CHECK_LIST(function, room)                                                                            \
    do {                                                                                                      \
        unsigned count = (room);                                                                              \
        CHECK(function(&with_share, &count, infos) == NVML_SUCCESS && count == 2);                            \
        CHECK(infos[0].pid == (unsigned)one && infos[0].usedGpuMemory == HELD_BY_ONE);                        \
        CHECK(infos[1].pid == (unsigned)two && infos[1].usedGpuMemory == HELD_BY_TWO);                        \
    } while (0)

static void test_own_processes(unsigned neighbours)
{
    list_all(neighbours);
    {
        nvmlProcessInfo_v1_t infos[3] = {[2] = {.pid = 42}};
        CHECK_LIST(nvmlDeviceGetComputeRunningProcesses, 2);
        CHECK(infos[2].pid == 42 && infos[2].usedGpuMemory == 0); /* nothing beyond the room */
    }
    nvmlProcessInfo_t infos[10] = {[2] = {.pid = 42}};
    CHECK_LIST(nvmlDeviceGetComputeRunningProcesses_v2, 2);
    CHECK_LIST(nvmlDeviceGetComputeRunningProcesses_v3, 2);
    CHECK(infos[2].pid == 42 && infos[1].gpuInstanceId == 3 && infos[1].computeInstanceId == 5);
    CHECK_LIST(nvmlDeviceGetComputeRunningProcesses_v3, 10);
    CHECK_LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, 10);
    unsigned count = 10;
    CHECK(nvmlDeviceGetMPSComputeRunningProcesses_v3(&with_share, &count, infos) == NVML_SUCCESS && count == 0);
    CHECK(used() == HELD_BY_ONE + HELD_BY_TWO);
}

static void test_details(void)
{
    nvmlProcessDetail_v1_t infos[3] = {[2] = {.pid = 42}};
    nvmlProcessDetailList_t all = {nvmlProcessDetailList_v1, NVML_PROCESS_MODE_ALL, 0, NULL};
    list_all(100);
    CHECK(nvmlDeviceGetRunningProcessDetailList(&with_share, &all) == NVML_ERROR_INSUFFICIENT_SIZE);
    CHECK(all.numProcArrayEntries == 2);
    all.procArray = infos;
    CHECK(nvmlDeviceGetRunningProcessDetailList(&with_share, &all) == NVML_SUCCESS && all.numProcArrayEntries == 2);
    CHECK(infos[0].pid == (unsigned)one && infos[0].usedGpuMemory == HELD_BY_ONE);
    CHECK(infos[1].usedGpuMemory == HELD_BY_TWO && infos[1].computeInstanceId == 5);
    CHECK(infos[1].usedGpuCcProtectedMemory == 7 && infos[2].pid == 42);
    all.version++;
    CHECK(nvmlDeviceGetRunningProcessDetailList(&with_share, &all) == NVML_ERROR_INVALID_ARGUMENT);
    CHECK(nvmlDeviceGetRunningProcessDetailList(&with_share, NULL) == NVML_ERROR_INVALID_ARGUMENT);
    all = (nvmlProcessDetailList_t){nvmlProcessDetailList_v1, NVML_PROCESS_MODE_ALL, 3, NULL};
    CHECK(nvmlDeviceGetRunningProcessDetailList(&with_share, &all) == NVML_ERROR_INVALID_ARGUMENT);
}

static void test_conventions(void)
{
    nvmlProcessInfo_t infos[2] = {{.pid = 42}};
    unsigned count = 0;
    list_all(10);
    CHECK(nvmlDeviceGetComputeRunningProcesses_v3(&with_share, &count, NULL) == NVML_ERROR_INSUFFICIENT_SIZE && count == 2);
    count = 1;
    CHECK(nvmlDeviceGetComputeRunningProcesses_v3(&with_share, &count, infos) == NVML_ERROR_INSUFFICIENT_SIZE && count == 2);
    CHECK(infos[0].pid == 42);
    CHECK(nvmlDeviceGetComputeRunningProcesses_v3(&with_share, NULL, infos) == NVML_ERROR_INVALID_ARGUMENT);
    CHECK(nvmlDeviceGetComputeRunningProcesses_v3(&with_share, &count, NULL) == NVML_ERROR_INVALID_ARGUMENT);
    count = 1;
    CHECK(nvmlDeviceGetComputeRunningProcesses_v3(&without_share, &count, infos) == NVML_ERROR_NO_PERMISSION && count == 1);
    driver.count = 0; /* only neighbours, or nobody */
    count = 0;
    CHECK(nvmlDeviceGetComputeRunningProcesses_v3(&with_share, &count, NULL) == NVML_SUCCESS && count == 0);
    driver.result = NVML_ERROR_GPU_IS_LOST;
    count = 2;
    CHECK(nvmlDeviceGetComputeRunningProcesses_v3(&with_share, &count, infos) == NVML_ERROR_GPU_IS_LOST);
    driver.result = NVML_SUCCESS;
}

/* What is there in a list that grows while it is asked for. */
static void test_a_list_that_grows(void)
{
    nvmlProcessInfo_t infos[2];
    list_all(63);
    driver.grows = 30;
    CHECK_LIST(nvmlDeviceGetComputeRunningProcesses_v3, 2);
    driver.grows = 0;
}

static void test_older_drivers(void)
{
    for (int version = 1; version <= 2; version++) {
        nvmlProcessInfo_t infos[2];
        unsigned count = 2;
        use_driver(version);
        CHECK(used() == HELD_BY_ONE + HELD_BY_TWO);
        CHECK(nvmlDeviceGetComputeRunningProcesses_v3(&with_share, &count, infos) == MISSING && count == 2);
        CHECK(nvmlDeviceGetGraphicsRunningProcesses_v2(&with_share, &count, infos) == MISSING);
    }
    use_driver(3);
}

/* The driver's list takes 50 µs: it isn't asked for each time, but whenever somebody comes or goes. */
static void test_memory_is_cheap(void)
{
    usleep(150000);
    list_all(0);
    driver.memory_asked = 0;
    for (int i = 0; i < 1000; i++)
        CHECK(used() == HELD_BY_ONE + HELD_BY_TWO);
    CHECK(driver.memory_asked == 1000 && driver.asked < 20);
    pid_t third = start(50, 1, 0);
    listed((unsigned)third, 98 * MIB);
    CHECK(used() == HELD_BY_ONE + HELD_BY_TWO + 108 * MIB); /* 98 + 8 + 1, in blocks */
    end(third);
    driver.count--;
    usleep(150000);
    CHECK(used() == HELD_BY_ONE + HELD_BY_TWO);
}

/* A child that was forked is another one: its own memory isn't its parent's. */
static void test_fork(void)
{
    CHECK(used() == HELD_BY_ONE + HELD_BY_TWO);
    pid_t child = fork();
    if (child == 0) {
        hold(32, 1, 0);
        list_all(5);
        listed((unsigned)getpid(), LISTED);
        nvmlProcessInfo_t infos[3];
        unsigned count = 3;
        CHECK(nvmlDeviceGetComputeRunningProcesses_v3(&with_share, &count, infos) == NVML_SUCCESS && count == 3);
        CHECK(infos[2].pid == (unsigned)getpid() && infos[2].usedGpuMemory == CONTEXT);
        CHECK(used() == HELD_BY_ONE + HELD_BY_TWO + CONTEXT);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* ---- nvidia-smi's table ---------------------------------------------------------------------------------------- */

nvmlReturn_t nvmlInternalGetExportTable(const void **table, const void *id);

static const unsigned char with_lists[16] = {0xc4, 0xfe, 0x3e, 0x6c, 0xc9, 0x8f, 0x6c, 0x4e,
                                             0xa3, 0x27, 0xee, 0x69, 0x6e, 0x12, 0xf7, 0xc4};
static const void *exported[270];

struct internal_record {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
    unsigned long long protected;
    char name[4096];
};

static nvmlReturn_t internal_list(nvmlDevice_t device, unsigned *count, struct internal_record *records)
{
    unsigned room;
    nvmlReturn_t result = answer(count, records, &room);
    (void)device;
    for (unsigned i = 0; result == NVML_SUCCESS && i < driver.count; i++)
        records[i] = (struct internal_record){
            .pid = driver.list[i].pid, .bytes = driver.list[i].usedGpuMemory, .gpu_instance = 3, .name = "a program"};
    return result;
}

static nvmlReturn_t export_table(const void **table, const void *id)
{
    if (!table || !id)
        return NVML_ERROR_INVALID_ARGUMENT;
    *table = exported;
    return NVML_SUCCESS;
}

static void write_version(const char *version)
{
    write_file(RUNAI_DRIVER_VERSION, version, strlen(version));
}

static const void *const *ask_for_table(const unsigned char *id)
{
    const void *table = NULL;
    CHECK(nvmlInternalGetExportTable(&table, id) == NVML_SUCCESS);
    return table;
}

static void test_export_table(void)
{
    static struct internal_record records[16];
    const unsigned char other[16] = {1};
    libvgpu_real.nvmlInternalGetExportTable = (void *)export_table;
    exported[0] = (void *)sizeof exported;
    for (size_t i = 1; i < sizeof exported / sizeof *exported; i++)
        exported[i] = (void *)internal_list;
    CHECK(ask_for_table(with_lists) == exported); /* no version at all */
    const char *const unknown[] = {"NVRM version:  580.159.05  Release\n", "GCC version:  580.159.04", "", "\n 580.159.04 \n"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        write_version(unknown[i]);
        CHECK(ask_for_table(with_lists) == exported);
    }
    write_version("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\nGCC version\n");
    exported[0] = (void *)(sizeof exported - 8); /* a table of another layout */
    CHECK(ask_for_table(with_lists) == exported);
    exported[0] = (void *)sizeof exported;
    CHECK(ask_for_table(other) == exported);
    CHECK(nvmlInternalGetExportTable(NULL, with_lists) == NVML_ERROR_INVALID_ARGUMENT);
    const void *const *table = ask_for_table(with_lists);
    CHECK(table != exported && ask_for_table(with_lists) == table);
    list_all(5);
    for (size_t i = 0; i < sizeof exported / sizeof *exported; i++) {
        bool is_list = i >= 213 && i <= 215;
        CHECK((table[i] == exported[i]) == !is_list);
        if (!is_list)
            continue;
        unsigned count = 16;
        __typeof__(&internal_list) list = (__typeof__(&internal_list))table[i];
        CHECK(list(&with_share, &count, records) == NVML_SUCCESS && count == 2);
        CHECK(records[0].pid == (unsigned)one && records[1].pid == (unsigned)two);
        CHECK(records[0].bytes + records[1].bytes == used());
        CHECK(records[1].gpu_instance == 3 && strcmp(records[1].name, "a program") == 0);
        CHECK(list(&without_share, &count, records) == NVML_ERROR_INSUFFICIENT_SIZE);
        count = 16;
        CHECK(list(&without_share, &count, records) == NVML_ERROR_NO_PERMISSION);
    }
}

static void test_one_that_was_killed(void)
{
    nvmlProcessInfo_t infos[2];
    unsigned count = 2;
    list_all(5);
    end(two); /* the driver may list it a moment longer */
    CHECK(nvmlDeviceGetComputeRunningProcesses_v3(&with_share, &count, infos) == NVML_SUCCESS && count == 1);
    CHECK(infos[0].pid == (unsigned)one);
    usleep(150000);
    CHECK(used() == HELD_BY_ONE);
}

/* ---- beside an agent ------------------------------------------------------------------------------------------- */

static struct agent_page agent;

static void counted(size_t i, pid_t pid, unsigned gpu, uint64_t bytes)
{
    atomic_store(&agent.process[i].pid, (uint32_t)pid);
    atomic_store(&agent.process[i].gpu, gpu);
    atomic_store(&agent.process[i].bytes, bytes);
}

/* What a process has in the account: nothing, if it was killed before. */
static uint64_t in_account(pid_t pid)
{
    struct account_page *page = account_map(RUNAI_DIR "/account/page", false);
    struct identity self = identity_self();
    int slot = account_find(page, &self, (uint32_t)pid);
    return slot < 0 ? 0 : account_held(page, (unsigned)slot, 0) << ACCOUNT_GRANULE_SHIFT;
}

/* All lists show what the agent counts, and the process's part of the account: beside an agent that is managed memory. */
static void test_agent(void)
{
    counted(0, two, 0, HELD_BY_TWO - in_account(two));
    counted(1, 900000, 1, MIB); /* a neighbour's pid, on another GPU */
    counted(2, one, 0, HELD_BY_ONE - in_account(one));
    atomic_store(&agent.process_count, 3);
    atomic_store(&agent.gpu[0].share, SHARE);
    atomic_store(&agent.gpu[0].used, HELD_BY_ONE + HELD_BY_TWO);
    atomic_store(&agent.magic, AGENT_PAGE_MAGIC);
    agent_page_mapped = &agent;
    test_own_processes(5);
    test_details();
    test_conventions();
    test_a_list_that_grows();
    driver.asked = 0;
    CHECK(used() == HELD_BY_ONE + HELD_BY_TWO && driver.asked == 0);
}

int main(void)
{
    make_container();
    use_driver(3);
    one = start(granules(CONTEXT + 10 * MIB), 1, 0);
    two = start(granules(CONTEXT + 20 * MIB), 1, 10);
    test_own_processes(0);
    test_own_processes(5);
    test_own_processes(1000);
    test_details();
    test_conventions();
    test_a_list_that_grows();
    test_older_drivers();
    test_memory_is_cheap();
    test_export_table();
    test_fork();
    test_one_that_was_killed();
    test_agent();
    end(one);
    return 0;
}
