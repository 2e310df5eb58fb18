#include "container.h"
#include "cleanup.h"
#include "io.h"
#include "members.h"
#include "process.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int state = -1, first = -1;
static pid_t pid;

void container_set_folder(int folder) {
    state = folder;
}

void container_find(void) {
    char text[32];
    if (first >= 0 || read_file(state, "pid", text, sizeof text) <= 0)
        return;
    pid = (pid_t)strtol(text, NULL, 10);
    first = (int)syscall(SYS_pidfd_open, pid, 0);
    if (first >= 0)
        members_find(state, first, pid);
}

int container_root(void) {
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/%d/root", (int)pid);
    cleanup_close int root = first < 0 ? -1 : open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return root >= 0 && pidfd_lives(first) ? take_fd(&root) : -1; /* then the pid was its own until now */
}

bool container_end(void) {
    members_end();
    return first >= 0 && pidfd_kill(first);
}
