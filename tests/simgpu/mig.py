"""MIG: the parts of a GPU, and the capabilities by which a process may use them.

As NVIDIA's MIG user guide has it ("Device Nodes and Capabilities"). A process uses a compute instance if it can open
the capability nodes of that and of the GPU instance it lies in. Which nodes these are stands in nvidia-caps/mig-minors,
a list of all that there could ever be; which instances there are, in nvidia/capabilities.

Unlike the driver, the simulated kernel side believes a library that has opened the nodes: a part is a device number of
its own, where the real one has a client subscribe to it (AMPERE_SMC_PARTITION_REF) with the node's descriptor.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

GPU_INSTANCES, COMPUTE_INSTANCES = 15, 8
FIRST_MINOR = 3
"""Of a GPU's instances; before it come the capabilities to change and to monitor the mode."""
CAP_MODE = 0o444


@dataclass(frozen=True)
class Instance:
    """A compute instance, which has its GPU instance for itself."""

    gpu: int
    place: int
    """Among the GPU's."""
    profile: str
    gpu_instance: int
    compute_instance: int

    def minors(self, gpu_minor: int) -> tuple[int, int]:
        """The minor numbers of the two capability nodes: GPU instance, compute instance."""
        first = cap_minor(gpu_minor, self.gpu_instance)
        return first, first + 1 + self.compute_instance


def cap_minor(gpu_minor: int, gpu_instance: int) -> int:
    """Of the node for a GPU instance; those of its compute instances follow."""
    return FIRST_MINOR + (gpu_minor * GPU_INSTANCES + gpu_instance) * (1 + COMPUTE_INSTANCES)


def minors_text(gpu_minors: Iterable[int]) -> str:
    """nvidia-caps/mig-minors."""
    lines = ["config 1", "monitor 2"]
    for gpu in gpu_minors:
        for part in range(GPU_INSTANCES):
            minor = cap_minor(gpu, part)
            lines.append(f"gpu{gpu}/gi{part}/access {minor}")
            lines += [f"gpu{gpu}/gi{part}/ci{ci}/access {minor + 1 + ci}" for ci in range(COMPUTE_INSTANCES)]
    return "".join(f"{line}\n" for line in lines)


def write_proc(folder: Path, gpu_minors: list[int], instances: Iterable[tuple[int, Instance]]) -> None:
    """What a host with these instances, each with its GPU's minor, has in /proc/driver, into FOLDER."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "nvidia-caps").mkdir(parents=True)
    (folder / "nvidia-caps/mig-minors").write_text(minors_text(gpu_minors))
    for gpu in gpu_minors:
        (folder / f"nvidia/capabilities/gpu{gpu}/mig").mkdir(parents=True)
    for gpu, instance in instances:
        place = folder / f"nvidia/capabilities/gpu{gpu}/mig/gi{instance.gpu_instance}"
        inner = place / f"ci{instance.compute_instance}"
        inner.mkdir(parents=True)
        for path, minor in zip((place, inner), instance.minors(gpu), strict=True):
            (path / "access").write_text(f"DeviceFileMinor: {minor}\nDeviceFileMode: {CAP_MODE}\nDeviceFileModify: 1\n")
