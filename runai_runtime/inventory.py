"""What the host has: its GPUs, their device nodes and the driver's files, as read once and cached.

NVML takes from 10 ms to seconds to start, so a container's start never asks it: `STATE/host.json` has the answer,
written at configure or by the first create after a boot, or a change of the driver or of the GPUs (scan.py).
"""

from __future__ import annotations

import json
import os

from runai_runtime.errors import RefusalError
from runai_runtime.host import DEVICES, Host
from runai_runtime.mig import instances_made

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a millisecond to import
    from typing import Any

VERSION = 4

BOUND = "/sys/bus/pci/drivers/nvidia"  # where the kernel has a link for each device that the driver has


class Gpu:
    """One GPU, or an instance of one (MIG). Sizes are bytes: the total as NVML reports it, what the driver keeps of it,
    what a bare context takes (0 where that couldn't be measured).

    index: NVML's, which counts by PCI bus (CUDA may count in another order), or "0:1" for an instance, as
    NVIDIA_VISIBLE_DEVICES has it. minor: the N of the GPU's node nvidiaN. bus: its PCI bus id as NVML writes it. UUIDs
    alone tell GPUs apart; the rest is how people and the host name them.

    parent: the index of an instance's GPU, None for a GPU. capabilities: the minors of the two capability nodes that
    let a process use the instance. same_memory: the UUIDs of other instances that lie in the same memory.
    """

    __slots__ = (
        *("bus", "capabilities", "context", "index", "minor", "name", "parent", "reserved", "same_memory", "total"),
        "uuid",
    )

    def __init__(self, values: dict[str, Any]) -> None:
        self.index: int | str = values["index"]
        self.uuid: str = values["uuid"]
        self.name: str = values["name"]
        self.minor: int = values["minor"]
        self.bus: str = values.get("bus", "")
        self.total: int = values["total"]
        self.reserved: int = values["reserved"]
        self.context: int = values["context"]
        self.parent: int | None = values.get("parent")
        self.capabilities: list[int] = values.get("capabilities", [])
        self.same_memory: list[str] = values.get("same_memory", [])


class File:
    """A file of the driver, the names under which programs look for it, and the driver capability it belongs to."""

    __slots__ = ("capability", "names", "path")

    def __init__(self, values: dict[str, Any]) -> None:
        self.path: str = values["path"]
        self.names: list[str] = values["names"]
        self.capability: str = values["capability"]


class Inventory:
    """The host's GPUs, the driver's files, and our libraries as fitted to that driver (paths by SONAME).

    driver: its version. cuda: the newest CUDA that it can do, "13.0".
    divided: the GPUs in MIG mode, which are in gpus by their instances alone. caps_major: the major number of these
    instances' capability nodes, 0 where there are none.
    agent: for each low-level runtime that was looked at, why a container of it can't have an agent; "" where it can.
    flags: the flags of a filter with a listener that such a runtime and the kernel take.
    cdi: what the host's CDI specifications have for its GPUs (cdi.read_folders()).
    """

    __slots__ = (
        *("agent", "caps_major", "cdi", "cuda", "divided", "driver", "flags", "gpus", "libraries", "ours", "programs"),
    )

    def __init__(self, values: dict[str, Any]) -> None:
        self.driver: str = values["driver"]
        self.cuda: str = values.get("cuda", "")
        self.gpus = [Gpu(gpu) for gpu in values["gpus"]]
        self.libraries = [File(file) for file in values["libraries"]]
        self.programs = [File(file) for file in values["programs"]]
        self.ours: dict[str, str] = values["ours"]
        self.agent: dict[str, str] = values.get("agent", {})
        self.flags: dict[str, list[str]] = values.get("flags", {})
        self.divided = [Gpu(gpu) for gpu in values.get("divided", [])]
        self.caps_major: int = values.get("caps_major", 0)
        self.cdi: dict[str, Any] = values.get("cdi", {})


def cache_path(host: Host) -> str:
    return os.path.join(host.state, "host.json")


