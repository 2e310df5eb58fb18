#include "plan.h"

#include "fail.h"
#include "io.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* What a line's fields may be. */
enum shape { NAME, PATH };

static const struct form {
    const char *word;
    enum kind kind;
    enum shape first;
    size_t fields; /* with the word: 2, 3 with a source, 4 with a stamp as well */
} FORMS[] = {
    {"real", KIND_REAL, NAME, 3},       {"ours", KIND_OURS, NAME, 3},     {"library", KIND_LIBRARY, NAME, 3},
    {"program", KIND_PROGRAM, PATH, 3}, {"device", KIND_DEVICE, PATH, 3}, {"search", KIND_SEARCH, PATH, 2},
    {"preload", KIND_PRELOAD, PATH, 2}, {"image-real", KIND_IMAGE_REAL, NAME, 4},
};

static bool is_name(const char *text) {
    return *text && !strchr(text, '/') && strcmp(text, ".") != 0 && strcmp(text, "..") != 0;
}

static bool is_path(const char *text) {
    return text[0] == '/';
}

/* Takes a line and steps behind it; NULL when no newline is left. */
static char *next_line(char **at) {
    char *start = *at;
    char *end = strchr(start, '\n');
    if (!end)
        return NULL;
    *end = '\0';
    *at = end + 1;
    return start;
}

/* Splits a line at its TABs. Returns the number of fields, or 0 when there are more than ROOM. */
static size_t split(char *line, char **fields, size_t room) {
    size_t count = 0;
    for (char *tab = strchr(line, '\t'); tab; tab = strchr(line, '\t')) {
        *tab = '\0';
        fields[count++] = line;
        line = tab + 1;
        if (count == room)
            return 0;
    }
    fields[count++] = line;
    return count;
}

static const struct form *find_form(const char *word) {
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++)
        if (strcmp(FORMS[i].word, word) == 0)
            return &FORMS[i];
    return NULL;
}

static const char *add_item(struct plan *plan, const struct form *form, char **fields) {
    /* A folder of LD_LIBRARY_PATH may be relative or hold $ORIGIN: no place that a hook could look at. */
    if (form->kind == KIND_SEARCH && !is_path(fields[1]))
        return NULL;
    if (form->first == NAME ? !is_name(fields[1]) : !is_path(fields[1]))
        return "a line has a target of the wrong form";
    if (form->fields > 2 && !is_path(fields[2]))
        return "a line has a source that is no absolute path";
    if (plan->count == PLAN_ITEMS)
        return "it has too many lines";
    plan->items[plan->count++] = (struct item){form->kind, fields[1], fields[2], fields[3]};
    return NULL;
}

static const char *read_line(struct plan *plan, char *line) {
    char *fields[4] = {line};
    size_t count = split(line, fields, 4);
    if (count == 2 && strcmp(fields[0], "rootfs") == 0) {
        if (plan->rootfs || !is_path(fields[1]))
            return "its rootfs is there twice or no absolute path";
        plan->rootfs = fields[1];
        return NULL;
    }
    const struct form *form = count ? find_form(fields[0]) : NULL;
    if (!form)
        return "it has a line of an unknown kind";
    if (count != form->fields)
        return "a line has too few or too many fields";
    return add_item(plan, form, fields);
}

const char *plan_read(int state, struct plan *plan) {
    static char text[PLAN_BYTES];
    plan->count = 0;
    plan->rootfs = NULL;
    ssize_t length = read_file(state, "plan", text, sizeof text);
    if (length < 0)
        return errno == EFBIG ? "it is too long" : why(errno);
    errno = 0;
    if (strlen(text) != (size_t)length)
        return "it holds a zero byte";
    char *at = text;
    char *line = next_line(&at);
    if (!line || strcmp(line, "runai-plan\t1") != 0)
        return "it is not of version 1";
    while ((line = next_line(&at)) != NULL) {
        const char *wrong = read_line(plan, line);
        if (wrong)
            return wrong;
    }
    if (*at)
        return "its last line is cut off";
    return plan->rootfs ? NULL : "it names no rootfs";
}
