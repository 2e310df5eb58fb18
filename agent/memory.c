#include "memory.h"
#include "doubt.h"
#include "driver.h"
#include "object.h"
#include "repeat.h"
#include "share.h"

#include <errno.h>
#include <string.h>

static int gpu_of(const struct held *held, const struct client *client, uint32_t parent) {
    return held->config->gpus == 1 ? 0 : holdings_device(client, parent);
}

/* A request for device memory, in whichever form. MAKE asks the driver; SIZE is what it asked for, then what it got. */
struct taking {
    uint32_t root, parent, handle, status;
    uint64_t size;
    bool (*make)(const struct held *held, struct taking *taking, void *message);
};

/* Asks the driver, within the share. 0, or the errno of a call that the driver doesn't take. */
static int take(const struct held *held, struct taking *taking, void *message) {
    struct client *client = held_client(held, taking->root);
    int gpu = client ? gpu_of(held, client, taking->parent) : -1;
    taking->status = STATUS_NO_MEMORY;
    if (gpu < 0)
        return 0;
    uint32_t contexts = client->contexts[gpu] ? client->contexts[gpu] : 1;
    uint64_t hidden = holdings_context_cost(client, (unsigned)gpu, contexts);
    if (taking->size > share_limit((unsigned)gpu) || !share_finds((unsigned)gpu, taking->size + hidden)) {
        share_note_refusal((unsigned)gpu);
        return 0;
    }
    client = held_client(held, taking->root); /* the look for room may have freed it */
    if (!client)
        return 0;
    if (!taking->make(held, taking, message))
        return errno;
    if (taking->status != STATUS_OK)
        return 0;
    client_confirm(client);
    (void)repeat_is_free(held->process->pid, taking->root, taking->handle);
    if (share_fits((unsigned)gpu, taking->size + hidden) &&
        holdings_add(client, taking->handle, taking->parent, OBJECT_MEMORY, (unsigned)gpu, taking->size)) {
        holdings_contexts(client, (unsigned)gpu, contexts);
        return 0;
    }
    held_free(held, taking->root, taking->parent, taking->handle);
    share_note_refusal((unsigned)gpu);
    doubt_add((unsigned)gpu, taking->size); /* the caller chose its name, so another thread may have mapped it */
    taking->status = STATUS_NO_MEMORY;
    return 0;
}

/* The caller never heard of it, and asks again. */
static void undo(const struct held *held, const struct taking *taking) {
    if (taking->status != STATUS_OK)
        return;
    held_free(held, taking->root, taking->parent, taking->handle);
    struct client *client = held_client(held, taking->root);
    if (client)
        holdings_remove(client, taking->handle);
    share_publish(true);
}

static bool make_class(const struct held *held, struct taking *taking, void *message) {
    (void)message;
    struct alloc call = {.root = taking->root,
                         .parent = taking->parent,
                         .handle = taking->handle,
                         .class = CLASS_MEMORY_LOCAL_USER,
                         .params = (uintptr_t)held_params,
                         .params_size = (uint32_t)held->config->params_bytes};
    if (!driver_call(held->file, CALL_ALLOC, &call))
        return false;
    taking->handle = call.handle;
    taking->status = call.status;
    memcpy(&taking->size, held_params + PARAMS_SIZE_AT, sizeof taking->size);
    return true;
}

void memory_alloc(const struct held *held, const struct alloc *call, uint8_t *message, size_t size, size_t status_at) {
    size_t length = held->config->params_bytes;
    if (repeat_is_given(held, call->root, call->handle)) {
        (void)held_deliver(held, message, size); /* its status is that of the first time */
        return;
    }
    uint8_t before[PARAMS_MOST];
    struct taking taking = {.root = call->root, .parent = call->parent, .handle = call->handle, .make = make_class};
    memset(held_params, 0, sizeof held_params);
    int error = 0;
    if (process_read(held->process, call->params, held_params, length)) {
        memcpy(before, held_params, length);
        memcpy(&taking.size, held_params + PARAMS_SIZE_AT, sizeof taking.size);
        error = take(held, &taking, NULL);
    } else {
        taking.status = STATUS_INVALID_ADDRESS;
    }
    if (error) {
        (void)held_answer(held, error);
        return;
    }
    uint8_t original[sizeof(struct alloc)];
    memcpy(original, message, size);
    memcpy(message + status_at, &taking.status, sizeof taking.status);
    bool taken = taking.status == STATUS_OK;
    if (taken)
        memcpy(message + offsetof(struct alloc, handle), &taking.handle, sizeof taking.handle);
    if ((!taken || process_write(held->process, call->params, held_params, length)) && held_deliver(held, message, size)) {
        if (taken)
            repeat_note_given(held, taking.root, taking.handle);
        return;
    }
    undo(held, &taking);
    if (taken) { /* what it asks again with */
        (void)process_write(held->process, call->params, before, length);
        (void)process_write(held->process, held->message, original, size);
    }
    (void)held_answer(held, EFAULT);
}