def read_text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def circumstances(host: Host) -> dict[str, Any]:
    """What makes a cached inventory stale when it changes: the boot, the loaded driver and the GPUs that it has."""
    return {
        "boot": read_text("/proc/sys/kernel/random/boot_id"),
        "module": read_text("/sys/module/nvidia/version"),
        "gpus": gpus_there(host),
    }


def gpus_there(host: Host) -> list[str]:
    """What changes when the driver gets or loses a GPU: one listing, without asking the driver.

    An inode of sysfs is never given twice, so a GPU that was taken away and is there again, perhaps with another
    minor, is told from itself. A folder of device nodes that isn't the host's own has nothing of that: its names count.
    """
    try:
        with os.scandir(BOUND) as entries:
            bound = [f"{entry.name} {entry.inode()}" for entry in entries if ":" in entry.name]
    except OSError:
        bound = []
    try:
        nodes = os.listdir(host.devices) if host.devices != DEVICES else []
    except OSError:
        nodes = []
    return sorted([*bound, *(name for name in nodes if name[:6] == "nvidia" and name[6:].isdigit())])


def stamp(path: str) -> list[int]:
    """Tells one version of a file from another: inode, size, time of change. Empty if it isn't there."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def read_inventory(host: Host) -> Inventory:
    """The inventory, scanned anew where the cache is missing or stale. Raises RefusalError without a driver."""
    inventory = read_cache(host)
    if inventory is not None:
        return inventory
    scan_in_child(host)
    values = read_values(host, just_written=True)  # of CDI files that change all the time, any look will do
    if values is None:
        raise RefusalError("the host's GPUs were read and then changed at once; try again")
    return Inventory(values)


def read_cache(host: Host) -> Inventory | None:
    values = read_values(host)
    try:
        return Inventory(values) if values and is_fresh(values["cdi"], host) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def is_fresh(cdi: dict[str, Any], host: Host) -> bool:
    """Whether the CDI specifications that were read are still those of the host."""
    return cdi["folders"] == host.cdi_spec_dirs and all(stamp(path) == seen for path, seen in cdi["stamps"].items())


def read_values(host: Host, *, just_written: bool = False) -> dict[str, Any] | None:
    """What is cached, if the driver, its instances, our libraries and the runtimes are what they were; CDI
    specifications aside. Nothing tells when a GPU without instances leaves MIG mode: what is cached of one with such a
    GPU holds for who has JUST had it WRITTEN.
    """
    try:
        with open(cache_path(host), "rb") as file:
            values: dict[str, Any] = json.loads(file.read())
        if (values["version"], values["for"]) != (VERSION, host.driver):
            return None
        if values["circumstances"] != circumstances(host):
            return None
        if (values["libvgpu"], values["fitted"], values["runtimes"]) != (host.libvgpu, host.fitted, host.runtimes):
            return None
        if values["instances"] != instances_made(host) or (values["no_instances"] and not just_written):
            return None
        if any(stamp(path) != seen for path, seen in values["stamps"].items()):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return values


def forget_cache(host: Host) -> None:
    """Have the next look at the inventory scan the host."""
    try:
        os.unlink(cache_path(host))
    except FileNotFoundError:
        return


def scan_in_child(host: Host) -> None:
    """Have a child process scan the host into the cache: what the driver opens and starts stays out of the process
    that is going to be the runtime. Rare: once a boot.
    """
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(receiver)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            from runai_runtime.scan import write_cache

            write_cache(host)
            status = 0
        except RefusalError as refusal:
            os.write(sender, str(refusal).encode("utf-8", "replace")[:4000])
        except BaseException as error:  # noqa: BLE001 - this process must end here
            os.write(sender, f"the host's GPUs can't be read ({type(error).__name__}: {error})".encode()[:4000])
        finally:
            os._exit(status)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        sentence = pipe.read().decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    if status:
        raise RefusalError(sentence or "the host's GPUs can't be read: the driver ended the process that asked")
