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
#include <unistd.h>

#if defined __x86_64__
#define NATIVE AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define NATIVE AUDIT_ARCH_AARCH64
#endif

static void answer_alloc(const struct held *held) {
    struct alloc call;
    if (!process_read(held->process, held->message, &call, sizeof call))
        (void)held_answer(held, EFAULT);
    else if (call.class == CLASS_MEMORY_LOCAL_USER)
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
    if (!process_read(held->process, held->message, &call, sizeof call)) {
        (void)held_answer(held, EFAULT);
    } else if (call.class == CLASS_MEMORY_LOCAL_USER) {
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
    if (!process_read(held->process, held->message, &call, sizeof call)) {
        (void)held_answer(held, EFAULT);
    } else if (call.class == CLASS_MEMORY_LOCAL_USER) {
        memory_heap_size(held, &call);
    } else {
        held_let_through(held);
    }
}

static void answer_free(const struct held *held) {
    struct free_call call;
    if (process_read(held->process, held->message, &call, sizeof call))
        object_free(held, &call, &call, sizeof call, &call.status);
    else
        (void)held_answer(held, EFAULT);
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
    held.process = process_of((pid_t)notice->pid);
    if (!held.process || !notification_waits(listener, notice->id)) {
        (void)held_answer(&held, ENOMEM);
        return false;
    }
    held.file = process_descriptor(held.process, held.remote);
    if (held.file < 0 || !driver_is_node(held.file)) {
        held_let_through(&held); /* another file's call of that number; it may be a device's when it is made */
    } else if (notice->data.arch != NATIVE) {
        (void)held_answer(&held, EPERM); /* 32-bit programs: no driver of today has CUDA for them */
    } else if (!driver_open(config)) {
        (void)held_answer(&held, ENODEV);
    } else {
        container_find();
        dispatch(&held, call);
    }
    client_forget_unconfirmed();
    if (held.file >= 0)
        (void)close(held.file);
    return was_let_through;
}
