#include "figures.h"

#include <stdlib.h>

/* NVML's records (nvml.h). That header can't be included beside cuda.h's internal names; nvml/processes.c compares. */
struct short_record {
    unsigned pid;
    unsigned long long bytes;
};

struct record {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
};

#define INSUFFICIENT_SIZE 7 /* nvmlReturn_t */
#define OUT_OF_MEMORY 20

#define FIRST_ROOM 64
#define ROUNDS 10 /* of a list that grows while it is asked for */

static struct process_figure read_record(const struct figures_source *source, const void *records, size_t index)
{
    if (source->short_records) {
        const struct short_record *record = (const struct short_record *)records + index;
        return (struct process_figure){record->pid, record->bytes, NO_INSTANCE, NO_INSTANCE};
    }
    const struct record *record = (const struct record *)records + index;
    return (struct process_figure){record->pid, record->bytes, record->gpu_instance, record->compute_instance};
}

void figures_write(const struct figures_source *source, void *records, size_t index, const struct process_figure *figure)
{
    if (source->short_records)
        ((struct short_record *)records)[index] = (struct short_record){figure->pid, figure->bytes};
    else
        ((struct record *)records)[index] =
            (struct record){figure->pid, figure->bytes, figure->gpu_instance, figure->compute_instance};
}

/* The records themselves, malloc()ed, with their COUNT; NULL with the error in RESULT. */
static void *ask(const struct figures_source *source, void *device, unsigned *count, int *result)
{
    unsigned room = FIRST_ROOM;
    for (int round = 0; round < ROUNDS; round++) {
        void *records = calloc(room, sizeof(struct record));
        *count = room;
        *result = records ? source->call(device, count, records) : OUT_OF_MEMORY;
        if (*result == 0 && *count <= room)
            return records;
        free(records);
        if (*result != INSUFFICIENT_SIZE)
            return NULL;
        room = *count + FIRST_ROOM; /* more may have come until then */
    }
    return NULL;
}

int figures_ask(const struct figures_source *source, void *device, struct figures *figures)
{
    int result = OUT_OF_MEMORY;
    unsigned count;
    *figures = (struct figures){0};
    void *records = ask(source, device, &count, &result);
    if (!records)
        return result;
    figures->list = calloc(count + (size_t)1, sizeof *figures->list);
    for (; figures->list && figures->count < count; figures->count++)
        figures->list[figures->count] = read_record(source, records, figures->count);
    free(records);
    return figures->list ? 0 : OUT_OF_MEMORY;
}
