/* The driver's own figures for processes: NVML's lists of them, in all their versions. */
#ifndef RUNAI_FIGURES_H
#define RUNAI_FIGURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One process in such a list. */
struct process_figure {
    uint32_t pid;   /* in the caller's pid namespace */
    uint64_t bytes; /* without managed memory, and without CONTEXT_HIDDEN and PROCESS_HIDDEN: outside.h */
    uint32_t gpu_instance, compute_instance;
};

#define BYTES_UNKNOWN UINT64_MAX       /* NVML_VALUE_NOT_AVAILABLE */
#define NO_INSTANCE ((uint32_t)0xffffffff) /* the GPU isn't in parts (MIG) */

/* One of NVML's list functions. *COUNT is the room in RECORDS, and then how many there are. */
typedef int figures_call(void *device, unsigned *count, void *records);

struct figures_source {
    figures_call *call;
    bool short_records; /* the first version's: pid and bytes alone */
};

struct figures {
    size_t count;
    struct process_figure *list; /* malloc()ed */
};

/* Fills FIGURES with all that SOURCE lists for DEVICE, however many. 0, or NVML's error; then there is no list. */
int figures_ask(const struct figures_source *source, void *device, struct figures *figures);

/* Writes FIGURE as the record of that INDEX, in the layout that SOURCE has. */
void figures_write(const struct figures_source *source, void *records, size_t index, const struct process_figure *figure);

#endif
