/* The plan: what the shim wants done in a container's mount namespace (docs/architecture.md). */
#ifndef RUNAI_PLAN_H
#define RUNAI_PLAN_H

#include <stddef.h>

enum kind {
    KIND_REAL,
    KIND_IMAGE_REAL,
    KIND_OURS,
    KIND_LIBRARY,
    KIND_PROGRAM,
    KIND_DEVICE,
    KIND_SEARCH,
    KIND_PRELOAD
};

struct item {
    enum kind kind;
    const char *name;   /* SONAME, NAME or TARGET; the FOLDER of a search, the PATH of a preload */
    const char *source; /* on the host; in the container for an image's own library; NULL for a search or preload */
    const char *stamp;  /* of an image's own library, as the shim saw it; else NULL */
};

#define PLAN_BYTES ((size_t)1 << 20)
#define PLAN_ITEMS 1024

struct plan {
    const char *rootfs;
    size_t count;
    struct item items[PLAN_ITEMS];
};

/* Reads the plan that lies in the container's state directory. Its texts stay valid as long as the program runs; a
 * second call overwrites them. Returns NULL, or what is wrong; then errno is ENOENT where there is no plan at all. */
const char *plan_read(int state, struct plan *plan);

#endif
