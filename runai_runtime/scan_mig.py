"""A look at the instances of GPUs in MIG mode; a part of scan.py."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pynvml

from runai_runtime.aside import Aside

SECONDS = 20.0  # for a driver that has to start


def is_divided(device: Any) -> bool:
    """Whether a GPU is in MIG mode: then it is used by its instances alone. Raises NVMLError."""
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(device)[0] == pynvml.NVML_DEVICE_MIG_ENABLE)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        return False  # a GPU, or a driver, before MIG


def instances_of(
    device: Any, gpu: dict[str, Any], minors: dict[str, int], describe: Callable[[Any], dict[str, Any]]
) -> list[dict[str, Any]]:
    """The instances of the GPU that is DEVICE and described by GPU, each as DESCRIBE has it. MINORS: those of
    capability nodes, as mig.read_minors has them. Raises NVMLError.

    Compute instances of one GPU instance have the same memory, and NVML says for each that it has the whole of it.
    """
    found, parts = [], {}
    for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(device)):
        try:
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device, place)
        except pynvml.NVMLError_NotFound:
            continue
        part, compute = pynvml.nvmlDeviceGetGpuInstanceId(handle), pynvml.nvmlDeviceGetComputeInstanceId(handle)
        paths = f"gpu{gpu['minor']}/gi{part}", f"gpu{gpu['minor']}/gi{part}/ci{compute}"
        instance = describe(handle)
        parts[instance["uuid"]] = part
        found.append(
            instance
            | {
                "index": f"{gpu['index']}:{place}",
                "minor": gpu["minor"],
                "bus": gpu["bus"],
                "parent": gpu["index"],
                "capabilities": [minors[path] for path in paths] if all(path in minors for path in paths) else [],
            }
        )
    for instance in found:
        uuid = instance["uuid"]
        instance["same_memory"] = [other for other in parts if other != uuid and parts[other] == parts[uuid]]
    return found


def measure_instances(
    cuda: str, gpus: list[dict[str, Any]], measure: Callable[[ctypes.CDLL, int, Any], int]
) -> dict[str, int]:
    """Bytes that a bare context takes on those of GPUS that are instances, by UUID: MEASURE tells it for one of each
    kind (0: it can't). A process that uses an instance sees no other device, so each is measured in a child, and before
    this process has loaded CUDA.
    """
    parts = [gpu for gpu in gpus if "parent" in gpu]
    firsts = {gpu["name"]: gpu["uuid"] for gpu in reversed(parts)}
    kinds = {
        name: Aside(partial(measure_instance, cuda, uuid, measure)).result(time.monotonic() + SECONDS) or 0
        for name, uuid in firsts.items()
    }
    return {gpu["uuid"]: kinds[gpu["name"]] for gpu in parts}


def measure_instance(cuda: str, uuid: str, measure: Callable[[ctypes.CDLL, int, Any], int]) -> int:
    pynvml.nvmlInit()
    os.environ["CUDA_VISIBLE_DEVICES"] = uuid
    library = ctypes.CDLL(cuda)
    return 0 if library.cuInit(0) else measure(library, 0, pynvml.nvmlDeviceGetHandleByUUID(uuid))
