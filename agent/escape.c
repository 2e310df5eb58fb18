/* What was checked is what runs: a call that is charged is made here, on a copy of its message and on the caller's own
 * descriptor. Everything else is continued, which never means checked: another thread can change the message after the
 * look. What comes of that is seen in the driver's figures (reconcile.c). */
#include "escape.h"
#include "container.h"
#include "driver.h"
#include "held.h"
#include "memory.h"
#include "notification.h"
#include "object.h"

#include <errno.h>
#include <linux/audit.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#if defined __x86_64__
#define NATIVE AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define NATIVE AUDIT_ARCH_AARCH64
#endif

static void answer_alloc(const struct held *held) {
    struct alloc call;
    memcpy(&call, held->said, sizeof call);
    if (call.class == CLASS_MEMORY_LOCAL_USER)
        memory_alloc(held, &call, (uint8_t *)&call, sizeof call, offsetof(struct alloc, status));
    else if (call.class == CLASS_DEVICE && held->config->gpus > 1)
        object_device(held, &call);
    else if (call.class == CLASS_CHANNEL_GROUP)
        object_group(held, &call);
    else if (IS_CHANNEL(call.class))
        object_channel(held, &call);
    else
        held_let_through(held);
}

static void answer_alloc_old(const struct held *held) {
    struct alloc_old call;
    memcpy(&call, held->said, sizeof call);
    if (call.class == CLASS_MEMORY_LOCAL_USER) {
        struct alloc same = {
            .root = call.root, .parent = call.parent, .handle = call.handle, .class = call.class, .params = call.params};
        memory_alloc(held, &same, (uint8_t *)&call, sizeof call, offsetof(struct alloc_old, status));
    } else if (call.class == CLASS_CHANNEL_GROUP || IS_CHANNEL(call.class)) { /* no library of today uses this form */
        call.status = STATUS_NOT_SUPPORTED;
        (void)held_deliver(held, &call, sizeof call);
    } else {
        held_let_through(held);
    }
}

static void answer_alloc_memory(const struct held *held) {
    struct alloc_memory call;
    memcpy(&call, held->said, sizeof call);
    if (call.class == CLASS_MEMORY_LOCAL_USER)
        memory_heap_size(held, &call);
    else
        held_let_through(held);
}

static void answer_free(const struct held *held) {
    struct free_call call;
    memcpy(&call, held->said, sizeof call);
    object_free(held, &call, &call, sizeof call, &call.status);
}

static void dispatch(const struct held *held, uint32_t call) {
    switch (call) {
    case CALL_ALLOC: answer_alloc(held); return;
    case CALL_ALLOC_OLD: answer_alloc_old(held); return;
    case CALL_FREE: answer_free(held); return;
    case CALL_DUP: object_dup(held); return;
    case CALL_ALLOC_MEMORY: answer_alloc_memory(held); return;
    case CALL_VID_HEAP: memory_vid_heap(held); return;
    default: held_let_through(held); return;
    }
}

/* The message as it stands now: all have their client in the first word. false where it can't be read. */
static bool read_message(struct held *held, uint32_t call) {
    static uint8_t message[sizeof(struct vid_heap)];
    size_t size = call >> 16;
    held->said = message;
    return size <= sizeof message && process_read(held->process, held->message, message, size);
}

/* A client that the caller has made calls for before has a copy of its file, which mostly is this one. Otherwise a copy is
 * made now: *FRESH. */
static bool find_file(struct held *held, bool read, int *fresh) {
    uint32_t root = 0;
    memcpy(&root, held->said, sizeof root);
    held->file = read ? holdings_file(held->process, root, held->remote) : -1;
    if (held->file < 0)
        held->file = *fresh = process_descriptor(held->process, held->remote);
    return held->file >= 0 && (*fresh < 0 || driver_is_node(*fresh));
}

bool escape_answer(const struct config *config, int listener, const struct seccomp_notif *notice) {
    bool was_let_through = false;
    struct held held = {.config = config,
                        .listener = listener,
                        .id = notice->id,
                        .message = notice->data.args[2],
                        .remote = (int)notice->data.args[0],
                        .file = -1,
                        .let_through = &was_let_through};
    uint32_t call = (uint32_t)notice->data.args[1] & REQUEST_MASK;
    int fresh = -1;
    held.process = process_of((pid_t)notice->pid);
    if (!held.process || !notification_waits(listener, notice->id)) {
        (void)held_answer(&held, ENOMEM);
        return false;
    }
    bool read = read_message(&held, call);
    if (!find_file(&held, read, &fresh)) {
        held_let_through(&held); /* another file's call of that number; it may be a device's when it is made */
    } else if (notice->data.arch != NATIVE) {
        (void)held_answer(&held, EPERM); /* 32-bit programs: no driver of today has CUDA for them */
    } else if (!read) {
        (void)held_answer(&held, EFAULT);
    } else if (!driver_open(config)) {
        (void)held_answer(&held, ENODEV);
    } else {
        container_find();
        dispatch(&held, call);
    }
    client_forget_unconfirmed();
    holdings_done();
    if (fresh >= 0)
        (void)close(fresh);
    return was_let_through;
}
