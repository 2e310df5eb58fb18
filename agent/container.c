#include "container.h"
#include "io.h"
#include "members.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int state = -1, first = -1;

void container_set_folder(int folder) {
    state = folder;
}

void container_find(void) {
    char text[32];
    if (first >= 0 || read_file(state, "pid", text, sizeof text) <= 0)
        return;
    pid_t pid = (pid_t)strtol(text, NULL, 10);
    first = (int)syscall(SYS_pidfd_open, pid, 0);
    if (first >= 0)
        members_find(state, first, pid);
}

bool container_end(void) {
    members_end();
    return first >= 0 && syscall(SYS_pidfd_send_signal, first, SIGKILL, NULL, 0) == 0;
}
