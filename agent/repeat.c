#include "repeat.h"

#define REMEMBERED 64
static struct {
    pid_t pid;
    uint32_t root, handle;
} freed[REMEMBERED];
static unsigned next_freed;

void repeat_note_free(pid_t pid, uint32_t root, uint32_t handle) {
    freed[next_freed].pid = pid;
    freed[next_freed].root = root;
    freed[next_freed].handle = handle;
    next_freed = (next_freed + 1) % REMEMBERED;
}

bool repeat_is_free(pid_t pid, uint32_t root, uint32_t handle) {
    for (unsigned i = 0; i < REMEMBERED; i++)
        if (freed[i].pid == pid && freed[i].root == root && freed[i].handle == handle) {
            freed[i].pid = 0;
            return true;
        }
    return false;
}

static struct {
    pid_t thread;
    uint32_t root, handle;
    uint64_t message;
} given[REMEMBERED];
static unsigned next_given;

void repeat_note_given(const struct held *held, uint32_t root, uint32_t handle) {
    given[next_given].thread = held->process->thread;
    given[next_given].root = root;
    given[next_given].handle = handle;
    given[next_given].message = held->message;
    next_given = (next_given + 1) % REMEMBERED;
}

bool repeat_is_given(const struct held *held, uint32_t root, uint32_t handle) {
    bool found = false;
    for (unsigned i = 0; handle && i < REMEMBERED; i++)
        found = found || (given[i].thread == held->process->thread && given[i].root == root &&
                          given[i].handle == handle && given[i].message == held->message);
    const struct client *client = found ? held_client(held, root) : NULL;
    return client && client->process == held->process && holdings_know(client, handle);
}
