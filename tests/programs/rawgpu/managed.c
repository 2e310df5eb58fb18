/* Managed memory by hand: mappings of nvidia-uvm, of which no library knows, and mappings that only look so. */
#include "rawgpu.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define PLACE ((uint64_t)1 << 40)
#define CROWD ((uint64_t)1 << 39)
#define PAGE 4096u

/* The driver takes a mapping only where its offset is its address. */
static void map_at(int fd, uint64_t address, uint64_t size)
{
    void *place = (void *)(uintptr_t)address;
    if (mmap(place, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
             (off_t)address) != place)
        die("mmap");
}

static int open_uvm(void)
{
    struct sim_uvm nothing = {0};
    int fd = open_node("nvidia-uvm");
    if (ioctl(fd, UVM_INITIALIZE, &nothing) < 0)
        die("UVM_INITIALIZE");
    return fd;
}

static struct result take(int uvm, uint64_t address, uint64_t size)
{
    struct sim_uvm message = {.base = address, .length = size, .first = gpu_index};
    if (ioctl(uvm, SIM_UVM_MANAGED, &message) < 0)
        return (struct result){.error = errno};
    if (!message.status)
        map_at(uvm, address, size);
    return (struct result){.status = message.status};
}

/* In pieces, until the GPU has no more. With PROT_NONE the process can't use them itself any more, but keeps them. */
static void take_all(uint64_t size, bool hide)
{
    (void)open_gpu(); /* as every program does that uses the driver */
    int uvm = open_uvm();
    uint64_t count = 0;
    for (;; count++) {
        uint64_t address = PLACE + count * size;
        struct result result = take(uvm, address, size);
        if (refused(result)) {
            printf("%llu allocations, %llu bytes, ", (unsigned long long)count, (unsigned long long)(count * size));
            print_result(result);
            return;
        }
        if (hide && mprotect((void *)(uintptr_t)address, size, PROT_NONE) < 0)
            die("mprotect");
    }
}

static void managed(char **arguments)
{
    take_all(number(arguments[0]) * MIB, false);
}

static void hidden(char **arguments)
{
    take_all(number(arguments[0]) * MIB, true);
}

/* Behind so many mappings of another file. */
static void crowded(char **arguments)
{
    uint64_t count = number(arguments[0]);
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    for (uint64_t i = 0; i < count; i++) {
        void *place = (void *)(uintptr_t)(CROWD + i * PAGE);
        if (mmap(place, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0) != place)
            die("mmap");
    }
    take_all(number(arguments[1]) * MIB, false);
}

static void say_ready_and_wait(void)
{
    printf("ready\n");
    fflush(stdout);
    wait_for_input();
}

static void managedhold(char **arguments)
{
    (void)open_gpu();
    struct result result = take(open_uvm(), PLACE, number(arguments[0]) * MIB);
    if (refused(result))
        print_result(result);
    else
        say_ready_and_wait();
}

/* A mapping that looks the same, of FILE. */
static void decoy(char **arguments)
{
    int file = open(arguments[0], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0)
        die(arguments[0]);
    (void)open_gpu();
    map_at(file, PLACE, number(arguments[1]) * MIB);
    say_ready_and_wait();
}

static void *take_and_wait(void *size)
{
    usleep(100000); /* until the first thread has ended */
    take_all(*(uint64_t *)size, false);
    wait_for_input();
    _exit(0);
}

static void leaderlessmanaged(char **arguments)
{
    static uint64_t size;
    pthread_t thread;
    size = number(arguments[0]) * MIB;
    if (pthread_create(&thread, NULL, take_and_wait, &size) != 0)
        die("a thread");
    pthread_exit(NULL);
}

struct child {
    pid_t parent; /* whose end it waits for; 0: none */
    int uvm;
    uint64_t size;
};

static int hold_as_child(void *place)
{
    const struct child *child = place;
    while (child->parent && getppid() == child->parent)
        usleep(1000);
    for (uint64_t count = 0; child->parent && !refused(take(child->uvm, PLACE + count * child->size, child->size));)
        count++;
    for (;;)
        pause();
}

/* A process that never asks the driver for anything itself: FLAGS are CLONE_VM or none. */
static void start_child(struct child *child, int flags)
{
    static char stack[65536];
    if (clone(hold_as_child, stack + sizeof stack, flags | SIGCHLD, child) < 0)
        die("clone");
}

/* All is taken by a child in the same address space, once its parent has ended. */
static void orphanmanaged(char **arguments)
{
    static struct child child;
    (void)open_gpu();
    child = (struct child){getpid(), open_uvm(), number(arguments[0]) * MIB};
    start_child(&child, CLONE_VM);
    _exit(0);
}

/* As with UVM_INIT_FLAGS_MULTI_PROCESS_SHARING_MODE: the simulated driver lets every process map whose file it is. */
static void sharedmanaged(char **arguments)
{
    struct child child = {getpid(), 0, number(arguments[0]) * MIB};
    (void)open_gpu();
    child.uvm = open_uvm();
    start_child(&child, 0);
    _exit(0);
}

/* What one address space has, with two processes in it. */
static void twinmanaged(char **arguments)
{
    static struct child child;
    (void)open_gpu();
    start_child(&child, CLONE_VM);
    struct result result = take(open_uvm(), PLACE, number(arguments[0]) * MIB);
    if (refused(result))
        print_result(result);
    else
        say_ready_and_wait();
}

static void idle(char **arguments)
{
    (void)arguments;
    say_ready_and_wait();
}

const struct subcommand managed_commands[] = {
    {"managed", "MIB", 1, managed},
    {"hidden", "MIB", 1, hidden},
    {"crowded", "N MIB", 2, crowded},
    {"managedhold", "MIB", 1, managedhold},
    {"decoy", "FILE MIB", 2, decoy},
    {"leaderlessmanaged", "MIB", 1, leaderlessmanaged},
    {"orphanmanaged", "MIB", 1, orphanmanaged},
    {"sharedmanaged", "MIB", 1, sharedmanaged},
    {"twinmanaged", "MIB", 1, twinmanaged},
    {"idle", "", 0, idle},
    {0},
};
