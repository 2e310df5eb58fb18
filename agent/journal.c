#include "journal.h"
#include "io.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#define JOURNAL_LINES 1000

static int log_file = -1;
static int lines_left = JOURNAL_LINES;

void journal_open(int folder) {
    log_file = openat(folder, "agent.log", O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
}

void journal(const char *format, ...) {
    if (log_file < 0 || lines_left == 0)
        return;
    lines_left--;
    char text[1024];
    time_t now = time(NULL);
    struct tm parts;
    (void)gmtime_r(&now, &parts);
    size_t length = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ ", &parts);
    va_list arguments;
    va_start(arguments, format);
    int more = vsnprintf(text + length, sizeof text - length - 1, format, arguments);
    va_end(arguments);
    if (more < 0)
        return;
    length += (size_t)more < sizeof text - length - 1 ? (size_t)more : sizeof text - length - 2;
    text[length++] = '\n';
    (void)write_all(log_file, text, length);
}
