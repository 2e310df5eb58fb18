/* Time that only passes: nobody sets it. */
#ifndef RUNAI_AGENT_CLOCK_H
#define RUNAI_AGENT_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif
