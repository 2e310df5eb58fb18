/* What the container's agent counts, as it lies in /.runai/page: written by the agent alone, read-only in the container,
 * where libvgpu shows it. Little-endian, 65536 bytes, all zeroes until the agent is up. Amounts are bytes; GPUs are
 * numbered as the lines of /.runai/limits.
 *
 * Each field is written whole. Only the process list is more than one field: the agent makes SEQUENCE odd, writes the
 * list, and makes it even again; who saw the same even number before and after has read one list. */
#ifndef RUNAI_AGENT_PAGE_H
#define RUNAI_AGENT_PAGE_H

#include "account_page.h"
#include <stddef.h>

#define AGENT_PAGE_BYTES 65536
#define AGENT_PAGE_MAGIC UINT64_C(0x3165676150494152)
#define AGENT_PROCESSES 2048

/* A container on one GPU. */
struct agent_gpu {
    _Atomic uint64_t share; /* may change while the container runs */
    _Atomic uint64_t used;  /* all that it holds: contexts, what no ioctl asks for, and managed memory included */
};

/* What one process holds on one GPU. */
struct agent_process {
    _Atomic uint32_t pid; /* in the container's pid namespace */
    _Atomic uint32_t gpu;
    _Atomic uint64_t bytes;
};

struct agent_page {
    _Atomic uint64_t magic; /* AGENT_PAGE_MAGIC; anything else: no agent bounds this container */
    _Atomic uint64_t sequence;
    struct agent_gpu gpu[ACCOUNT_GPUS];
    _Atomic uint64_t process_count;
    struct agent_process process[AGENT_PROCESSES];
    /* Of used, what isn't in the account, where libvgpu charges managed memory against the rest of the share: used is as
     * old as the agent's last look at the account, and several charges can come before the next. */
    _Atomic uint64_t device[ACCOUNT_GPUS];
    /* For the administrator's eyes (runai-ctl), by agents that count them: COUNTED is 1 then. Peak is the largest that used
     * has been; refused the number of requests for memory that found no room in the share. */
    _Atomic uint64_t counted;
    _Atomic uint64_t peak[ACCOUNT_GPUS];
    _Atomic uint64_t refused[ACCOUNT_GPUS];
};

_Static_assert(sizeof(struct agent_page) <= AGENT_PAGE_BYTES, "as long as the file");
_Static_assert(offsetof(struct agent_page, gpu) == 16 && sizeof(struct agent_process) == 16 &&
                   offsetof(struct agent_page, process) == 24 + 16 * ACCOUNT_GPUS,
               "no padding: the same wherever it is compiled");

#endif
