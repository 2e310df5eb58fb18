/* What the agent knows of the driver's ioctls: numbers and layouts (NVIDIA's open kernel modules, nv_escape.h, nvos.h,
 * ctrl*.h; seen with driver 580). All integers are little-endian. A call is told by number and size alone: the driver
 * looks at no more of a request, and neither does the seccomp filter (runai_runtime/seccomp.py). */
#ifndef RUNAI_AGENT_ABI_H
#define RUNAI_AGENT_ABI_H

#include <stdint.h>

#define REQUEST_MASK 0x3fff00ffu

#define CALL(number, size) ((uint32_t)(size) << 16 | (uint32_t)(number))

#define CALL_ALLOC CALL(0x2b, 48)
#define CALL_ALLOC_OLD CALL(0x2b, 32)
#define CALL_FREE CALL(0x29, 16)
#define CALL_CONTROL CALL(0x2a, 32)
#define CALL_DUP CALL(0x34, 28)
#define CALL_ALLOC_MEMORY CALL(0x27, 56)
#define CALL_VID_HEAP CALL(0x4a, 184)

/* The request that the driver's header makes of a call: read and write, type 'F'. */
#define REQUEST(call) ((unsigned long)(0xc0004600u | (call)))

#define CLASS_ROOT_CLIENT 0x41u
#define CLASS_MEMORY_LOCAL_USER 0x40u
#define CLASS_DEVICE 0x80u
#define CLASS_SUBDEVICE 0x2080u
#define CLASS_CHANNEL_GROUP 0xa06cu /* KEPLER_CHANNEL_GROUP_A, of all generations since */
#define IS_CHANNEL(class) (((class) & 0xffu) == 0x6fu && (class) >= 0x506fu) /* NV50_GPFIFO 0x506f to BLACKWELL_… 0xca6f */

#define STATUS_OK 0x0u
#define STATUS_INVALID_ADDRESS 0x1eu
#define STATUS_NO_MEMORY 0x51u
#define STATUS_NOT_SUPPORTED 0x56u

/* NVOS64 */
struct alloc {
    uint32_t root, parent, handle, class;
    uint64_t params, rights;
    uint32_t params_size, flags, status, pad;
};

/* NVOS21 */
struct alloc_old {
    uint32_t root, parent, handle, class;
    uint64_t params;
    uint32_t params_size, status;
};

/* NVOS00 */
struct free_call {
    uint32_t root, parent, handle, status;
};

/* NVOS54 */
struct control {
    uint32_t client, object, command, flags;
    uint64_t params;
    uint32_t params_size, status;
};

/* NVOS55 */
struct dup {
    uint32_t root, parent, handle, source_root, source, flags, status;
};

/* NVOS02 with a descriptor: only what is looked at. */
struct alloc_memory {
    uint32_t root, parent, handle, class, flags, pad;
    uint64_t memory, limit;
    uint32_t status, pad2;
    int32_t fd;
    uint32_t pad3;
};

/* NVOS32; which functions there are differs in what follows the flags. */
#define VID_HEAP_ALLOC_SIZE 2u
#define VID_HEAP_FREE 3u
#define VID_HEAP_ALLOC_TILED 6u
#define VID_HEAP_ALLOC_RANGE 14u
#define FREE_HANDLE_PROVIDED 1u /* in the third word of FREE, in the place of type: without it nothing is freed */
#define ALLOC_VIRTUAL 0x80000u /* in flags: addresses without memory */
#define ATTR_IN_DEVICE(attr) (((attr) >> 25 & 3) == 0) /* the location; otherwise it is system memory (as the driver has it) */
struct vid_heap {
    uint32_t root, parent, function, space;
    uint32_t heap, status;
    uint64_t total, free;
    uint32_t owner, handle, type, flags;
    uint8_t rest[128];
};

/* NV_MEMORY_ALLOCATION_PARAMS: how long it is differs (agent.conf says), where the size stands doesn't. */
#define PARAMS_SIZE_AT 64
#define PARAMS_MOST 4096
#define DEVICE_PARAMS 56 /* NV0080_ALLOC_PARAMETERS; its first word is the device's instance */
#define GROUP_PARAMS 20 /* NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS */
#define GROUP_ENGINE_AT 12
#define CHANNEL_PARAMS 1024 /* NV_CHANNEL_ALLOC_PARAMS has some 400 bytes, which differ; the rest of our page is zeroes */
#define CHANNEL_ENGINE_AT 128
#define IS_GRAPHICS(engine) ((engine) <= 8) /* NV2080_ENGINE_TYPE_GR0 to GR7 are 1 to 8; 0 is none that is named */

_Static_assert(sizeof(struct alloc) == 48, "NVOS64");
_Static_assert(sizeof(struct alloc_old) == 32, "NVOS21");
_Static_assert(sizeof(struct free_call) == 16, "NVOS00");
_Static_assert(sizeof(struct control) == 32, "NVOS54");
_Static_assert(sizeof(struct dup) == 28, "NVOS55");
_Static_assert(sizeof(struct alloc_memory) == 56, "NVOS02");
_Static_assert(sizeof(struct vid_heap) == 184, "NVOS32");

/* Control commands. */
#define CTRL_GET_UUID_INFO 0x274u
struct uuid_info {
    char uuid[256];
    uint32_t flags, gpu_id, device, subdevice;
};
#define CTRL_GET_PID_INFO 0x2080018eu
#define PID_INFO_MOST 200
struct pid_info {
    uint32_t pid, index, result, pad;
    uint64_t private, shared_owned, shared_duped, protected[3];
    uint32_t instances[2];
};
struct pid_infos {
    uint32_t count, pad;
    struct pid_info list[PID_INFO_MOST];
};
#define CTRL_GET_PIDS 0x2080018du
#define PIDS_MOST 950
struct pids {
    uint32_t id_type, id; /* 0: who has an object of this class */
    uint32_t count, pid[PIDS_MOST];
};
#define CTRL_FB_GET_INFO_V2 0x20801303u
#define FB_INFO_MOST 128
#define FB_RAM_SIZE 0x07u  /* KiB, as all of them */
#define FB_HEAP_FREE 0x16u
struct fb_infos {
    uint32_t count;
    struct {
        uint32_t index, data;
    } list[FB_INFO_MOST];
};
_Static_assert(sizeof(struct uuid_info) == 272, "NV0000_CTRL_GPU_GET_UUID_INFO_PARAMS");
_Static_assert(sizeof(struct pid_infos) == 14408, "NV2080_CTRL_GPU_GET_PID_INFO_PARAMS");
_Static_assert(sizeof(struct pids) == 3812, "NV2080_CTRL_GPU_GET_PIDS_PARAMS");
_Static_assert(sizeof(struct fb_infos) == 1028, "NV2080_CTRL_FB_GET_INFO_V2_PARAMS");

#endif
