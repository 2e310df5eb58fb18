"""What there is of GPUs and of containers with a share: one look, from files, in milliseconds.

Three things may take their time, and are begun first and waited for last, not longer than SECONDS: the engine (names),
the driver (what its devices use), and the accounts of containers without an agent, which lie in these containers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from runai_runtime.aside import Aside
from runai_runtime.containers import Container, find, read_containers
from runai_runtime.device_use import device_use, nvml_of
from runai_runtime.engine import Names, socket_path
from runai_runtime.host import Host
from runai_runtime.inventory import Gpu, Inventory, read_inventory
from runai_runtime.ledger import Ledger
from runai_runtime.pages import Use, parse_account, read_account
from runai_runtime.processes import name_processes

SECONDS = 1.0
MOST_USES = 1024  # of processes by GPUs, in an account that its container can write


@dataclass
class GpuUse:
    """A GPU, in bytes: what the ledger has promised of it and still can, and what the device has given, whoever has it
    (None where the driver didn't say in time).
    """

    gpu: Gpu
    promised: int
    free: int
    used: int | None


@dataclass
class Overview:
    gpus: list[GpuUse] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)  # ids whose grants this version can't read

    def find(self, wanted: str) -> Container:
        """Raises NoSuchContainerError."""
        return find(self.containers, wanted)


def look(host: Host, *, gpus: bool = True, processes: bool = False) -> Overview:
    """All as it is now. Raises RefusalError without a driver, where GPUS are asked for, and to others than root."""
    names = Names(socket_path())
    inventory = read_inventory(host) if gpus else None
    device = ask_devices(inventory) if inventory else None
    containers, unreadable = read_containers(host)
    accounts = ask_accounts(containers)
    until = time.monotonic() + SECONDS
    called = names.read(until)
    for container in containers:
        container.name, container.image = called.get(container.id, ("", ""))
    count_in(containers, accounts.result(until) if accounts else None)
    if processes:
        name_processes(containers)
    used = (device.result(until) if device else None) or {}
    return Overview(gpu_uses(host, inventory, containers, used), containers, unreadable)


def ask_devices(inventory: Inventory) -> Aside | None:
    library, uuids = nvml_of(inventory), [gpu.uuid for gpu in inventory.gpus]
    return Aside(lambda: device_use(library, uuids)) if library else None


def ask_accounts(containers: list[Container]) -> Aside | None:
    """What libvgpu counts, where it alone keeps the share: [used of each GPU, [what processes use]] by id."""
    asked = [
        (container.id, container.pid, [figure.share for figure in container.figures])
        for container in containers
        if container.by != "agent" and container.pid
    ]

    def read() -> dict[str, Any]:
        found = {}
        for name, pid, shares in asked:
            counted = parse_account(read_account(pid) or b"", shares)
            if counted:
                uses = [(use.pid, use.gpu, use.bytes, use.namespace) for use in counted.uses[:MOST_USES]]
                found[name] = [figure.used for figure in counted.figures], uses
        return found

    return Aside(read) if asked else None


def count_in(containers: list[Container], accounts: dict[str, Any] | None) -> None:
    for container in containers:
        used, uses = (accounts or {}).get(container.id, ((), ()))
        for figure, size in zip(container.figures, used, strict=False):
            figure.used = size
        container.uses += [Use(*use) for use in uses]


def gpu_uses(
    host: Host, inventory: Inventory | None, containers: list[Container], used: dict[str, int]
) -> list[GpuUse]:
    ledger = Ledger(host)
    for container in containers:
        ledger.add(container.id, container.grant["gpus"])
    return [
        GpuUse(gpu, sum(ledger.held(gpu).values()), ledger.free(gpu), used.get(gpu.uuid))
        for gpu in (inventory.gpus if inventory else [])
    ]


def as_values(overview: Overview, *, processes: bool = False) -> dict[str, Any]:
    """For JSON, as docs/ctl.md has it: sizes in bytes, null for what is not known."""
    return {
        "gpus": [
            {
                "index": use.gpu.index,
                "uuid": use.gpu.uuid,
                "name": use.gpu.name,
                "memory": use.gpu.total,
                "promised": use.promised,
                "used": use.used,
                "free": use.free,
            }
            for use in overview.gpus
        ],
        "containers": [container_values(container, processes=processes) for container in overview.containers],
        "unreadable": overview.unreadable,
    }


def container_values(container: Container, *, processes: bool = False) -> dict[str, Any]:
    gpus = [
        {"index": gpu["index"], "uuid": gpu["uuid"], **vars(figure)}
        for gpu, figure in zip(container.grant["gpus"], container.figures, strict=True)
    ]
    values = {
        "id": container.id,
        "name": container.name or None,
        "image": container.image or None,
        "enforcement": container.by,
        "agent": None if container.by != "agent" else "gone" if container.is_bereft else "there",
        "since": container.since or None,
        "gpus": gpus,
    }
    return values | ({"processes": [vars(process) for process in container.processes]} if processes else {})
