"""Numbers and layouts of the driver's ioctls, and of the simulator's own; driver/common/abi.h mirrors them.

Real: the escape numbers, the RM messages, classes and status codes (NVIDIA's open kernel modules,
nv_escape.h, nvos.h, nvstatuscodes.h; seen with driver 580). The simulator's own: everything named SIM_.
All integers are little-endian; sizes are bytes.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

MIB: Final = 1 << 20
GRANULE: Final = 2 * MIB
"""Physical memory is taken in steps of this many bytes (measured on an H100)."""

REQUEST_MASK: Final = 0x3FFF00FF
"""The bits of a request that the driver looks at: size and number. Type and direction are ignored."""


def request(number: int, size: int) -> int:
    """A request as the driver sees it, after REQUEST_MASK."""
    return size << 16 | number


# Escapes of nvidiactl and nvidiaN.
ESC_ALLOC_MEMORY: Final = 0x27
ESC_FREE: Final = 0x29
ESC_CONTROL: Final = 0x2A
ESC_ALLOC: Final = 0x2B
ESC_DUP_OBJECT: Final = 0x34
ESC_VID_HEAP_CONTROL: Final = 0x4A
ESC_MAP_MEMORY: Final = 0x4E
ESC_UNMAP_MEMORY: Final = 0x4F
ESC_REGISTER_FD: Final = 0xC9
ESC_ALLOC_OS_EVENT: Final = 0xCE
ESC_XFER_CMD: Final = 0xD3
ESC_SYS_PARAMS: Final = 0xD6

# Ioctls of nvidia-uvm are bare numbers: no size, no direction.
UVM_INITIALIZE: Final = 0x30000001
UVM_MAP_EXTERNAL: Final = 0x21
UVM_FREE: Final = 0x22
SIM_UVM_MANAGED: Final = 0xF0

ALLOC: Final = Struct("<IIIIQQIII4x")
"""NVOS64: hRoot, hObjectParent, hObjectNew, hClass, pAllocParms, pRightsRequested, paramsSize, flags, status."""
ALLOC_STATUS: Final = 40
ALLOC_OLD: Final = Struct("<IIIIQII")
"""NVOS21: hRoot, hObjectParent, hObjectNew, hClass, pAllocParms, paramsSize, status."""
ALLOC_OLD_STATUS: Final = 28
ALLOC_NEW_HANDLE: Final = 8
"""hObjectNew, in both forms and in NVOS02."""
FREE: Final = Struct("<IIII")
"""NVOS00: hRoot, hObjectParent, hObjectOld, status."""
FREE_STATUS: Final = 12
CONTROL: Final = Struct("<IIIIQII")
"""NVOS54: hClient, hObject, cmd, flags, params, paramsSize, status."""
CONTROL_STATUS: Final = 28
DUP: Final = Struct("<IIIIIII")
"""NVOS55: hClient, hParent, hObject, hClientSrc, hObjectSrc, flags, status."""
DUP_HANDLE: Final = 8
DUP_STATUS: Final = 24
ALLOC_MEMORY: Final = Struct("<IIIII4xQQI4xi4x")
"""NVOS02 with a descriptor: hRoot, hObjectParent, hObjectNew, hClass, flags, pMemory, limit, status, fd."""
ALLOC_MEMORY_LIMIT: Final = 32
ALLOC_MEMORY_STATUS: Final = 40
XFER: Final = Struct("<IIQ")
"""nv_ioctl_xfer_t: cmd, size, ptr."""

VID_HEAP_SIZE: Final = 184
"""NVOS32 as a whole; the fields below are those of its ALLOC_SIZE function."""
VID_HEAP_HEAD: Final = Struct("<IIII")
"""hRoot, hObjectParent, function, hVASpace."""
VID_HEAP_ALLOC_SIZE: Final = 2
VID_HEAP_FREE: Final = 3
VID_HEAP_ALLOC_RANGE: Final = 14
VID_HEAP_RANGE_BYTES: Final = 80
VID_HEAP_STATUS: Final = 20
VID_HEAP_HANDLE: Final = 44
VID_HEAP_BYTES: Final = 88
"""In: what is asked for; out: what was given."""

MEMORY_PARAMS: Final = 128
"""NV_MEMORY_ALLOCATION_PARAMS since 545, of which only the size is read and written here."""
MEMORY_PARAMS_BYTES: Final = 64
"""In: what is asked for; out: what was given."""

U32: Final = Struct("<I")
U64: Final = Struct("<Q")

# Classes.
CLASS_ROOT: Final = 0x0
CLASS_ROOT_CLIENT: Final = 0x41
CLASS_DEVICE: Final = 0x80
CLASS_SUBDEVICE: Final = 0x2080
CLASS_MEMORY_SYSTEM: Final = 0x3E
CLASS_MEMORY_LOCAL_USER: Final = 0x40
CLASS_OS_DESCRIPTOR: Final = 0x71
"""NV01_MEMORY_SYSTEM_OS_DESCRIPTOR: pages of whoever makes the ioctl."""
CLASS_MEMORY_LOCAL_PHYSICAL: Final = 0xC2
"""NV01_MEMORY_LOCAL_PHYSICAL: the framebuffer as it is, whoever's data lies there."""
CLASS_CONTEXT: Final = 0x9067
CLASS_CHANNEL_GROUP: Final = 0xA06C
CLASS_CHANNEL: Final = 0xC86F
ENGINE_GRAPHICS: Final = 1
GROUP_PARAMS: Final = 20
GROUP_ENGINE: Final = 12
CHANNEL_PARAMS: Final = 368
CHANNEL_ENGINE: Final = 128

