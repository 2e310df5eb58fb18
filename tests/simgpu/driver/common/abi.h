/* Numbers and layouts of the driver's ioctls, and of the simulator's own: the mirror of tests/simgpu/abi.py,
 * where sources and units stand. A unit test compares the two.
 */
#ifndef SIMGPU_ABI_H
#define SIMGPU_ABI_H

#include <stddef.h>
#include <stdint.h>

#define GRANULE 0x200000

#define ESC_ALLOC_MEMORY 0x27
#define ESC_FREE 0x29
#define ESC_CONTROL 0x2A
#define ESC_ALLOC 0x2B
#define ESC_DUP_OBJECT 0x34
#define ESC_VID_HEAP_CONTROL 0x4A
#define ESC_XFER_CMD 0xD3
#define UVM_INITIALIZE 0x30000001
#define UVM_MAP_EXTERNAL 0x21
#define UVM_FREE 0x22
#define SIM_UVM_MANAGED 0xF0

#define CLASS_ROOT_CLIENT 0x41
#define CLASS_DEVICE 0x80
#define CLASS_SUBDEVICE 0x2080
#define CLASS_MEMORY_SYSTEM 0x3E
#define CLASS_MEMORY_LOCAL_USER 0x40
#define CLASS_OS_DESCRIPTOR 0x71
#define CLASS_MEMORY_LOCAL_PHYSICAL 0xC2
#define CLASS_CONTEXT 0x9067
#define CLASS_CHANNEL_GROUP 0xA06C
#define CLASS_CHANNEL 0xC86F
#define ENGINE_GRAPHICS 1

#define ERR_NO_MEMORY 0x51

#define VID_HEAP_ALLOC_SIZE 2
#define VID_HEAP_FREE 3
#define VID_HEAP_ALLOC_RANGE 14

#define SIM_CTRL_SYSTEM 0x51AD0001
#define SIM_CTRL_GPU 0x51AD0002
#define SIM_CTRL_PROCESSES 0x51AD0003
#define SIM_CTRL_EXPORT 0x51AD0004
#define SIM_CTRL_IMPORT 0x51AD0005
#define SIM_CTRL_MIG 0x51AD0006

struct rm_alloc {
    uint32_t root, parent, handle, cls;
    uint64_t params, rights;
    uint32_t params_size, flags, status, pad;
};

/* The older form of rm_alloc. */
struct rm_alloc_old {
    uint32_t root, parent, handle, cls;
    uint64_t params;
    uint32_t params_size, status;
};

struct rm_alloc_memory {
    uint32_t root, parent, handle, cls, flags, pad;
    uint64_t memory, limit;
    uint32_t status, pad2;
    int32_t fd;
    uint32_t pad3;
};

/* NVOS32 as its ALLOC_SIZE function has it. */
struct rm_vid_heap {
    uint32_t root, parent, function, va_space;
    uint32_t heap_number, status;
    uint64_t total, free;
    uint32_t owner, memory;
    uint8_t kind[40];
    uint64_t size;
    uint8_t after[88];
};

struct rm_dup {
    uint32_t client, parent, handle, client_source, source, flags, status;
};

struct rm_xfer {
    uint32_t command, size;
    uint64_t message;
};

struct rm_free {
    uint32_t root, parent, handle, status;
};

struct rm_control {
    uint32_t client, object, command, flags;
    uint64_t params;
    uint32_t params_size, status;
};

/* NV_MEMORY_ALLOCATION_PARAMS since 545, of which only the size matters here. */
struct rm_memory_params {
    uint32_t owner; /* any number but 0 */
    uint8_t before[60];
    uint64_t size;
    uint8_t after[56];
};

struct sim_system {
    char driver_version[80];
    uint32_t gpus, cuda_version;
};

struct sim_gpu {
    uint32_t index, minor, domain, bus, device, architecture, capability_major, capability_minor, brand, watts;
    int32_t fan_percent, ecc;
    char name[96], uuid[48];
    uint64_t total, reserved, used, context, context_unlisted, speed;
};

struct sim_mig {
    uint32_t index, enabled, whole, gpu, gpu_instance, compute_instance, minors[2], devices;
    char gpu_uuid[48];
};

struct sim_process {
    uint32_t pid, pad;
    uint64_t bytes;
};

struct sim_processes {
    uint32_t index, count;
};

struct sim_share {
    uint32_t client, parent_or_object, handle, granules;
};

struct sim_uvm {
    uint64_t base, length;
    uint32_t first, second, status, pad;
};

_Static_assert(sizeof(struct rm_alloc) == 48, "NVOS64");
_Static_assert(sizeof(struct rm_alloc_old) == 32, "NVOS21");
_Static_assert(sizeof(struct rm_alloc_memory) == 56, "NVOS02 with a descriptor");
_Static_assert(sizeof(struct rm_vid_heap) == 184, "NVOS32");
_Static_assert(offsetof(struct rm_vid_heap, status) == 20 && offsetof(struct rm_vid_heap, memory) == 44, "NVOS32");
_Static_assert(offsetof(struct rm_vid_heap, size) == 88, "NVOS32");
_Static_assert(sizeof(struct rm_dup) == 28, "NVOS55");
_Static_assert(sizeof(struct rm_xfer) == 16, "nv_ioctl_xfer_t");
_Static_assert(sizeof(struct rm_free) == 16, "NVOS00");
_Static_assert(sizeof(struct rm_control) == 32, "NVOS54");
_Static_assert(sizeof(struct rm_memory_params) == 128, "NV_MEMORY_ALLOCATION_PARAMS");
_Static_assert(sizeof(struct sim_system) == 88, "abi.SIM_SYSTEM");
_Static_assert(sizeof(struct sim_gpu) == 240, "abi.SIM_GPU");
_Static_assert(sizeof(struct sim_mig) == 84, "abi.SIM_MIG");
_Static_assert(sizeof(struct sim_process) == 16, "abi.SIM_PROCESS");
_Static_assert(sizeof(struct sim_uvm) == 32, "abi.SIM_UVM_MAP");

#endif
