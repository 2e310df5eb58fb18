"""Which of the host's processes the containers' own numbers mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from runai_runtime.containers import Container, Process


def namespace_of(pid: int | str) -> int:
    """The inode of the pid namespace of a process; 0 where that can't be told."""
    try:
        return int(os.readlink(f"/proc/{pid}/ns/pid").removeprefix("pid:[").rstrip("]"))
    except (OSError, ValueError):
        return 0


def name_processes(containers: Iterable[Container]) -> None:
    """Fill in the processes of CONTAINERS, from what they use. A process of a namespace below its container's own (an
    engine in the container) is not found, and has no command.
    """
    asked = [container for container in containers if container.uses]
    own = {container.id: namespace_of(container.pid) if container.pid else 0 for container in asked}
    wanted = {(use.namespace or own[container.id]) for container in asked for use in container.uses} - {0}
    known = numbers(wanted)
    for container in asked:
        for use in container.uses:
            pid = known.get((use.namespace or own[container.id], use.pid), 0)
            if use.gpu < len(container.gpus):
                gpu = container.gpus[use.gpu]
                container.processes.append(Process(pid, command_of(pid), gpu, use.bytes))
        container.processes.sort(key=lambda process: -process.bytes)


def numbers(namespaces: set[int]) -> dict[tuple[int, int], int]:
    """The host's number of each process in NAMESPACES, by the namespace and the number there."""
    found: dict[tuple[int, int], int] = {}
    if not namespaces:
        return found
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        namespace = namespace_of(name)
        if namespace in namespaces:
            found[namespace, number_inside(name)] = int(name)
    return found


def number_inside(pid: str) -> int:
    """In its own namespace (proc_pid_status(5), NSpid)."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            line = re.search(r"^NSpid:(?:\t\d+)*\t(\d+)$", file.read(), re.MULTILINE)
    except OSError:
        return 0
    return int(line[1]) if line else 0


def command_of(pid: int) -> str:
    """The kernel's name for it, 15 bytes. Its arguments lie in its own memory, and it can make who reads them wait."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n") if pid else ""
    except OSError:
        return ""