# Status codes, in the messages' status fields.
OK: Final = 0x0
ERR_DUPLICATE_NAME: Final = 0x19
ERR_PERMISSIONS: Final = 0x1B
ERR_INVALID_ADDRESS: Final = 0x1E
ERR_INVALID_ARGUMENT: Final = 0x1F
ERR_INVALID_CLASS: Final = 0x22
ERR_INVALID_CLIENT: Final = 0x23
ERR_INVALID_COMMAND: Final = 0x24
ERR_INVALID_DEVICE: Final = 0x26
ERR_INVALID_FUNCTION: Final = 0x2A
ERR_INVALID_OBJECT_HANDLE: Final = 0x33
ERR_INVALID_PARENT: Final = 0x36
ERR_INVALID_PARAM_STRUCT: Final = 0x3A
ERR_NO_MEMORY: Final = 0x51
ERR_NOT_FOUND: Final = 0x57

# Control commands of the driver, and their parameters (ctrl0000gpu.h, ctrl2080gpu.h, ctrl2080fb.h).
CTRL_GPU_GET_UUID_INFO: Final = 0x274
"""NV0000_CTRL_CMD_GPU_GET_UUID_INFO, of a client."""
CTRL_GPU_GET_PIDS: Final = 0x2080018D
"""NV2080_CTRL_CMD_GPU_GET_PIDS, of a subdevice as the two below."""
CTRL_GPU_GET_PID_INFO: Final = 0x2080018E
CTRL_FB_GET_INFO_V2: Final = 0x20801303

UUID_INFO: Final = Struct("<256sIIII")
"""gpuUuid, flags (0: it is text); out: gpuId, deviceInstance, subdeviceInstance."""
PIDS_MAX: Final = 950
PIDS: Final = Struct(f"<III{PIDS_MAX}I")
"""idType (0: a class), id (the class); out: count, the pids as the caller sees them."""
PIDS_OF_CLASS: Final = 0
PID_INFO_MAX: Final = 200
PID_INFO: Final = Struct("<III4xQQQ32x")
"""pid, index (0: video memory); out: result, memPrivate, memSharedOwned, memSharedDuped (bytes), and more."""
PID_INFO_FIRST: Final = 8
"""A count (u32) stands before the entries."""
PID_INFO_PARAMS: Final = PID_INFO_FIRST + PID_INFO_MAX * PID_INFO.size
PID_INFO_VIDEO_MEMORY: Final = 0
FB_INFO_MAX: Final = 128
FB_INFO: Final = Struct("<II")
"""index, data (KiB where it is a size); a count (u32) stands before the entries."""
FB_INFO_PARAMS: Final = 4 + FB_INFO_MAX * FB_INFO.size
FB_RAM_SIZE: Final = 0x07
FB_HEAP_FREE: Final = 0x16

# The simulator's own control commands.
SIM_CTRL_SYSTEM: Final = 0x51AD0001
SIM_CTRL_GPU: Final = 0x51AD0002
SIM_CTRL_PROCESSES: Final = 0x51AD0003
SIM_CTRL_EXPORT: Final = 0x51AD0004
SIM_CTRL_IMPORT: Final = 0x51AD0005
SIM_CTRL_MIG: Final = 0x51AD0006

SIM_SYSTEM: Final = Struct("<80sII")
"""driver version, number of GPUs, CUDA version (13000). The indices behind these GPUs are those of MIG instances."""
SIM_GPU: Final = Struct("<IIIIIIIIIIii96s48sQQQQQQ")
"""index (in), minor, domain, bus, device, architecture (NVML's), capability major, minor, brand (NVML's),
watts at most, fan percent (-1: none), ECC (-1: not supported); name, UUID; total, reserved, used, a context's
cost, the part of it that user space doesn't ask for (bytes); how fast it is."""
SIM_MIG: Final = Struct("<IIIIIIIII48s")
"""index (in); is MIG on, may the caller see the whole of the GPU; the GPU's index; of an instance: its GPU instance and
compute instance, the minors of their capability nodes; the number of GPUs and instances; the GPU's UUID."""
SIM_PROCESSES: Final = Struct("<II")
"""GPU index (in), capacity (in) or number of processes there are (out); SIM_PROCESS records follow."""
SIM_PROCESS: Final = Struct("<I4xQ")
"""pid as the caller sees it, bytes."""
SIM_SHARE: Final = Struct("<IIII")
"""Export: hClient, hObject of what this file is to carry. Import: hClient, hParent, hObjectNew of the
copy; answered with hClient, the GPU's index, the copy's handle and its granules."""
SIM_UVM_MAP: Final = Struct("<QQIII4x")
"""Map: base, length, hClient, hMemory, status. Managed: base, length, GPU index, 0, status. Free: base, …, status."""
SIM_UVM_STATUS: Final = 24
