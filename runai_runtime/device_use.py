"""What is used of each GPU now, by whomever, as its driver says."""

from __future__ import annotations

from runai_runtime.inventory import Inventory


def nvml_of(inventory: Inventory) -> str:
    """The driver's own NVML; "" without one."""
    return next((file.path for file in inventory.libraries if "libnvidia-ml.so.1" in file.names), "")


def device_use(library: str, uuids: list[str]) -> dict[str, int]:
    """Bytes by UUID, without what the driver keeps for itself; without GPUs that don't answer. Loads the driver's
    LIBRARY, which may take seconds or hang: for an Aside.
    """
    import ctypes

    import pynvml

    ctypes.CDLL(library)  # pynvml asks for it by SONAME, which is then this one wherever it lies
    pynvml.nvmlInit()
    found = {}
    for uuid in uuids:
        try:
            found[uuid] = used_of(pynvml.nvmlDeviceGetHandleByUUID(uuid.encode()))
        except pynvml.NVMLError:  # noqa: PERF203 - of the others there is something to say
            continue
    return found


def used_of(device: object) -> int:
    import pynvml

    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(device, version=pynvml.nvmlMemory_v2).used)
    except (pynvml.NVMLError, AttributeError):  # version 2 came with R510; the first counts the driver's part as used
        return int(pynvml.nvmlDeviceGetMemoryInfo(device).used)