/* NVOS32's functions that give memory: where attributes and size stand in the message. */
static const struct vid_heap_form {
    uint32_t function;
    uint8_t attr, size;
} forms[] = {{VID_HEAP_ALLOC_SIZE, 56, 88}, {VID_HEAP_ALLOC_TILED, 64, 88}, {VID_HEAP_ALLOC_RANGE, 56, 80}};

static const struct vid_heap_form *form_of(const struct vid_heap *call) {
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (forms[i].function == call->function)
            return &forms[i];
    return NULL;
}

static uint32_t word_at(const struct vid_heap *call, size_t at) {
    uint32_t word = 0;
    memcpy(&word, (const uint8_t *)call + at, sizeof word);
    return word;
}

static uint64_t size_of(const struct vid_heap *call) {
    uint64_t size = 0;
    memcpy(&size, (const uint8_t *)call + form_of(call)->size, sizeof size);
    return size;
}

/* What is asked for: for a surface its rows. What the driver makes of it is seen afterwards. */
static uint64_t asked_size(const struct vid_heap *call) {
    if (call->function != VID_HEAP_ALLOC_TILED)
        return size_of(call);
    int64_t height = word_at(call, 56), pitch = (int32_t)word_at(call, 60);
    return (uint64_t)(height * (pitch < 0 ? -pitch : pitch));
}

static bool make_vid_heap(const struct held *held, struct taking *taking, void *message) {
    memset(held_params, 0, sizeof held_params);
    memcpy(held_params, message, sizeof(struct vid_heap));
    if (!driver_call(held->file, CALL_VID_HEAP, held_params))
        return false;
    struct vid_heap *call = message;
    memcpy(call, held_params, sizeof *call);
    taking->handle = call->handle;
    taking->status = call->status;
    taking->size = size_of(call);
    return true;
}

static void vid_heap_alloc(const struct held *held, struct vid_heap *call) {
    struct vid_heap original = *call;
    struct taking taking = {.root = call->root,
                            .parent = call->parent,
                            .handle = call->handle,
                            .size = asked_size(call),
                            .make = make_vid_heap};
    int error = take(held, &taking, call);
    if (error) {
        (void)held_answer(held, error);
        return;
    }
    call->status = taking.status;
    if (held_deliver(held, call, sizeof *call))
        return;
    undo(held, &taking);
    (void)process_write(held->process, held->message, &original, sizeof original);
}

void memory_vid_heap(const struct held *held) {
    struct vid_heap call;
    memcpy(&call, held->said, sizeof call);
    const struct vid_heap_form *form = form_of(&call);
    if (form && ATTR_IN_DEVICE(word_at(&call, form->attr)) && !(call.flags & ALLOC_VIRTUAL)) {
        vid_heap_alloc(held, &call);
    } else if (call.function == VID_HEAP_FREE && call.type & FREE_HANDLE_PROVIDED) {
        struct free_call same = {.root = call.root, .handle = call.handle};
        object_free(held, &same, &call, sizeof call, &call.status);
    } else {
        held_let_through(held);
    }
}

void memory_heap_size(const struct held *held, struct alloc_memory *call) {
    struct client *client = held_client(held, call->root);
    int gpu = client ? gpu_of(held, client, call->parent) : -1;
    memset(held_params, 0, sizeof held_params);
    memcpy(held_params, call, sizeof *call);
    if (gpu < 0 || !driver_call(held->file, CALL_ALLOC_MEMORY, held_params)) {
        (void)held_answer(held, gpu < 0 ? ENOMEM : errno);
        return;
    }
    memcpy(call, held_params, sizeof *call);
    if (call->status == STATUS_OK) {
        client_confirm(client);
        if (call->limit >= share_limit((unsigned)gpu))
            call->limit = share_limit((unsigned)gpu) - 1;
    }
    if (!held_deliver(held, call, sizeof *call) && call->status == STATUS_OK)
        held_free(held, call->root, call->parent, call->handle);
}
