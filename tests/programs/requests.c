/* requests REQUEST…: asks /dev/null for each ioctl (hexadecimal, 64 bits) and prints the error numbers. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int fd = open("/dev/null", O_RDWR);
    for (int i = 1; i < argc; i++) {
        errno = 0;
        (void)syscall(SYS_ioctl, fd, strtoul(argv[i], NULL, 16), NULL);
        printf("%d\n", errno);
    }
    return fd < 0;
}
