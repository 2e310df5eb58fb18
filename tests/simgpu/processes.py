"""Who calls: processes as the kernel tells them apart, and as a caller's pid namespace sees them."""

from __future__ import annotations

import fcntl
import functools
import os
from dataclasses import dataclass

NS_GET_PARENT = 0xB702
"""ioctl(2) of a namespace's file: a descriptor of the namespace above (ioctl_ns(2))."""
CAP_SYS_ADMIN = 21


@dataclass(frozen=True)
class Process:
    """A process, even when its pid is used again: pid as this side sees it, start time in clock ticks."""

    pid: int
    start: int

    @property
    def alive(self) -> bool:
        """Is it still the one with that pid?"""
        try:
            return _start_time(self.pid) == self.start
        except OSError:
            return False


def process_of(thread: int) -> Process:
    """The process of a thread id. FUSE names the thread that called, not its process."""
    pid = int(_status(thread)["Tgid"])
    process = Process(pid, _start_time(pid))
    _in_namespaces(process)  # while it lives
    return process


def is_administrator(thread: int) -> bool:
    """Has a thread CAP_SYS_ADMIN as the kernel's capable() asks for it: in a user namespace nobody has."""
    if os.stat(f"/proc/{thread}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino:
        return False
    return bool(int(_status(thread)["CapEff"], 16) >> CAP_SYS_ADMIN & 1)


def pid_seen_by(process: Process, caller: Process) -> int | None:
    """The process's pid in the caller's pid namespace; None where it isn't visible there. One that has ended is, by the
    pid that it had, while another has its file (seen on an H100).
    """
    try:
        pids, namespaces = _in_namespaces(process)
        above = namespaces.index(_in_namespaces(caller)[1][0])
    except (OSError, ValueError, KeyError):
        return None
    return pids[-1 - above] if above < len(pids) else None


@functools.lru_cache(1024)
def _in_namespaces(process: Process) -> tuple[list[int], list[int]]:
    """A process's pids, from the outermost namespace to its own, and these namespaces from its own outwards. For good:
    a process stays in the namespaces in which it began.
    """
    return [int(pid) for pid in _status(process.pid)["NSpid"].split()], pid_namespaces(process.pid)


def pid_namespaces(pid: int) -> list[int]:
    """Inodes of the pid namespaces that a process lives in, its own first."""
    namespace = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    found = []
    while True:
        found.append(os.fstat(namespace).st_ino)
        try:
            parent = fcntl.ioctl(namespace, NS_GET_PARENT)
        except OSError:
            # EPERM: the namespace above is not ours to see, so this is the outermost one that counts.
            return found
        finally:
            os.close(namespace)
        namespace = parent


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def _start_time(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])
