/* Descriptors, streams and memory that go away with the scope they were made in. */
#ifndef RUNAI_CLEANUP_H
#define RUNAI_CLEANUP_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void close_fd(const int *fd) {
    if (*fd >= 0)
        (void)close(*fd);
}

static inline void close_stream(FILE *const *stream) {
    if (*stream)
        (void)fclose(*stream);
}

static inline void close_folder(DIR *const *folder) {
    if (*folder)
        (void)closedir(*folder);
}

static inline void free_text(char *const *text) {
    free(*text);
}

#define cleanup_close __attribute__((cleanup(close_fd)))
#define cleanup_fclose __attribute__((cleanup(close_stream)))
#define cleanup_closedir __attribute__((cleanup(close_folder)))
#define cleanup_free __attribute__((cleanup(free_text)))

/* Hands a descriptor to the caller: the variable no longer owns it. */
static inline int take_fd(int *fd) {
    int taken = *fd;
    *fd = -1;
    return taken;
}

#endif
