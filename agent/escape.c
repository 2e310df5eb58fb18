/* What was checked is what runs: a call that is charged is made here, on a copy of its message and on the caller's own
 * descriptor. Everything else is continued, which never means checked: another thread can change the message after the
 * look. What comes of that is seen in the driver's figures (reconcile.c). */
#include "escape.h"
#include "abi.h"
#include "driver.h"
#include "holdings.h"
#include "notification.h"
#include "share.h"

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

/* A call under way. */
struct escape {
    const struct config *config;
    int listener;
    uint64_t id, message; /* where the caller's message lies */
    struct process *process;
    int file, remote; /* our copy of its descriptor, and its number there */
    bool *let_through;
};

/* The driver copies as many bytes of parameters as the class has, whatever the message says: always a page. */
static _Alignas(4096) uint8_t params[PARAMS_MOST];

static void let_through(const struct escape *escape) {
    *escape->let_through = true;
    escape->process->continued = true;
    notification_continue(escape->listener, escape->id);
}

/* The page comes first: whoever has its answer may look at it. */
static bool answer(const struct escape *escape, int error) {
    share_publish(true);
    return notification_answer(escape->listener, escape->id, error);
}

/* Writes the message back and answers. false: the caller waits no more. */
static bool deliver(const struct escape *escape, const void *message, size_t size) {
    return answer(escape, process_write(escape->process, escape->message, message, size) ? 0 : EFAULT);
}

static struct client *client_for(const struct escape *escape, uint32_t root) {
    return client_of(escape->process, root, escape->file, escape->remote);
}

static int gpu_of(const struct escape *escape, const struct client *client, uint32_t parent) {
    return escape->config->gpus == 1 ? 0 : holdings_device(client, parent);
}

/* Whether the share has room, if need be after a look for what nobody has any more. */
static bool fits(unsigned gpu, uint64_t bytes) {
    return share_fits(gpu, bytes) || (holdings_sweep() && share_fits(gpu, bytes));
}

static void driver_free(const struct escape *escape, uint32_t root, uint32_t parent, uint32_t handle) {
    struct free_call call = {.root = root, .parent = parent, .handle = handle};
    (void)driver_call(escape->file, CALL_FREE, &call);
}

/* ---- frees that are made again ------------------------------------------------------------------------------- */

/* A caller that a signal interrupts makes its call again. It can miss an answer of which the kernel says that it was
 * taken, so the last frees are all remembered. The driver is asked first: the name may be another object's by now. */

#define FREED 64
static struct {
    pid_t pid;
    uint32_t root, handle;
} freed[FREED];
static unsigned next_freed;

static void remember_free(pid_t pid, uint32_t root, uint32_t handle) {
    freed[next_freed].pid = pid;
    freed[next_freed].root = root;
    freed[next_freed].handle = handle;
    next_freed = (next_freed + 1) % FREED;
}

/* Whether that free was made already. It is forgotten with that. */
static bool recall_free(pid_t pid, uint32_t root, uint32_t handle) {
    for (unsigned i = 0; i < FREED; i++)
        if (freed[i].pid == pid && freed[i].root == root && freed[i].handle == handle) {
            freed[i].pid = 0;
            return true;
        }
    return false;
}

/* ---- memory that is asked for again --------------------------------------------------------------------------- */

/* As with frees: the message that is made again has the handle that it was answered with. */
static struct {
    pid_t thread;
    uint32_t root, handle;
    uint64_t message;
} given[FREED];
static unsigned next_given;

static void remember_given(const struct escape *escape, uint32_t root, uint32_t handle) {
    given[next_given].thread = escape->process->thread;
    given[next_given].root = root;
    given[next_given].handle = handle;
    given[next_given].message = escape->message;
    next_given = (next_given + 1) % FREED;
}

