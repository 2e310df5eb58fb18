/* confine [-p] SOCKET PROGRAM ARGUMENT...: becomes PROGRAM under the filter that a container with a share has, with the
 * listener handed to the agent at SOCKET as the runtime does. For tests of the agent without an engine. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)
#define CALL(number, size) ((size) << 16 | (number))
#define NOTIFY_IF(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), RETURN(SECCOMP_RET_USER_NOTIF)

#define IOCTL_I386 54

static int filter(void)
{
    struct sock_filter program[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_I386, 0, 3),
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IOCTL_I386, 3, 0),
        RETURN(SECCOMP_RET_ALLOW),
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 16),
        LOAD(args[1]),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x3fff00ff),
        NOTIFY_IF(CALL(0x2b, 48)),
        NOTIFY_IF(CALL(0x2b, 32)),
        NOTIFY_IF(CALL(0x29, 16)),
        NOTIFY_IF(CALL(0x4a, 184)),
        NOTIFY_IF(CALL(0x27, 56)),
        NOTIFY_IF(CALL(0x34, 28)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALL(0xd3, 16), 0, 1),
        RETURN(SECCOMP_RET_ERRNO | EINVAL),
        RETURN(SECCOMP_RET_ALLOW),
    };
    struct sock_fprog all = {sizeof program / sizeof *program, program};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &all);
}

static int hand_over(const char *path, int listener)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return -1;
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof listener)];
    } part = {0};
    struct iovec text = {"{}", 2};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = &part, .msg_controllen = sizeof part};
    part.head.cmsg_level = SOL_SOCKET;
    part.head.cmsg_type = SCM_RIGHTS;
    part.head.cmsg_len = CMSG_LEN(sizeof listener);
    memcpy(CMSG_DATA(&part.head), &listener, sizeof listener);
    ssize_t sent = sendmsg(fd, &message, 0);
    close(fd);
    close(listener);
    return sent == 2 ? 0 : -1;
}

/* As docker leaves its containers without CAP_SYS_ADMIN: here without any, or with -p as by --cap-add SYS_PTRACE. */
static void drop_capabilities(uint32_t kept)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{.effective = kept, .permitted = kept}};
    for (unsigned long capability = 0; capability < 64; capability++)
        if (capability >= 32 || !(kept >> capability & 1))
            prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    syscall(SYS_capset, &header, data);
}

int main(int argc, char **argv)
{
    int traces = argc > 1 && strcmp(argv[1], "-p") == 0;
    argv += traces;
    if (argc - traces < 3)
        return 2;
    drop_capabilities(traces ? 1u << CAP_SYS_PTRACE : 0);
    int listener = filter();
    if (listener < 0 || hand_over(argv[1], listener) < 0) {
        perror("confine");
        return 2;
    }
    execv(argv[2], argv + 2);
    perror(argv[2]);
    return 2;
}
