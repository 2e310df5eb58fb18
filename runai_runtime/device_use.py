"""What is used of each GPU now, by whomever, as its driver says.

Three functions of NVML, called without pynvml: that takes 60 ms to import, in each look's child anew.
"""

from __future__ import annotations

import ctypes

from runai_runtime.inventory import Inventory

SUCCESS = 0


class Memory(ctypes.Structure):
    """nvmlMemory_t of nvml.h, in bytes: what the driver keeps for itself counts as used."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class MemoryV2(ctypes.Structure):
    """nvmlMemory_v2_t, which has that apart."""

    _fields_ = [
        ("version", ctypes.c_uint),
        *((name, ctypes.c_ulonglong) for name in ("total", "reserved", "free", "used")),
    ]


VERSION_2 = ctypes.sizeof(MemoryV2) | 2 << 24  # NVML_STRUCT_VERSION


def nvml_of(inventory: Inventory) -> str:
    """The driver's own NVML; "" without one."""
    return next((file.path for file in inventory.libraries if "libnvidia-ml.so.1" in file.names), "")


def device_use(library: str, uuids: list[str]) -> dict[str, int]:
    """Bytes by UUID; without GPUs that don't answer. What the driver keeps for itself is left out since R510: an older
    one counts it as used. Loads the driver's LIBRARY, which may take seconds or hang: for an Aside.
    """
    nvml = ctypes.CDLL(library)
    if nvml.nvmlInit_v2() != SUCCESS:
        return {}
    found: dict[str, int] = {}
    for uuid in uuids:
        device = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(device)) == SUCCESS:
            used = used_of(nvml, device)
            found |= {} if used is None else {uuid: used}
    return found


def used_of(nvml: ctypes.CDLL, device: ctypes.c_void_p) -> int | None:
    second = MemoryV2(version=VERSION_2)
    newer = getattr(nvml, "nvmlDeviceGetMemoryInfo_v2", None)  # since R510
    if newer and newer(device, ctypes.byref(second)) == SUCCESS:
        return int(second.used)
    first = Memory()
    if nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(first)) == SUCCESS:
        return int(first.used)
    return None
