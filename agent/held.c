#include "held.h"
#include "doubt.h"
#include "notification.h"
#include "share.h"

#include <errno.h>
#include <string.h>

_Alignas(4096) uint8_t held_params[PARAMS_MOST];

void held_let_through(const struct held *held) {
    *held->let_through = true;
    held->process->continued = true;
    notification_continue(held->listener, held->id);
}

bool held_answer(const struct held *held, int error) {
    share_publish(true);
    return notification_answer(held->listener, held->id, error);
}

bool held_deliver(const struct held *held, const void *message, size_t size) {
    bool put = memcmp(message, held->said, size) == 0 || process_write(held->process, held->message, message, size);
    return held_answer(held, put ? 0 : EFAULT);
}

struct client *held_client(const struct held *held, uint32_t root) {
    return client_of(held->process, root, held->file, held->remote);
}

void held_free(const struct held *held, uint32_t root, uint32_t parent, uint32_t handle) {
    struct free_call call = {.root = root, .parent = parent, .handle = handle};
    (void)doubt_free(held->file, &call);
}
