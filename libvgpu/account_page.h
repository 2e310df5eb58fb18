/* The container's account as it lies in /.runai/account/page: shared by every process of the container that
 * uses a GPU, writable by all of them, all zeroes at the start. How it is worked on: account.c.
 *
 * Amounts are granules of 2 MiB, the unit in which the driver takes device memory (measured: 1 byte takes
 * 2 MiB, 3 MiB take 4). GPUs are numbered as the lines of /.runai/limits.
 */
#ifndef RUNAI_ACCOUNT_PAGE_H
#define RUNAI_ACCOUNT_PAGE_H

#include <stdatomic.h>
#include <stdint.h>

#ifndef RUNAI_DIR
#define RUNAI_DIR "/.runai" /* in the container; the tests of libvgpu use another place */
#endif
#define ACCOUNT_GRANULE_SHIFT 21
#define ACCOUNT_GPUS 16
#define ACCOUNT_SLOTS 1024
#define ACCOUNT_TOTAL_SHIFT 40 /* of the granules in a total */
#define ACCOUNT_HELD_SHIFT 30  /* of those in what a slot holds */

/* One process's part in one GPU. */
struct account_share {
    _Atomic uint64_t intent; /* the change under way: signed granules << 30 | sequence number */
    _Atomic uint64_t held;   /* granules << 30 | sequence number of the last change that is in it */
};

/* One process. A slot is never cleared, only handed on: its sequence numbers go on counting. */
struct account_slot {
    _Atomic uint64_t owner;    /* 0: free; else pid << 32 | what tells it from others of that pid: identity.h */
    _Atomic uint64_t pid_ns;   /* inode of the pid namespace in which the pid means something */
    _Atomic uint64_t image;    /* tells one exec of the process from the next: see identity.c */
    _Atomic uint64_t aside[ACCOUNT_GPUS]; /* contexts << 32 | granules of managed memory: see outside.c */
    struct account_share gpu[ACCOUNT_GPUS];
};

struct account_page {
    _Atomic uint64_t slots;                 /* slots that were ever taken are below this */
    _Atomic uint64_t total[ACCOUNT_GPUS];   /* granules << 40 | last changer's slot << 30 | its sequence number */
    struct account_slot slot[ACCOUNT_SLOTS];
};

#endif
