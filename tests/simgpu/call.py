"""One ioctl as the kernel side sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .processes import Process, is_administrator
from .resman import File


class Memory(Protocol):
    """The caller's address space."""

    def read(self, address: int, size: int) -> bytearray:
        """Copy from there, or raise OSError."""

    def write(self, address: int, data: bytearray) -> None:
        """Copy there, or raise OSError."""


@dataclass
class Call:
    """One ioctl: the file it is made on, a copy of its message, its caller, and the id of the thread that makes it."""

    file: File
    message: bytearray
    memory: Memory
    caller: Callable[[], Process]
    thread: int

    def by_administrator(self) -> bool:
        """Is the thread privileged? The driver asks for the capabilities of whoever makes the ioctl."""
        return is_administrator(self.thread)
