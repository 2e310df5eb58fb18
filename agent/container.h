/* The container's first process, with which the others end: the kernel sees to that where the container has a pid namespace
 * of its own, members.c where it hasn't. */
#ifndef RUNAI_AGENT_CONTAINER_H
#define RUNAI_AGENT_CONTAINER_H

#include <stdbool.h>

/* Where the state directory is, in which the file `pid` names it. */
void container_set_folder(int folder);

/* Takes hold of it, as soon as its runtime hands the listener over: it waits for that, and runs nothing of its own before.
 * Later its pid may be another's. Also while a call is held, for who hands it over otherwise. */
void container_find(void);

/* Opens its root; -1. */
int container_root(void);

/* Kills it, and with it the container. */
bool container_end(void);

#endif
