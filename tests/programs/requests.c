/* requests [-a] REQUEST…: asks /dev/null for each ioctl (hexadecimal, 64 bits) and prints the error numbers. With -a a
 * signal comes 200 ms later, after which nothing is made again. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static void nothing(int signal)
{
    (void)signal;
}

static int interrupt_soon(void)
{
    struct sigaction action = {.sa_handler = nothing};
    struct itimerval once = {.it_value.tv_usec = 200000};
    return sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &once, NULL);
}

int main(int argc, char **argv)
{
    int fd = open("/dev/null", O_RDWR);
    int first = argc > 1 && strcmp(argv[1], "-a") == 0 ? 2 : 1;
    if (first == 2 && interrupt_soon())
        return 1;
    for (int i = first; i < argc; i++) {
        errno = 0;
        (void)syscall(SYS_ioctl, fd, strtoul(argv[i], NULL, 16), NULL);
        printf("%d\n", errno);
    }
    return fd < 0;
}
