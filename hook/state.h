/* The OCI state: the JSON that a runtime hands to its hooks on stdin. */
#ifndef RUNAI_STATE_H
#define RUNAI_STATE_H

#include <stddef.h>
#include <sys/types.h>

/* A state holds the container's annotations, so it may be long; longer than this is refused. */
#define STATE_BYTES ((size_t)4 << 20)

/* Finds the container's process in a state of LENGTH bytes. Returns NULL, or what is wrong with the state. */
const char *state_pid(const char *text, size_t length, pid_t *pid);

#endif
