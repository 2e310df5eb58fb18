/* As much of JSON as it takes to find a number at the top of an object and to step over everything else. */
#ifndef RUNAI_JSON_H
#define RUNAI_JSON_H

#include <stdbool.h>

struct json {
    const char *at;
    const char *end;
};

/* Steps over white space; true, and one further, if C comes next. */
bool json_next(struct json *json, char c);

/* Steps over a string; SAME tells whether it reads WANTED (ASCII) once its escapes are undone. False: no string. */
bool json_string(struct json *json, const char *wanted, bool *same);

/* Steps over a number that is a whole one from 0 to MOST, written as such. */
bool json_whole(struct json *json, long most, long *number);

/* Steps over any value, at most DEPTH levels deep. */
bool json_skip(struct json *json, int depth);

#endif
