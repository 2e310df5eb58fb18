/* Parts of a block of device memory: how small allocations are packed and pools filled. */
#ifndef SIMGPU_ARENA_H
#define SIMGPU_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#define ARENA_STEP 512 /* the alignment of what cuMemAlloc gives, bytes */

struct segment {
    size_t offset, length; /* multiples of ARENA_STEP */
    size_t asked;          /* bytes; 0: free */
    struct segment *next;
};

struct arena {
    size_t used; /* bytes in segments that are taken */
    struct segment *first;
};

bool arena_init(struct arena *arena, size_t size);
void arena_end(struct arena *arena);

/* First fit; NULL where there is no room (or no host memory). */
struct segment *arena_take(struct arena *arena, size_t asked);
/* The taken segment with that offset in it; NULL where it is free. */
struct segment *arena_at(const struct arena *arena, size_t offset);
void arena_give(struct arena *arena, struct segment *segment);

#endif
