"""MIG: which instances the host's GPUs are divided into, and the nodes by which a container gets one.

As NVIDIA's MIG user guide has it ("Device Nodes and Capabilities"): a process may use a compute instance if it can
open its GPU's device node and two capability nodes, that of the GPU instance and that of the compute instance. Their
minor numbers stand in nvidia-caps/mig-minors, for all that there could ever be; nvidia/capabilities has a folder for
each that there is. Both lie in /proc/driver.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runai_runtime.host import Host

CAPS = "nvidia-caps"  # the folder of the nodes, below the devices
CAPS_CLASS = "nvidia-caps"  # in /proc/devices


PROC = "/proc/driver"


def proc(host: Host) -> str:
    """/proc/driver of the root that has the host's devices as in /dev; where that root has none, the host's own."""
    if host.devices == "/dev":
        return PROC
    beside = os.path.join(os.path.dirname(host.devices), "proc/driver")
    return beside if os.path.isdir(beside) else PROC


def node_name(minor: int) -> str:
    """The capability node of that MINOR, below the devices' folder."""
    return f"{CAPS}/nvidia-cap{minor}"


def instances_made(host: Host) -> dict[str, int]:
    """The compute instances that there are, as gpuMINOR/giID/ciID, with their folders' inode numbers: what changes
    when one is made or destroyed.

    A GPU instance's id says where on the GPU it lies, and so how large it is. Its UUID comes from more than its ids
    (nvGenerateSmcUuid in NVIDIA's open modules: the part of the engine that it got, too), so one that was made again
    may have another: then the kernel's number for the folder is another too, unless all came in the same order.
    """
    top = os.path.join(proc(host), "nvidia/capabilities")
    found = {}
    for gpu in below(top, "gpu"):
        for part in below(f"{top}/{gpu}/mig", "gi"):
            for compute, inode in below(f"{top}/{gpu}/mig/{part}", "ci").items():
                found[f"{gpu}/{part}/{compute}"] = inode
    return found


def below(folder: str, beginning: str) -> dict[str, int]:
    """What has a name of that BEGINNING in FOLDER, with its inode number; nothing if it can't be read."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.inode() for entry in entries if entry.name.startswith(beginning)}
    except OSError:
        return {}


def read_minors(host: Host) -> dict[str, int]:
    """The minor numbers of capability nodes, by gpuMINOR/giID and gpuMINOR/giID/ciID. Empty where the driver has no
    such nodes (before R450, or its module's nv_cap_enable_devfs is 0).
    """
    try:
        with open(os.path.join(proc(host), "nvidia-caps/mig-minors"), encoding="ascii", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return {}
    pairs = [line for line in lines if len(line) == 2 and line[1].isdigit() and line[0].endswith("/access")]
    return {path[: -len("/access")]: int(minor) for path, minor in pairs}


def caps_major() -> int:
    """The major number of capability nodes on this host, which the kernel chooses; 0 where there are none."""
    try:
        with open("/proc/devices", encoding="ascii", errors="replace") as file:
            pairs = [line.split() for line in file]
    except OSError:
        return 0
    return next((int(pair[0]) for pair in pairs if pair[1:] == [CAPS_CLASS] and pair[0].isdigit()), 0)