/* Whether this very message was answered with HANDLE, which is still there. */
static bool was_given(const struct escape *escape, uint32_t root, uint32_t handle) {
    bool found = false;
    for (unsigned i = 0; handle && i < FREED; i++)
        found = found || (given[i].thread == escape->process->thread && given[i].root == root &&
                          given[i].handle == handle && given[i].message == escape->message);
    const struct client *client = found ? client_for(escape, root) : NULL;
    return client && client->process == escape->process && holdings_know(client, handle);
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

/* A request for device memory, in whichever form. MAKE asks the driver; SIZE is what it asked for, then what it got. */
struct taking {
    uint32_t root, parent, handle, status;
    uint64_t size;
    bool (*make)(const struct escape *escape, struct taking *taking, void *message);
};

/* Asks the driver, within the share. 0, or the errno of a call that the driver doesn't take. */
static int take(const struct escape *escape, struct taking *taking, void *message) {
    struct client *client = client_for(escape, taking->root);
    int gpu = client ? gpu_of(escape, client, taking->parent) : -1;
    taking->status = STATUS_NO_MEMORY;
    if (gpu < 0)
        return 0;
    uint32_t contexts = client->contexts[gpu] ? client->contexts[gpu] : 1;
    uint64_t hidden = holdings_context_cost(client, (unsigned)gpu, contexts);
    if (taking->size > share_limit((unsigned)gpu) || !fits((unsigned)gpu, taking->size + hidden))
        return 0;
    client = client_for(escape, taking->root); /* the look for room may have freed it */
    if (!client)
        return 0;
    if (!taking->make(escape, taking, message))
        return errno;
    if (taking->status != STATUS_OK)
        return 0;
    client_confirm(client);
    (void)recall_free(escape->process->pid, taking->root, taking->handle);
    if (share_fits((unsigned)gpu, taking->size + hidden) &&
        holdings_add(client, taking->handle, taking->parent, OBJECT_MEMORY, (unsigned)gpu, taking->size)) {
        holdings_contexts(client, (unsigned)gpu, contexts);
        return 0;
    }
    driver_free(escape, taking->root, taking->parent, taking->handle);
    taking->status = STATUS_NO_MEMORY;
    return 0;
}

/* The caller never heard of it, and asks again. */
static void undo(const struct escape *escape, const struct taking *taking) {
    if (taking->status != STATUS_OK)
        return;
    driver_free(escape, taking->root, taking->parent, taking->handle);
    struct client *client = client_for(escape, taking->root);
    if (client)
        holdings_remove(client, taking->handle);
    share_publish(true);
}

static bool make_class(const struct escape *escape, struct taking *taking, void *message) {
    (void)message;
    struct alloc call = {.root = taking->root,
                         .parent = taking->parent,
                         .handle = taking->handle,
                         .class = CLASS_MEMORY_LOCAL_USER,
                         .params = (uintptr_t)params,
                         .params_size = (uint32_t)escape->config->params_bytes};
    if (!driver_call(escape->file, CALL_ALLOC, &call))
        return false;
    taking->handle = call.handle;
    taking->status = call.status;
    memcpy(&taking->size, params + PARAMS_SIZE_AT, sizeof taking->size);
    return true;
}

/* Class 0x40, of which CALL says what and where the parameters lie. MESSAGE of SIZE bytes is written back with the handle
 * at the place where all forms have it, and the status at STATUS_AT. */
static void alloc_memory(const struct escape *escape, const struct alloc *call, uint8_t *message, size_t size,
                         size_t status_at) {
    size_t length = escape->config->params_bytes;
    if (was_given(escape, call->root, call->handle)) {
        (void)deliver(escape, message, size); /* its status is that of the first time */
        return;
    }
    uint8_t before[PARAMS_MOST];
    struct taking taking = {.root = call->root, .parent = call->parent, .handle = call->handle, .make = make_class};
    memset(params, 0, sizeof params);
    int error = 0;
    if (process_read(escape->process, call->params, params, length)) {
        memcpy(before, params, length);
        memcpy(&taking.size, params + PARAMS_SIZE_AT, sizeof taking.size);
        error = take(escape, &taking, NULL);
    } else {
        taking.status = STATUS_INVALID_ADDRESS;
    }
    if (error) {
        (void)answer(escape, error);
        return;
    }
    uint8_t original[sizeof(struct alloc)];
    memcpy(original, message, size);
    memcpy(message + status_at, &taking.status, sizeof taking.status);
    bool taken = taking.status == STATUS_OK;
    if (taken)
        memcpy(message + offsetof(struct alloc, handle), &taking.handle, sizeof taking.handle);
    if ((!taken || process_write(escape->process, call->params, params, length)) && deliver(escape, message, size)) {
        if (taken)
            remember_given(escape, taking.root, taking.handle);
        return;
    }
    undo(escape, &taking);
    if (taken) { /* what it asks again with */
        (void)process_write(escape->process, call->params, before, length);
        (void)process_write(escape->process, escape->message, original, size);
    }
    (void)answer(escape, EFAULT);
}

/* Makes an object that isn't memory here, on a copy of CALL and of LENGTH bytes of parameters: its handle is known then. */
static void make_object(const struct escape *escape, const struct alloc *call, size_t length, enum kind kind, int gpu) {
    struct alloc copy = *call;
    struct client *client = client_for(escape, call->root);
    copy.params = call->params ? (uintptr_t)params : 0;
    copy.rights = 0; /* an address, which would be one of ours */
    if (!client || !driver_call(escape->file, CALL_ALLOC, &copy)) {
        (void)answer(escape, client ? errno : ENOMEM);
        return;
    }
    copy.params = call->params;
    copy.rights = call->rights;
    bool made = copy.status == STATUS_OK;
    if (made)
        client_confirm(client);
    if (made && gpu >= 0)
        (void)holdings_add(client, copy.handle, copy.parent, kind, (unsigned)gpu, 0);
    bool heard = !made || !call->params || process_write(escape->process, call->params, params, length);
    if ((heard && deliver(escape, &copy, sizeof copy)) || !made)
        return;
    driver_free(escape, copy.root, copy.parent, copy.handle);
    holdings_remove(client, copy.handle);
    (void)answer(escape, EFAULT);
}

static bool read_params(const struct escape *escape, const struct alloc *call, size_t length) {
    memset(params, 0, sizeof params);
    return !call->params || process_read(escape->process, call->params, params, length);
}

/* A device, made here where there are several: it tells the GPU of what is allocated below it. */
static void alloc_device(const struct escape *escape, const struct alloc *call) {
    uint32_t instance = 0;
    if (!read_params(escape, call, DEVICE_PARAMS)) {
        (void)answer(escape, EFAULT);
        return;
    }
    memcpy(&instance, params, sizeof instance);
    /* Devices lie below their client alone (holdings.c counts on it); the driver refuses others. */
    int gpu = call->parent == call->root ? driver_gpu(instance) : -1;
    make_object(escape, call, DEVICE_PARAMS, OBJECT_DEVICE, gpu);
}

/* The driver takes memory for a context of which no call tells. */
static void alloc_context(const struct escape *escape, struct alloc *call) {
    struct client *client = client_for(escape, call->root);
    unsigned gpu = client ? client->gpu : 0;
    if (!client || !fits(gpu, holdings_context_cost(client, gpu, client->shares[gpu] + 1))) {
        call->status = STATUS_NO_MEMORY;
        (void)deliver(escape, call, sizeof *call);
        return;
    }
    client = client_for(escape, call->root); /* the look for room may have freed it */
    /* A handle that is taken: the driver refuses it, and what it stands for stays. */
    if (client && client->confirmed && call->handle && !holdings_know(client, call->handle)) {
        (void)holdings_add(client, call->handle, call->parent, OBJECT_CONTEXT, gpu, 0);
        let_through(escape);
    } else if (read_params(escape, call, CONTEXT_PARAMS)) {
        make_object(escape, call, CONTEXT_PARAMS, OBJECT_CONTEXT, (int)gpu);
    } else {
        (void)answer(escape, EFAULT);
    }
}

static void answer_alloc(const struct escape *escape) {
    struct alloc call;
    if (!process_read(escape->process, escape->message, &call, sizeof call))
        (void)answer(escape, EFAULT);
    else if (call.class == CLASS_MEMORY_LOCAL_USER)
        alloc_memory(escape, &call, (uint8_t *)&call, sizeof call, offsetof(struct alloc, status));
    else if (call.class == CLASS_DEVICE && escape->config->gpus > 1)
        alloc_device(escape, &call);
    else if (call.class == CLASS_CONTEXT_SHARE)
        alloc_context(escape, &call);
    else
        let_through(escape);
}

static void answer_alloc_old(const struct escape *escape) {
    struct alloc_old call;
    if (!process_read(escape->process, escape->message, &call, sizeof call)) {
        (void)answer(escape, EFAULT);
    } else if (call.class == CLASS_MEMORY_LOCAL_USER) {
        struct alloc same = {
            .root = call.root, .parent = call.parent, .handle = call.handle, .class = call.class, .params = call.params};
        alloc_memory(escape, &same, (uint8_t *)&call, sizeof call, offsetof(struct alloc_old, status));
    } else if (call.class == CLASS_CONTEXT_SHARE) { /* no driver library of today asks for one in this form */
        call.status = STATUS_NOT_SUPPORTED;
        (void)deliver(escape, &call, sizeof call);
    } else {
        let_through(escape);
    }
}

static bool make_vid_heap(const struct escape *escape, struct taking *taking, void *message) {
    memset(params, 0, sizeof params);
    memcpy(params, message, sizeof(struct vid_heap));
    if (!driver_call(escape->file, CALL_VID_HEAP, params))
        return false;
    struct vid_heap *call = message;
    memcpy(call, params, sizeof *call);
    taking->handle = call->handle;
    taking->status = call->status;
    taking->size = call->size;
    return true;
}

static void answer_vid_heap(const struct escape *escape) {
    struct vid_heap call, original;
    if (!process_read(escape->process, escape->message, &call, sizeof call)) {
        (void)answer(escape, EFAULT);
        return;
    }
    if (call.function != VID_HEAP_ALLOC_SIZE || ATTR_LOCATION(call.attr) == LOCATION_SYSTEM) {
        let_through(escape);
        return;
    }
    original = call;
    struct taking taking = {
        .root = call.root, .parent = call.parent, .handle = call.handle, .size = call.size, .make = make_vid_heap};
    int error = take(escape, &taking, &call);
    if (error) {
        (void)answer(escape, error);
        return;
    }
    call.status = taking.status;
    if (deliver(escape, &call, sizeof call))
        return;
    undo(escape, &taking);
    (void)process_write(escape->process, escape->message, &original, sizeof original);
}

/* An older way to ask for memory, of which nothing that is sold today makes use for the device's. */
static void answer_alloc_memory(const struct escape *escape) {
    struct alloc_memory call;
    if (!process_read(escape->process, escape->message, &call, sizeof call)) {
        (void)answer(escape, EFAULT);
    } else if (call.class == CLASS_MEMORY_LOCAL_USER) {
        call.status = STATUS_NOT_SUPPORTED;
        (void)deliver(escape, &call, sizeof call);
    } else {
        let_through(escape);
    }
}

static void answer_free(const struct escape *escape) {
    struct free_call call;
    if (!process_read(escape->process, escape->message, &call, sizeof call)) {
        (void)answer(escape, EFAULT);
        return;
    }
    pid_t pid = escape->process->pid;
    if (!driver_call(escape->file, CALL_FREE, &call)) {
        (void)answer(escape, errno);
        return;
    }
    if (call.status == STATUS_OK) {
        struct client *client = client_for(escape, call.root);
        if (client)
            client_confirm(client);
        if (client && call.handle == call.root)
            client_remove(client);
        else if (client)
            holdings_remove(client, call.handle);
    } else if (recall_free(pid, call.root, call.handle)) {
        call.status = STATUS_OK;
    }
    (void)deliver(escape, &call, sizeof call);
    if (call.status == STATUS_OK)
        remember_free(pid, call.root, call.handle);
}

static void answer_dup(const struct escape *escape) {
    struct dup call;
    if (!process_read(escape->process, escape->message, &call, sizeof call)) {
        (void)answer(escape, EFAULT);
        return;
    }
    struct client *client = client_for(escape, call.root);
    if (!client) {
        call.status = STATUS_NO_MEMORY;
        (void)deliver(escape, &call, sizeof call);
        return;
    }
    if (!driver_call(escape->file, CALL_DUP, &call)) {
        (void)answer(escape, errno);
        return;
    }
    bool good = call.status == STATUS_OK;
    if (good) {
        client_confirm(client);
        (void)recall_free(escape->process->pid, call.root, call.handle);
    }
    if (good && !holdings_dup(client, call.handle, call.parent, call.source_root, call.source)) {
        driver_free(escape, call.root, call.parent, call.handle);
        call.status = STATUS_NO_MEMORY;
    }
    if (!deliver(escape, &call, sizeof call) && good) {
        driver_free(escape, call.root, call.parent, call.handle);
        holdings_remove(client, call.handle);
    }
}

static void dispatch(const struct escape *escape, uint32_t call) {
    switch (call) {
    case CALL_ALLOC: answer_alloc(escape); return;
    case CALL_ALLOC_OLD: answer_alloc_old(escape); return;
    case CALL_FREE: answer_free(escape); return;
    case CALL_DUP: answer_dup(escape); return;
    case CALL_ALLOC_MEMORY: answer_alloc_memory(escape); return;
    case CALL_VID_HEAP: answer_vid_heap(escape); return;
    default: let_through(escape); return;
    }
}

bool escape_answer(const struct config *config, int listener, const struct seccomp_notif *notice) {
    bool was_let_through = false;
    struct escape escape = {.config = config,
                            .listener = listener,
                            .id = notice->id,
                            .message = notice->data.args[2],
                            .remote = (int)notice->data.args[0],
                            .file = -1,
                            .let_through = &was_let_through};
    uint32_t call = (uint32_t)notice->data.args[1] & REQUEST_MASK;
    escape.process = process_of((pid_t)notice->pid);
    if (!escape.process || !notification_waits(listener, notice->id)) {
        (void)answer(&escape, ENOMEM);
        return false;
    }
    escape.file = process_descriptor(escape.process, escape.remote);
    if (escape.file < 0 || !driver_is_node(escape.file))
        let_through(&escape); /* another file's call of that number, or a bad descriptor; it may be a device's when it is made */
    else if (notice->data.arch != NATIVE)
        (void)answer(&escape, EPERM); /* 32-bit programs: no driver of today has CUDA for them */
    else if (!driver_open(config))
        (void)answer(&escape, ENODEV);
    else
        dispatch(&escape, call);
    client_forget_unconfirmed();
    if (escape.file >= 0)
        (void)close(escape.file);
    return was_let_through;
}
