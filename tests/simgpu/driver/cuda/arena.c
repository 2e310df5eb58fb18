#include "arena.h"

#include <stdlib.h>

bool arena_init(struct arena *arena, size_t size)
{
    struct segment *all = calloc(1, sizeof *all);
    if (!all)
        return false;
    all->length = size;
    *arena = (struct arena){ .first = all };
    return true;
}

void arena_end(struct arena *arena)
{
    while (arena->first) {
        struct segment *next = arena->first->next;
        free(arena->first);
        arena->first = next;
    }
}

struct segment *arena_take(struct arena *arena, size_t asked)
{
    size_t length = (asked + ARENA_STEP - 1) & ~(size_t)(ARENA_STEP - 1);
    struct segment *segment = arena->first;
    while (segment && (segment->asked || segment->length < length))
        segment = segment->next;
    if (!segment)
        return NULL;
    if (segment->length > length) {
        struct segment *rest = calloc(1, sizeof *rest);
        if (!rest)
            return NULL;
        *rest = (struct segment){
            .offset = segment->offset + length, .length = segment->length - length, .next = segment->next
        };
        segment->next = rest;
        segment->length = length;
    }
    segment->asked = asked;
    arena->used += length;
    return segment;
}

struct segment *arena_at(const struct arena *arena, size_t offset)
{
    struct segment *segment = arena->first;
    while (segment && offset >= segment->offset + segment->length)
        segment = segment->next;
    return segment && segment->asked ? segment : NULL;
}

static void join_next(struct segment *segment)
{
    struct segment *next = segment->next;
    if (!next || next->asked || segment->asked)
        return;
    segment->length += next->length;
    segment->next = next->next;
    free(next);
}

void arena_give(struct arena *arena, struct segment *segment)
{
    arena->used -= segment->length;
    segment->asked = 0;
    join_next(segment);
    struct segment *before = arena->first;
    while (before != segment && before->next != segment)
        before = before->next;
    if (before != segment)
        join_next(before);
}
