#include "share_limits.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static struct limits the_limits;
static bool readable;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Decimal digits up to END into VALUE; the first character that isn't one, or NULL if there was none or too many. */
static const char *number(const char *at, const char *end, uint64_t *value)
{
    const char *start = at;
    for (*value = 0; at < end && *at >= '0' && *at <= '9'; at++) {
        if (at - start >= 18)
            return NULL;
        *value = *value * 10 + (uint64_t)(*at - '0');
    }
    return at == start ? NULL : at;
}

static const char *line(struct limit *limit, const char *at, const char *end)
{
    const char *space = memchr(at, ' ', (size_t)(end - at));
    if (!space || space == at || (size_t)(space - at) >= sizeof limit->uuid)
        return NULL;
    memcpy(limit->uuid, at, (size_t)(space - at));
    limit->uuid[space - at] = '\0';
    at = number(space + 1, end, &limit->bytes);
    if (!at || at == end || *at != ' ')
        return NULL;
    at = number(at + 1, end, &limit->context);
    return at && at < end && *at == '\n' ? at + 1 : NULL;
}

int limits_parse(struct limits *limits, const char *text, size_t length)
{
    const char *end = text + length;
    memset(limits, 0, sizeof *limits);
    while (text < end) {
        if (limits->count == ACCOUNT_GPUS)
            return -1;
        text = line(&limits->gpu[limits->count], text, end);
        if (!text)
            return -1;
        limits->count++;
    }
    return limits->count ? 0 : -1;
}

static void read_once(void)
{
    char text[ACCOUNT_GPUS * 128];
    int fd = open(RUNAI_DIR "/limits", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t length = read(fd, text, sizeof text);
    close(fd);
    readable = length > 0 && limits_parse(&the_limits, text, (size_t)length) == 0;
}

const struct limits *limits_get(void)
{
    pthread_once(&once, read_once);
    return readable ? &the_limits : NULL;
}

int limits_find(const struct limits *limits, const char *uuid)
{
    for (unsigned i = 0; i < limits->count; i++)
        if (strcmp(limits->gpu[i].uuid, uuid) == 0)
            return (int)i;
    return -1;
}
