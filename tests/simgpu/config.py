"""What the simulated host consists of: read from JSON, checked once, then immutable."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .abi import MIB

DRIVER_VERSION = "580.159.04"
CUDA_VERSION = 13000
UUID_NAMESPACE = uuid.UUID("6f3b5c0e-2a55-4d0e-9a5e-51ad00000000")


@dataclass(frozen=True)
class Model:
    """What NVML tells about a kind of GPU. Architecture and brand are nvml.h's numbers."""

    match: str
    architecture: int
    capability: tuple[int, int]
    brand: int
    watts: int
    fan_percent: int
    ecc: int


MODELS = (
    Model("H100", 9, (9, 0), 14, 700, -1, 1),
    Model("H200", 9, (9, 0), 14, 700, -1, 1),
    Model("A100", 7, (8, 0), 14, 400, -1, 1),
    Model("L40", 8, (8, 9), 14, 300, -1, 1),
    Model("T4", 6, (7, 5), 14, 70, -1, 1),
    Model("RTX 20", 6, (7, 5), 5, 250, 29, -1),
    Model("RTX 30", 7, (8, 6), 5, 350, 30, -1),
    Model("RTX 40", 8, (8, 9), 5, 450, 30, -1),
)
OTHER_MODEL = Model("", 7, (8, 6), 5, 300, 30, -1)


@dataclass(frozen=True)
class GpuConfig:
    """One GPU. Sizes in bytes.

    index: as the kernel side counts. minor: the N of its node nvidiaN. bus: its PCI bus, by which NVML counts. speed:
    CUDA counts from the largest down, and by bus among equals (CUDA_DEVICE_ORDER).
    """

    index: int
    name: str
    uuid: str
    total: int
    reserved: int
    context: int
    minor: int
    bus: int
    speed: int

    @property
    def model(self) -> Model:
        """The first known kind whose mark stands in the name."""
        return next((model for model in MODELS if model.match in self.name), OTHER_MODEL)


@dataclass(frozen=True)
class HostConfig:
    """The whole host."""

    driver_version: str
    gpus: tuple[GpuConfig, ...]

    @classmethod
    def parse(cls, value: Mapping[str, Any] | None) -> HostConfig:
        """Read a configuration; None is one RTX 2080 Ti. Raises ValueError with the faulty field."""
        value = value if value is not None else {}
        if unknown := set(value) - {"driver_version", "gpus"}:
            raise ValueError(f"simgpu: unknown field {min(unknown)}")
        gpus = value.get("gpus", [{}])
        parsed = tuple(_gpu(index, gpu) for index, gpu in enumerate(gpus))
        for key in ("uuid", "minor", "bus"):
            if len({getattr(gpu, key) for gpu in parsed}) != len(parsed):
                raise ValueError(f"simgpu: two GPUs have the same {key}")
        return cls(str(value.get("driver_version", DRIVER_VERSION)), parsed)


def _gpu(index: int, value: Mapping[str, Any]) -> GpuConfig:
    if unknown := set(value) - {"name", "memory_mib", "reserved_mib", "context_mib", "uuid", "minor", "bus", "speed"}:
        raise ValueError(f"simgpu: unknown field gpus[{index}].{min(unknown)}")
    name = str(value.get("name", "NVIDIA GeForce RTX 2080 Ti"))
    total, reserved, context = (
        int(value.get(key, default)) * MIB
        for key, default in (("memory_mib", 10989), ("reserved_mib", 64), ("context_mib", 160))
    )
    if not 0 <= reserved < total or context < 0:
        raise ValueError(f"simgpu: gpus[{index}] needs 0 <= reserved_mib < memory_mib and context_mib >= 0")
    own = f"GPU-{uuid.uuid5(UUID_NAMESPACE, f'{index} {name}')}"
    # A GPU a bus, from 1 on: all count alike then.
    place = (int(value.get(key, default)) for key, default in (("minor", index), ("bus", index + 1), ("speed", 0)))
    return GpuConfig(index, name, str(value.get("uuid", own)), total, reserved, context, *place)
