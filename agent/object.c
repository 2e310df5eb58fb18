#include "object.h"
#include "doubt.h"
#include "driver.h"
#include "repeat.h"
#include "share.h"

#include <errno.h>
#include <string.h>

/* Writes back what the driver changed of LENGTH bytes of parameters, and no more: a class may have less, and what lies behind
 * them can be another thread's. */
static bool write_changed(const struct held *held, uint64_t address, const uint8_t *before, size_t length) {
    size_t first = 0, end = length;
    while (first < end && before[first] == held_params[first])
        first++;
    while (end > first && before[end - 1] == held_params[end - 1])
        end--;
    return first == end || process_write(held->process, address + first, held_params + first, end - first);
}

/* Makes an object that isn't memory here, on a copy of CALL and of LENGTH bytes of parameters: its handle is known then. */
static void make_object(const struct held *held, const struct alloc *call, size_t length, enum kind kind, int gpu) {
    struct alloc copy = *call;
    uint8_t before[CHANNEL_PARAMS];
    memcpy(before, held_params, length);
    struct client *client = held_client(held, call->root);
    copy.params = call->params ? (uintptr_t)held_params : 0;
    copy.rights = 0; /* an address, which would be one of ours */
    if (!client || !driver_call(held->file, CALL_ALLOC, &copy)) {
        (void)held_answer(held, client ? errno : ENOMEM);
        return;
    }
    copy.params = call->params;
    copy.rights = call->rights;
    bool made = copy.status == STATUS_OK;
    if (made)
        client_confirm(client);
    if (made && gpu >= 0)
        (void)holdings_add(client, copy.handle, copy.parent, kind, (unsigned)gpu, 0);
    bool heard = !made || !call->params || write_changed(held, call->params, before, length);
    if ((heard && held_deliver(held, &copy, sizeof copy)) || !made)
        return;
    held_free(held, copy.root, copy.parent, copy.handle);
    holdings_remove(client, copy.handle);
    (void)held_answer(held, EFAULT);
}

static bool read_params(const struct held *held, const struct alloc *call, size_t length) {
    size_t page = 4096 - call->params % 4096; /* nothing may lie behind it */
    memset(held_params, 0, sizeof held_params);
    return !call->params || process_read(held->process, call->params, held_params, length) ||
           (page < length && process_read(held->process, call->params, held_params, page));
}

void object_device(const struct held *held, const struct alloc *call) {
    uint32_t instance = 0;
    if (!read_params(held, call, DEVICE_PARAMS)) {
        (void)held_answer(held, EFAULT);
        return;
    }
    memcpy(&instance, held_params, sizeof instance);
    /* Devices lie below their client alone (holdings.c counts on it); the driver refuses others. */
    int gpu = call->parent == call->root ? driver_gpu(instance) : -1;
    make_object(held, call, DEVICE_PARAMS, OBJECT_DEVICE, gpu);
}

/* Groups and channels lie below their device. Below anything else it is a guess: a channel that the driver refuses there,
 * or a device that the agent has not seen being made. */
static unsigned gpu_of(const struct held *held, const struct client *client, uint32_t parent) {
    int gpu = held->config->gpus > 1 ? holdings_device(client, parent) : 0;
    return gpu >= 0 ? (unsigned)gpu : client->gpu;
}

static void make_context(const struct held *held, struct alloc *call, size_t length, size_t engine_at) {
    struct client *client = held_client(held, call->root);
    unsigned gpu = client ? gpu_of(held, client, call->parent) : 0;
    uint32_t engine = 0;
    if (!read_params(held, call, length)) {
        (void)held_answer(held, EFAULT);
        return;
    }
    memcpy(&engine, held_params + engine_at, sizeof engine);
    enum kind kind = IS_GRAPHICS(engine) ? OBJECT_CONTEXT : OBJECT_GROUP;
    if (!client || (kind == OBJECT_CONTEXT &&
                    !share_finds(gpu, holdings_context_cost(client, gpu, client->shares[gpu] + 1)))) {
        if (client)
            share_note_refusal(gpu);
        call->status = STATUS_NO_MEMORY;
        (void)held_deliver(held, call, sizeof *call);
        return;
    }
    make_object(held, call, length, kind, (int)gpu);
}

void object_group(const struct held *held, struct alloc *call) {
    make_context(held, call, GROUP_PARAMS, GROUP_ENGINE_AT);
}

void object_channel(const struct held *held, struct alloc *call) {
    const struct client *client = held_client(held, call->root);
    if (client && holdings_is_group(client, call->parent))
        held_let_through(held);
    else
        make_context(held, call, CHANNEL_PARAMS, CHANNEL_ENGINE_AT);
}

void object_free(const struct held *held, struct free_call *call, void *message, size_t size, uint32_t *status) {
    pid_t pid = held->process->pid;
    struct client *owner = held_client(held, call->root);
    if (owner)
        holdings_free_memory(owner, held->file, call->handle);
    if (!doubt_free(held->file, call)) {
        (void)held_answer(held, errno);
        return;
    }
    if (call->status == STATUS_OK) {
        struct client *client = held_client(held, call->root);
        if (client)
            client_confirm(client);
        if (client && call->handle == call->root)
            client_remove(client);
        else if (client)
            holdings_remove(client, call->handle);
    } else if (repeat_is_free(pid, call->root, call->handle)) {
        call->status = STATUS_OK;
    }
    *status = call->status;
    (void)held_deliver(held, message, size);
    if (call->status == STATUS_OK)
        repeat_note_free(pid, call->root, call->handle);
}

void object_dup(const struct held *held) {
    struct dup call;
    memcpy(&call, held->said, sizeof call);
    struct client *client = held_client(held, call.root);
    if (!client) {
        call.status = STATUS_NO_MEMORY;
        (void)held_deliver(held, &call, sizeof call);
        return;
    }
    if (!driver_call(held->file, CALL_DUP, &call)) {
        (void)held_answer(held, errno);
        return;
    }
    bool good = call.status == STATUS_OK;
    if (good) {
        client_confirm(client);
        (void)repeat_is_free(held->process->pid, call.root, call.handle);
    }
    if (good && !holdings_dup(client, call.handle, call.parent, call.source_root, call.source)) {
        held_free(held, call.root, call.parent, call.handle);
        call.status = STATUS_NO_MEMORY;
    }
    if (!held_deliver(held, &call, sizeof call) && good) {
        held_free(held, call.root, call.parent, call.handle);
        holdings_remove(client, call.handle);
    }
}
