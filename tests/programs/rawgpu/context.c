/* Contexts as the driver has them: an address space, a group of channels that belongs to it, and a share of the GPU in
 * that group (FERMI_VASPACE_A, KEPLER_CHANNEL_GROUP_A, FERMI_CONTEXT_SHARE_A). The driver reserves memory of the device for
 * a group's buffers that no call names, and for those of a channel that is in no group.
 */
#include "rawgpu.h"

#define CLASS_ADDRESS_SPACE 0x90F1

/* NV_VASPACE_ALLOCATION_PARAMETERS of 580: all 0 is a new one of the usual size. The driver copies as much as its class
 * has, whatever the caller says, so there is more room than that in each of these.
 */
struct space_params {
    uint8_t all[128];
};

/* NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS of 580. */
struct group_params {
    uint32_t error_object, ecc_error_object, address_space, engine;
    uint8_t plugin, after[111];
};

/* NV_CTXSHARE_ALLOCATION_PARAMETERS. */
struct share_params {
    uint32_t address_space, flags, number;
    uint8_t after[116];
};

static void print_step(const char *name, struct result result)
{
    if (result.error)
        printf("%s errno %d", name, result.error);
    else
        printf("%s 0x%x", name, result.status);
}

/* The result that ended it, and those of the last context's three steps. */
static void print_steps(struct result last, const struct context *context)
{
    print_step("status", last);
    print_step(" (address space", context->space_result);
    print_step(", group", context->group_result);
    if (context->share || refused(context->share_result))
        print_step(", share", context->share_result);
    printf(")\n");
    fflush(stdout);
}

/* Without an address space of its own, the device's. */
struct result make_group(const struct gpu *gpu, struct context *context)
{
    struct space_params space = {0};
    *context = (struct context){0};
    context->space_result = alloc_class(gpu, CLASS_ADDRESS_SPACE, &space, sizeof space, &context->space);
    if (refused(context->space_result))
        context->space = 0;
    struct group_params group = {.address_space = context->space, .engine = ENGINE_GRAPHICS};
    context->group_result = alloc_class(gpu, CLASS_CHANNEL_GROUP, &group, sizeof group, &context->group);
    if (refused(context->group_result))
        context->group = gpu->device;
    return context->group_result;
}

struct result make_share(const struct gpu *gpu, struct context *context)
{
    struct gpu below = *gpu;
    below.device = context->group;
    /* A group has one synchronous share at most, and many others: those first. */
    for (int asynchronous = 1; asynchronous >= 0; asynchronous--) {
        struct share_params share = {.address_space = context->space, .flags = (uint32_t)asynchronous};
        context->share_result = alloc_class(&below, CLASS_CONTEXT, &share, sizeof share, &context->share);
        if (!refused(context->share_result))
            break;
    }
    return context->share_result;
}

/* So many contexts, or until refused. */
static void context(char **arguments)
{
    uint64_t most = number(arguments[0]), count = 0;
    struct context made = {0};
    struct gpu gpu = open_gpu();
    struct result last = {0};
    for (; count < most; count++) {
        last = make_group(&gpu, &made);
        if (!refused(last))
            last = make_share(&gpu, &made);
        if (refused(last))
            break;
    }
    printf("%llu contexts, ", (unsigned long long)count);
    print_steps(last, &made);
}

/* Groups alone: what the driver reserves for them is in no request and belongs to no share. */
static void groups(char **arguments)
{
    uint64_t most = number(arguments[0]), count = 0;
    struct context made = {0};
    struct gpu gpu = open_gpu();
    while (count < most && !refused(make_group(&gpu, &made)))
        count++;
    printf("%llu groups, ", (unsigned long long)count);
    print_steps(made.group_result, &made);
}

/* Shares below one group. */
static void shares(char **arguments)
{
    uint64_t most = number(arguments[0]), count = 0;
    struct context made = {0};
    struct gpu gpu = open_gpu();
    (void)make_group(&gpu, &made);
    while (count < most && !refused(make_share(&gpu, &made)))
        count++;
    printf("%llu shares, ", (unsigned long long)count);
    print_steps(made.share_result, &made);
}

/* Channels that are in no group, of the simulated driver's making: a real one wants more of them. */
static void channels(char **arguments)
{
    uint64_t most = number(arguments[0]), count = 0;
    struct gpu gpu = open_gpu();
    struct result result = {0};
    for (; count < most; count++) {
        uint32_t params[256] = {[32] = ENGINE_GRAPHICS}, handle;
        result = alloc_class(&gpu, CLASS_CHANNEL, params, sizeof params, &handle);
        if (refused(result))
            break;
    }
    printf("%llu channels, ", (unsigned long long)count);
    print_result(result);
}

const struct subcommand context_commands[] = {
    {"channels", "N", 1, channels},
    {"context", "N", 1, context},
    {"groups", "N", 1, groups},
    {"shares", "N", 1, shares},
    {0},
};
