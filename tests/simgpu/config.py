"""What the simulated host consists of: read from JSON, checked once, then immutable."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .abi import MIB
from .mig import GPU_INSTANCES, Instance

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
    mig: bool = False
    """Is MIG mode on? Then the GPU is used by its instances alone."""
    instance: Instance | None = None
    """For a part of a GPU: which."""

    @property
    def model(self) -> Model:
        """The first known kind whose mark stands in the name."""
        return next((model for model in MODELS if model.match in self.name), OTHER_MODEL)


@dataclass(frozen=True)
class HostConfig:
    """The whole host."""

    driver_version: str
    gpus: tuple[GpuConfig, ...]
    instances: tuple[GpuConfig, ...] = ()
    """MIG instances of these GPUs. Their indices go on where those of the GPUs end."""

    def minor_of(self, instance: Instance) -> int:
        """The minor number of the node of the GPU that an instance is a part of."""
        return self.gpus[instance.gpu].minor

    def cap_minors(self, instance: Instance) -> tuple[int, int]:
        """The minor numbers of an instance's capability nodes."""
        return instance.minors(self.minor_of(instance))

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
        parts = tuple(part for gpu, given in zip(parsed, gpus, strict=True) for part in _instances(gpu, given))
        numbered = tuple(replace(part, index=len(parsed) + index) for index, part in enumerate(parts))
        return cls(str(value.get("driver_version", DRIVER_VERSION)), parsed, numbered)


KEYS = frozenset({"name", "memory_mib", "reserved_mib", "context_mib", "uuid", "minor", "bus", "speed", "mig"})


def _gpu(index: int, value: Mapping[str, Any]) -> GpuConfig:
    if unknown := set(value) - KEYS:
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
    minor, bus = int(value.get("minor", index)), int(value.get("bus", index + 1))
    speed, own = int(value.get("speed", 0)), str(value.get("uuid", own))
    return GpuConfig(index, name, own, total, reserved, context, minor, bus, speed, "mig" in value)


def _instances(gpu: GpuConfig, value: Mapping[str, Any]) -> list[GpuConfig]:
    """The parts of a GPU, each with one compute instance: its "mig", a list, which may be empty."""
    parts = []
    for place, part in enumerate(value.get("mig", [])):
        if unknown := set(part) - {"profile", "memory_mib", "reserved_mib", "gpu_instance", "uuid"}:
            raise ValueError(f"simgpu: unknown field gpus[{gpu.index}].mig[{place}].{min(unknown)}")
        profile = str(part.get("profile", "1g.10gb"))
        instance = Instance(gpu.index, place, profile, int(part.get("gpu_instance", GPU_INSTANCES // 2 + place)), 0)
        uuid_of = f"MIG-{uuid.uuid5(UUID_NAMESPACE, f'{gpu.uuid} {instance.gpu_instance} {profile}')}"
        total, reserved = (
            int(part.get(key, default)) * MIB for key, default in (("memory_mib", 9856), ("reserved_mib", 16))
        )
        name, own = f"{gpu.name} MIG {profile}", str(part.get("uuid", uuid_of))
        parts.append(
            GpuConfig(-1, name, own, total, reserved, gpu.context, gpu.minor, gpu.bus, gpu.speed, instance=instance)
        )
    if len({part.instance.gpu_instance for part in parts if part.instance}) != len(parts):
        raise ValueError(f"simgpu: two instances of gpus[{gpu.index}] have the same gpu_instance")
    if sum(part.total for part in parts) > gpu.total:
        raise ValueError(f"simgpu: the instances of gpus[{gpu.index}] don't fit on it")
    return parts
