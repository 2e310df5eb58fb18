#include "json.h"

#include <stddef.h>
#include <string.h>

static void skip_space(struct json *json) {
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\t' || *json->at == '\n' || *json->at == '\r'))
        json->at++;
}

bool json_next(struct json *json, char c) {
    skip_space(json);
    if (json->at == json->end || *json->at != c)
        return false;
    json->at++;
    return true;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The four digits of a \u escape, or -1. */
static int code_unit(struct json *json) {
    if (json->end - json->at < 4)
        return -1;
    int unit = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*json->at++);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

/* What an escape stands for, the backslash being read, or -1. */
static int escaped(struct json *json) {
    static const char NAMES[] = "\"\\/bfnrt";
    static const char VALUES[] = "\"\\/\b\f\n\r\t";
    if (json->at == json->end)
        return -1;
    char name = *json->at++;
    if (name == 'u')
        return code_unit(json);
    const char *found = name ? strchr(NAMES, name) : NULL;
    return found ? VALUES[found - NAMES] : -1;
}

/* One character of a string: its code unit, or the byte where it is part of a longer UTF-8 sequence. -1: none. */
static int character(struct json *json) {
    unsigned char c = (unsigned char)*json->at++;
    if (c == '\\')
        return escaped(json);
    return c < ' ' ? -1 : c;
}

bool json_string(struct json *json, const char *wanted, bool *same) {
    if (!json_next(json, '"'))
        return false;
    bool equal = true;
    while (json->at < json->end && *json->at != '"') {
        int c = character(json);
        if (c < 0)
            return false;
        /* At the end of WANTED stands a NUL, which a \u0000 must not match. */
        equal = equal && *wanted && c == (unsigned char)*wanted;
        if (equal)
            wanted++;
    }
    *same = equal && !*wanted;
    return json_next(json, '"');
}

static bool is_digit(const struct json *json) {
    return json->at < json->end && *json->at >= '0' && *json->at <= '9';
}

static bool skip_digits(struct json *json) {
    if (!is_digit(json))
        return false;
    while (is_digit(json))
        json->at++;
    return true;
}

static bool skip_one_of(struct json *json, const char *characters) {
    if (json->at == json->end || !*json->at || !strchr(characters, *json->at))
        return false;
    json->at++;
    return true;
}

static bool skip_number(struct json *json) {
    (void)skip_one_of(json, "-");
    /* No digit may follow a leading zero; the caller finds it where a comma should be. */
    if (!skip_one_of(json, "0") && !skip_digits(json))
        return false;
    if (skip_one_of(json, ".") && !skip_digits(json))
        return false;
    if (!skip_one_of(json, "eE"))
        return true;
    (void)skip_one_of(json, "+-");
    return skip_digits(json);
}

bool json_whole(struct json *json, long most, long *number) {
    skip_space(json);
    const char *start = json->at;
    if (!skip_number(json))
        return false;
    long value = 0;
    for (const char *c = start; c < json->at; c++) {
        if (*c < '0' || *c > '9')
            return false;
        value = value * 10 + (*c - '0');
        if (value > most)
            return false;
    }
    *number = value;
    return true;
}

static bool skip_word(struct json *json, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(json->end - json->at) < length || memcmp(json->at, word, length) != 0)
        return false;
    json->at += length;
    return true;
}

static bool skip_members(struct json *json, int depth, bool object) {
    char close = object ? '}' : ']';
    if (json_next(json, close))
        return true;
    do {
        bool same = false;
        if (object && !(json_string(json, "", &same) && json_next(json, ':')))
            return false;
        if (!json_skip(json, depth))
            return false;
    } while (json_next(json, ','));
    return json_next(json, close);
}

bool json_skip(struct json *json, int depth) {
    if (depth == 0)
        return false;
    if (json_next(json, '{'))
        return skip_members(json, depth - 1, true);
    if (json_next(json, '['))
        return skip_members(json, depth - 1, false);
    bool same = false;
    if (json->at < json->end && *json->at == '"')
        return json_string(json, "", &same);
    return skip_word(json, "true") || skip_word(json, "false") || skip_word(json, "null") || skip_number(json);
}
