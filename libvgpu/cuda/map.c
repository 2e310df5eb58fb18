#include "cuda/map.h"

#include <stdlib.h>

static size_t home(const struct map *map, uint64_t key)
{
    return (size_t)(key * 0x9e3779b97f4a7c15u >> 32) & (map->capacity - 1); /* Fibonacci hashing */
}

static size_t next(const struct map *map, size_t i)
{
    return (i + 1) & (map->capacity - 1);
}

struct map_entry *map_find(const struct map *map, uint64_t key)
{
    if (!map->capacity)
        return NULL;
    size_t i = home(map, key);
    while (map->entries[i].key && map->entries[i].key != key)
        i = next(map, i);
    return map->entries[i].key ? &map->entries[i] : NULL;
}

static struct map_entry *place(struct map *map, uint64_t key)
{
    size_t i = home(map, key);
    while (map->entries[i].key)
        i = next(map, i);
    map->entries[i] = (struct map_entry){.key = key};
    map->count++;
    return &map->entries[i];
}

/* At most half full, so that searches stay short. */
bool map_make_room(struct map *map, size_t count)
{
    if ((map->count + count) * 2 <= map->capacity)
        return true;
    struct map bigger = {.capacity = map->capacity ? map->capacity : 64};
    while ((map->count + count) * 2 > bigger.capacity)
        bigger.capacity *= 2;
    bigger.entries = calloc(bigger.capacity, sizeof *bigger.entries);
    if (!bigger.entries)
        return false;
    for (size_t i = 0; i < map->capacity; i++)
        if (map->entries[i].key)
            *place(&bigger, map->entries[i].key) = map->entries[i];
    free(map->entries);
    *map = bigger;
    return true;
}

struct map_entry *map_put(struct map *map, uint64_t key)
{
    struct map_entry *entry = map_find(map, key);
    if (entry)
        return entry;
    return map_make_room(map, 1) ? place(map, key) : NULL;
}

/* Moves later entries of the same run back over the gap, so that no marker of a removed entry is needed. */
void map_remove(struct map *map, struct map_entry *entry)
{
    size_t gap = (size_t)(entry - map->entries);
    for (size_t i = next(map, gap); map->entries[i].key; i = next(map, i)) {
        size_t distance = (i - home(map, map->entries[i].key)) & (map->capacity - 1);
        if (distance >= ((i - gap) & (map->capacity - 1))) {
            map->entries[gap] = map->entries[i];
            gap = i;
        }
    }
    map->entries[gap].key = 0;
    map->count--;
}
