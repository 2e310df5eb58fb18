/* Whole files, in and out. */
#ifndef RUNAI_IO_H
#define RUNAI_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Reads until the end or until SIZE bytes are there. Returns their number, or -1 with errno. */
ssize_t read_up_to(int fd, char *buffer, size_t size);

/* Opens the file NAME of FOLDER, reads it like read_up_to and puts a NUL behind it (SIZE counts that NUL). A file that
 * doesn't fit is EFBIG. */
ssize_t read_file(int folder, const char *name, char *buffer, size_t size);

bool write_all(int fd, const char *text, size_t length);

/* Writes NAME in FOLDER so that a reader sees all of it or nothing. */
bool replace_file(int folder, const char *name, const char *text, size_t length);

/* Reads stdin to its end: a runtime that writes to a hook which is gone may die of it. */
void drain_stdin(void);

#endif
