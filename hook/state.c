#include "state.h"

#include "json.h"

#include <limits.h>
#include <stdbool.h>

/* The runtime's own states have three levels. */
#define DEPTH 64

static const char NO_JSON[] = "it is no valid JSON object";

/* One member of the object. Only the top level is looked at: an annotation may be called pid as well. */
static const char *member(struct json *json, long *pid) {
    bool is_pid = false;
    if (!json_string(json, "pid", &is_pid) || !json_next(json, ':'))
        return NO_JSON;
    if (!is_pid)
        return json_skip(json, DEPTH) ? NULL : NO_JSON;
    if (*pid)
        return "it names two processes";
    if (!json_whole(json, INT_MAX, pid) || *pid == 0)
        return "its pid is no process id";
    return NULL;
}

const char *state_pid(const char *text, size_t length, pid_t *pid) {
    struct json json = {.at = text, .end = text + length};
    long number = 0;
    if (!json_next(&json, '{'))
        return NO_JSON;
    do {
        const char *wrong = member(&json, &number);
        if (wrong)
            return wrong;
    } while (json_next(&json, ','));
    if (!json_next(&json, '}'))
        return NO_JSON;
    /* json_next steps over white space first. */
    if (json_next(&json, '\n') || json.at != json.end)
        return NO_JSON;
    if (!number)
        return "it names no process";
    *pid = (pid_t)number;
    return NULL;
}
