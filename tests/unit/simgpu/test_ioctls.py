"""The ioctls, by hand, in all the forms that a driver library may use."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

import pytest

from tests.simgpu import abi
from tests.simgpu.host import SimHost
from tests.unit.simgpu.program import MIB


class Caller:
    """Ioctls by hand."""

    def __init__(self, host: SimHost) -> None:
        self.fd = os.open(host.dev / "nvidiactl", os.O_RDWR | os.O_CLOEXEC)
        self.root = self.alloc(0, 0, abi.CLASS_ROOT_CLIENT)[0]
        self.device = self.alloc(self.root, self.root, abi.CLASS_DEVICE)[0]

    def ioctl(self, request: int, message: bytes) -> bytes:
        """One call; the message as it comes back."""
        buffer = bytearray(message)
        fcntl.ioctl(self.fd, request, buffer)
        return bytes(buffer)

    def alloc(self, root: int, parent: int, cls: int, params: int = 0, request: int = 0xC030462B) -> tuple[int, int]:
        """NVOS64: new handle and status."""
        answer = self.ioctl(request, abi.ALLOC.pack(root, parent, 0, cls, params, 0, 0, 0, 0xFFFF))
        return abi.ALLOC.unpack(answer)[2], abi.ALLOC.unpack(answer)[8]

    def memory(self, size: int, request: int = 0xC030462B) -> tuple[int, int]:
        """Class 0x40 of that many bytes: handle and status."""
        with_size = memory_params(size)
        return self.alloc(self.root, self.device, abi.CLASS_MEMORY_LOCAL_USER, ctypes.addressof(with_size), request)

    def free(self, handle: int) -> int:
        """NV_ESC_RM_FREE: the status."""
        answer = self.ioctl(0xC0104629, abi.FREE.pack(self.root, self.device, handle, 0xFFFF))
        return int(abi.FREE.unpack(answer)[3])


def memory_params(size: int) -> ctypes.Array[ctypes.c_char]:
    params = ctypes.create_string_buffer(abi.MEMORY_PARAMS)
    struct.pack_into("<Q", params, abi.MEMORY_PARAMS_BYTES, size)
    return params


@pytest.fixture
def caller(host: SimHost) -> Iterator[Caller]:
    """A client by hand."""
    caller = Caller(host)
    yield caller
    os.close(caller.fd)


# Requests that differ from the driver's own in direction (none, in, out) and in type.
@pytest.mark.parametrize("request_", [0xC030462B, 0x0030462B, 0x4030462B, 0x8030462B, 0xC030002B, 0xC030FF2B])
def test_a_call_is_told_by_number_and_size_alone(host: SimHost, caller: Caller, request_: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    params = memory_params(4 * MIB)
    message = ctypes.create_string_buffer(
        abi.ALLOC.pack(caller.root, caller.device, 0, 0x40, ctypes.addressof(params), 0, 0, 0, 0xFFFF), abi.ALLOC.size
    )
    assert libc.ioctl(caller.fd, ctypes.c_ulong(request_), message) == 0, os.strerror(ctypes.get_errno())
    handle, status = abi.ALLOC.unpack(message.raw)[2], abi.ALLOC.unpack(message.raw)[8]
    assert (status, host.used()) == (0, 4 * MIB)
    assert caller.free(handle) == 0
    assert host.used() == 0


def test_the_old_form_of_an_allocation(host: SimHost, caller: Caller) -> None:
    params = memory_params(2 * MIB)
    message = abi.ALLOC_OLD.pack(caller.root, caller.device, 0, 0x40, ctypes.addressof(params), 0, 0xFFFF)
    assert abi.ALLOC_OLD.unpack(caller.ioctl(0xC020462B, message))[6] == 0
    assert host.used() == 2 * MIB


def test_older_ways_to_ask_for_memory(host: SimHost, caller: Caller) -> None:
    message = abi.ALLOC_MEMORY.pack(caller.root, caller.device, 0, 0x40, 0, 0, 0, 0xFFFF, -1)
    answer = abi.ALLOC_MEMORY.unpack(caller.ioctl(0xC0384627, message))
    assert answer[7] == 0 and answer[6] > 1000 * MIB  # the size of all memory, of which it gives none
    heap = bytearray(abi.VID_HEAP_SIZE)
    abi.VID_HEAP_HEAD.pack_into(heap, 0, caller.root, caller.device, abi.VID_HEAP_ALLOC_SIZE, 0)
    abi.U64.pack_into(heap, abi.VID_HEAP_BYTES, 6 * MIB)
    caller.ioctl(0xC0B8464A, bytes(heap))
    assert host.used() == 6 * MIB


def test_a_carried_call_is_executed(host: SimHost, caller: Caller) -> None:
    params = memory_params(8 * MIB)
    inner = ctypes.create_string_buffer(
        abi.ALLOC.pack(caller.root, caller.device, 0, 0x40, ctypes.addressof(params), 0, 0, 0, 0xFFFF), abi.ALLOC.size
    )
    caller.ioctl(0xC01046D3, abi.XFER.pack(abi.ESC_ALLOC, abi.ALLOC.size, ctypes.addressof(inner)))
    assert abi.ALLOC.unpack(inner.raw)[8] == 0
    assert host.used() == 8 * MIB


@pytest.mark.parametrize("request_", [0xC02F462B, 0xC0304677, 0xC0114629, 0x21])
def test_an_unknown_request_is_invalid(caller: Caller, request_: int) -> None:
    with pytest.raises(OSError, match="Invalid argument") as refused:
        caller.ioctl(request_, bytes(0x30))
    assert refused.value.errno == errno.EINVAL


def test_refusals_are_a_status_in_the_message(host: SimHost, caller: Caller) -> None:
    assert caller.memory(1 << 40)[1] == abi.ERR_NO_MEMORY
    assert caller.alloc(0xBAD, 0xBAD, 0x40, 0)[1] == abi.ERR_INVALID_ADDRESS
    assert caller.free(0xBAD) == abi.ERR_NOT_FOUND
    assert host.used() == 0
