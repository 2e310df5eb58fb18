#include "fail.h"

#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char PREFIX[] = "runai: ";

noreturn void fail(const char *format, ...) {
    /* A path may take PATH_MAX bytes; two of them are cut, which a reader survives. */
    char text[4096];
    memcpy(text, PREFIX, sizeof PREFIX);
    size_t length = sizeof PREFIX - 1;
    va_list arguments;
    va_start(arguments, format);
    int more = vsnprintf(text + length, sizeof text - length - 1, format, arguments);
    va_end(arguments);
    if (more > 0)
        length += strlen(text + length);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            text[i] = '?';
    text[length] = '\0';
    log_replace(text);
    text[length++] = '\n';
    /* If stderr is gone there is nobody to tell; the exit code still says it. */
    ssize_t written = write(STDERR_FILENO, text, length);
    (void)written;
    _exit(1);
}

const char *why(int error) {
    switch (error) {
    case ENOENT: return "it does not exist";
    case ENOTDIR: return "a part of its path is a file";
    case EISDIR: return "it is a folder";
    case EEXIST: return "something is there already";
    case EACCES:
    case EPERM: return "the kernel does not allow it";
    case EROFS: return "its file system is read-only";
    case ENOSPC:
    case EDQUOT: return "its file system is full";
    case ENOMEM: return "there is not enough memory";
    case ELOOP: return "its symbolic links go in a circle or out of the container";
    case ENAMETOOLONG: return "its path is too long";
    case EMFILE:
    case ENFILE: return "too many files are open";
    case EIO: return "its file system reports an error";
    case EINVAL: return "the kernel finds an argument invalid";
    case EBUSY: return "it is in use";
    case ESTALE:
    case ENOTCONN: return "its file system is gone";
    case EAGAIN: return "it kept changing during the look-up";
    default: break;
    }
    static char text[32];
    (void)snprintf(text, sizeof text, "error %d", error);
    return text;
}
