/* members STATE PID: the agent's look at the container whose first process is PID: a line for each process that it finds. */
#include "members.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static pid_t list[MEMBERS_MOST];
    if (argc != 3)
        return 2;
    pid_t first = (pid_t)atoi(argv[2]);
    members_find(open(argv[1], O_RDONLY | O_DIRECTORY), (int)syscall(SYS_pidfd_open, first, 0), first);
    size_t count = members_list(list);
    for (size_t i = 0; i < count; i++)
        printf("%d %s\n", (int)list[i], members_open(list[i]) >= 0 ? "own" : "other");
    return 0;
}
