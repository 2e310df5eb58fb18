/* Fields that can be asked for by name. */
#ifndef SIMGPU_FIELD_H
#define SIMGPU_FIELD_H

#include <stddef.h>

#include "smi.h"

#define VALUE 1024

/* Write a device's value without its unit. */
typedef void write_t(nvmlDevice_t device, char *value);

struct field {
    const char *name, *unit;
    write_t *write;
};

const struct field *find_field(const char *wanted, size_t length);
/* Say that there is no such field; the exit code. */
int bad_field(const char *field, int length, const char *option);
/* The next field of a list: its start and length; a list ends with length 0. */
const char *next_field(const char **rest, size_t *length);

#endif
