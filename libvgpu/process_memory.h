/* Memory for what a library of ours knows about this process. */
#ifndef RUNAI_PROCESS_MEMORY_H
#define RUNAI_PROCESS_MEMORY_H

#include <stddef.h>

/* BYTES of zeroes that are zeroes again in a forked child: there a lock in them is free, whoever held it in the parent,
 * and what was noted of the parent is forgotten. NULL when there is no memory. Never given back. */
void *process_memory(size_t bytes);

#endif
