"""The memory of the process that makes an ioctl: process_vm_readv(2) and process_vm_writev(2)."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_ARGTYPES = (
    ctypes.c_int,
    ctypes.POINTER(_Iovec),
    ctypes.c_ulong,
    ctypes.POINTER(_Iovec),
    ctypes.c_ulong,
    ctypes.c_ulong,
)
for _function in (_libc.process_vm_readv, _libc.process_vm_writev):
    _function.argtypes = _ARGTYPES
    _function.restype = ctypes.c_ssize_t


class CallerMemory:
    """One thread's address space, by its id."""

    def __init__(self, thread: int) -> None:
        self.thread = thread

    def read(self, address: int, size: int) -> bytearray:
        """Copy `size` bytes from there. Raises OSError where they aren't all readable."""
        buffer = bytearray(size)
        self._move(_libc.process_vm_readv, buffer, address)
        return buffer

    def write(self, address: int, data: bytearray) -> None:
        """Copy `data` there. Raises OSError where it can't all be written."""
        self._move(_libc.process_vm_writev, data, address)

    def _move(self, function: Any, buffer: bytearray, address: int) -> None:
        size = len(buffer)
        if size == 0:
            return
        local = _Iovec(ctypes.addressof(ctypes.c_char.from_buffer(buffer)), size)
        moved = function(self.thread, local, 1, _Iovec(address, size), 1, 0)
        if moved != size:
            error = ctypes.get_errno() if moved < 0 else 14
            raise OSError(error, os.strerror(error))
