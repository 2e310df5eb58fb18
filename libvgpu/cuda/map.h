/* A hash table from a number that is not 0 (an address, a handle) to a value of three words. Not thread-safe. */
#ifndef RUNAI_CUDA_MAP_H
#define RUNAI_CUDA_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_entry {
    uint64_t key; /* 0: free */
    uint64_t a, b;
    uint64_t when; /* state.h: state_tick() */
};

struct map {
    struct map_entry *entries;
    size_t capacity; /* 0 or a power of two */
    size_t count;
};

/* The entry of KEY, or NULL. Good until the next change of the map. */
struct map_entry *map_find(const struct map *map, uint64_t key);

/* The entry of KEY, made with zeroes if it wasn't there. NULL when memory is out. */
struct map_entry *map_put(struct map *map, uint64_t key);

/* Makes sure that the next COUNT map_put succeed. */
bool map_make_room(struct map *map, size_t count);

void map_remove(struct map *map, struct map_entry *entry);

#endif
