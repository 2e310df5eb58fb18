#include "io.h"

#include "cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

ssize_t read_up_to(int fd, char *buffer, size_t size) {
    size_t length = 0;
    while (length < size) {
        ssize_t got = read(fd, buffer + length, size - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        length += (size_t)got;
    }
    return (ssize_t)length;
}

ssize_t read_file(int folder, const char *name, char *buffer, size_t size) {
    cleanup_close int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t length = read_up_to(fd, buffer, size);
    if (length < 0)
        return -1;
    if ((size_t)length == size) {
        errno = EFBIG;
        return -1;
    }
    buffer[length] = '\0';
    return length;
}

bool write_all(int fd, const char *text, size_t length) {
    while (length > 0) {
        ssize_t done = write(fd, text, length);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return false;
        text += done;
        length -= (size_t)done;
    }
    return true;
}

bool replace_file(int folder, const char *name, const char *text, size_t length) {
    char temporary[64];
    (void)snprintf(temporary, sizeof temporary, "%s.new", name);
    /* One that an interrupted hook left behind. */
    if (unlinkat(folder, temporary, 0) < 0 && errno != ENOENT)
        return false;
    cleanup_close int fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    return fd >= 0 && write_all(fd, text, length) && renameat(folder, temporary, folder, name) == 0;
}

void drain_stdin(void) {
    char buffer[4096];
    for (;;) {
        ssize_t got = read(STDIN_FILENO, buffer, sizeof buffer);
        if (got == 0 || (got < 0 && errno != EINTR))
            return;
    }
}
