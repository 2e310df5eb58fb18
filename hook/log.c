#include "log.h"

#include "cleanup.h"
#include "io.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define MOST ((off_t)64 << 20) /* bytes that are worth a copy */

static char path[PATH_MAX];

void log_remember(int state) {
    ssize_t length = read_file(state, "log", path, sizeof path);
    if (length <= 0 || path[0] != '/' || strlen(path) != (size_t)length)
        path[0] = '\0';
}

/* The folder that the log is in; NAME is what it is called there. -1: there is none. */
static int open_folder(const char **name) {
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (!slash)
        return -1;
    (void)snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    *name = slash + 1;
    return open(*folder ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* One line of JSON, as runc's own. */
static size_t format(char *line, size_t size, const char *sentence) {
    char now[32];
    time_t seconds = time(NULL);
    struct tm parts;
    if (!gmtime_r(&seconds, &parts) || !strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &parts))
        return 0;
    size_t length = (size_t)snprintf(line, size, "{\"level\":\"error\",\"time\":\"%s\",\"msg\":\"", now);
    for (; *sentence && length < size - 8; sentence++) {
        if (*sentence == '"' || *sentence == '\\')
            line[length++] = '\\';
        line[length++] = *sentence;
    }
    return length + (size_t)snprintf(line + length, size - length, "\"}\n");
}

/* A person may have all containers write one log. */
static bool copy(int from, int to) {
    char bytes[16384];
    ssize_t got = 0;
    for (off_t total = 0; (got = read(from, bytes, sizeof bytes)) > 0;) {
        total += got;
        if (total > MOST || !write_all(to, bytes, (size_t)got))
            return false;
    }
    return got == 0;
}

void log_replace(const char *sentence) {
    char line[8192 + 128]; /* each of 4,096 characters may need a backslash */
    const char *name = NULL;
    cleanup_close int folder = open_folder(&name);
    if (folder < 0)
        return;
    cleanup_close int old = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat facts;
    if (old < 0 || fstat(old, &facts) < 0 || !S_ISREG(facts.st_mode))
        return;
    size_t length = format(line, sizeof line, sentence);
    static const char TEMPORARY[] = ".runai-log";
    (void)unlinkat(folder, TEMPORARY, 0);
    cleanup_close int fd = openat(folder, TEMPORARY, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    if (fchown(fd, facts.st_uid, facts.st_gid) < 0 || fchmod(fd, facts.st_mode & 07777) < 0 ||
        !copy(old, fd) || !write_all(fd, line, length) || renameat(folder, TEMPORARY, folder, name) < 0)
        (void)unlinkat(folder, TEMPORARY, 0);
}
