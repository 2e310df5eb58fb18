/* CUDA_VISIBLE_DEVICES: indices or beginnings of UUIDs, up to the first one that names no device. */
#include "visible.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int find(const struct device *devices, int count, const char *item, size_t length)
{
    char *end;
    long index = strtol(item, &end, 10);
    if (length && end == item + length)
        return index >= 0 && index < count ? (int)index : -1;
    for (int i = 0; length >= 4 && i < count; i++)
        if (strncmp(devices[i].info.uuid, item, length) == 0)
            return i;
    return -1;
}

int visible_devices(struct device *devices, int count)
{
    const char *wanted = getenv("CUDA_VISIBLE_DEVICES");
    if (!wanted || !count)
        return count;
    struct device *chosen = calloc((size_t)count, sizeof *chosen);
    bool *taken = calloc((size_t)count, sizeof *taken);
    int chosen_count = 0;
    while (chosen && taken && chosen_count < count) {
        size_t length = strcspn(wanted, ",");
        int index = find(devices, count, wanted, length);
        if (index < 0 || taken[index])
            break;
        taken[index] = true;
        chosen[chosen_count++] = devices[index];
        if (!wanted[length])
            break;
        wanted += length + 1;
    }
    for (int i = 0; taken && i < count; i++)
        if (!taken[i])
            close(devices[i].node);
    if (chosen)
        memcpy(devices, chosen, (size_t)chosen_count * sizeof *chosen);
    free(chosen);
    free(taken);
    return chosen_count;
}

int one_instance(struct device *devices, int count)
{
    int chosen = 0;
    while (chosen < count && !devices[chosen].instance)
        chosen++;
    if (chosen == count)
        return count;
    for (int i = 0; i < count; i++)
        if (i != chosen)
            close(devices[i].node);
    devices[0] = devices[chosen];
    return 1;
}
