/* Memory that outlives the process or the object that it was asked for with. */
#include "rawgpu.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

static uint64_t take(const struct gpu *gpu, uint64_t size)
{
    uint32_t handle;
    struct result result = alloc_memory(gpu, &size, &handle);
    if (refused(result)) {
        printf("0 bytes, ");
        print_result(result);
        exit(0);
    }
    return size;
}

/* Say it once the parent is gone, then hold until the input ends. */
static void hold_as_orphan(pid_t parent, uint64_t bytes)
{
    while (getppid() == parent)
        usleep(1000);
    printf("%d holds %llu bytes\n", (int)getpid(), (unsigned long long)bytes);
    fflush(stdout);
    wait_for_input();
    _exit(0);
}

/* A child keeps the file, and the parent dies. */
static void forkhold(char **arguments)
{
    struct gpu gpu = open_gpu();
    uint64_t bytes = take(&gpu, number(arguments[0]) * MIB);
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        die("fork");
    if (child == 0)
        hold_as_orphan(parent, bytes);
    _exit(0);
}

static void send_file(int to, int fd, uint64_t bytes)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec data = {&bytes, sizeof bytes};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control,
    };
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    if (sendmsg(to, &message, 0) < 0)
        die("sendmsg");
}

static uint64_t receive_file(int from)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    uint64_t bytes;
    struct iovec data = {&bytes, sizeof bytes};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control,
    };
    if (recvmsg(from, &message, 0) != sizeof bytes || !CMSG_FIRSTHDR(&message))
        exit(0); /* the parent was refused, and has said so */
    return bytes;
}

/* A process that never opened the device gets the file, and who took the memory dies. */
static void passfd(char **arguments)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0)
        die("socketpair");
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        close(ends[0]);
        hold_as_orphan(parent, receive_file(ends[1]));
    }
    close(ends[1]);
    struct gpu gpu = open_gpu();
    uint64_t bytes = take(&gpu, number(arguments[0]) * MIB);
    send_file(ends[0], gpu.fd, bytes);
    _exit(0);
}

/* A second client holds a duplicate of what the first one frees; and again, until refused. */
static void duphold(char **arguments)
{
    struct gpu first = open_gpu(), second = open_gpu();
    uint64_t count = 0, bytes = 0;
    struct result result;
    for (;;) {
        uint64_t size = number(arguments[0]) * MIB;
        uint32_t handle;
        result = alloc_memory(&first, &size, &handle);
        if (refused(result))
            break;
        struct rm_dup message = {
            .client = second.client, .parent = second.device, .client_source = first.client, .source = handle,
        };
        result = call(second.fd, ESC_DUP_OBJECT, &message, sizeof message, &message.status);
        if (refused(result))
            break;
        result = free_object(&first, handle);
        if (refused(result))
            break;
        count++;
        bytes += size;
    }
    printf("%llu duplicates, %llu bytes, ", (unsigned long long)count, (unsigned long long)bytes);
    print_result(result);
}

/* Keeps the memory of a handle that is going to be freed. */
typedef struct result keeper(const struct gpu *gpu, uint32_t handle, uint64_t turn);

static int uvm_file(void)
{
    static int file = -1;
    if (file < 0)
        file = open_node("nvidia-uvm");
    return file;
}

static struct result uvm(unsigned number, struct sim_uvm *message)
{
    int error = ioctl(uvm_file(), number, message) < 0 ? errno : 0;
    return (struct result){error, message->status};
}

static struct result keep_by_mapping(const struct gpu *gpu, uint32_t handle, uint64_t turn)
{
    struct sim_uvm message = {.base = (turn + 1) << 32, .first = gpu->client, .second = handle};
    return uvm(UVM_MAP_EXTERNAL, &message);
}

static struct result keep_by_export(const struct gpu *gpu, uint32_t handle, uint64_t turn)
{
    (void)turn;
    struct sim_share share = {gpu->client, handle, 0, 0};
    struct rm_control message = {
        .client = gpu->client, .object = gpu->client, .command = SIM_CTRL_EXPORT, .params = (uintptr_t)&share,
        .params_size = sizeof share,
    };
    return call(open_node("nvidiactl"), ESC_CONTROL, &message, sizeof message, &message.status);
}

/* Again and again, until refused: what is held so has no handle. */
static uint64_t hold_without_handles(keeper *keep, uint64_t size)
{
    struct gpu gpu = open_gpu();
    uint64_t count = 0;
    struct result result;
    for (;; count++) {
        uint64_t given = size;
        uint32_t handle;
        result = alloc_memory(&gpu, &given, &handle);
        if (!refused(result))
            result = keep(&gpu, handle, count);
        if (!refused(result))
            result = free_object(&gpu, handle);
        if (refused(result))
            break;
    }
    printf("%llu times, %llu bytes, ", (unsigned long long)count, (unsigned long long)(count * size));
    print_result(result);
    fflush(stdout);
    return count;
}

static void uvmhold(char **arguments)
{
    (void)hold_without_handles(keep_by_mapping, number(arguments[0]) * MIB);
}

static void exporthold(char **arguments)
{
    (void)hold_without_handles(keep_by_export, number(arguments[0]) * MIB);
}

/* As uvmhold, each with a client of its own, which ends with a context: what that took is given back at the same moment. */
static void clienthold(char **arguments)
{
    uint64_t size = number(arguments[0]) * MIB, most = number(arguments[1]), count = 0;
    struct result result = {0};
    for (; count < most && !refused(result); count++) {
        struct gpu gpu = open_gpu();
        struct context context;
        uint64_t given = size;
        uint32_t handle;
        result = alloc_memory(&gpu, &given, &handle);
        if (!refused(result))
            result = keep_by_mapping(&gpu, handle, count);
        if (!refused(result)) {
            (void)make_group(&gpu, &context);
            (void)make_share(&gpu, &context);
        }
        (void)free_object(&gpu, gpu.client);
        close(gpu.node);
        close(gpu.fd);
    }
    printf("%llu clients, ", (unsigned long long)count);
    print_result(result);
    fflush(stdout);
}

/* As uvmhold; then the mappings go. */
static void uvmrelease(char **arguments)
{
    uint64_t count = hold_without_handles(keep_by_mapping, number(arguments[0]) * MIB);
    for (uint64_t turn = 0; turn < count; turn++) {
        struct sim_uvm message = {.base = (turn + 1) << 32};
        struct result result = uvm(UVM_FREE, &message);
        if (refused(result))
            print_result(result);
    }
    printf("released\n");
    fflush(stdout);
    wait_for_input();
}

const struct subcommand sharing_commands[] = {
    {"forkhold", "MIB", 1, forkhold},
    {"passfd", "MIB", 1, passfd},
    {"duphold", "MIB", 1, duphold},
    {"uvmhold", "MIB", 1, uvmhold},
    {"exporthold", "MIB", 1, exporthold},
    {"clienthold", "MIB N", 2, clienthold},
    {"uvmrelease", "MIB", 1, uvmrelease},
    {0},
};
