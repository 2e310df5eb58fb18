"""What an agent asks the driver: which GPU, who holds what of it, what is free; and what takes privilege."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.simgpu import abi
from tests.simgpu.host import SimHost
from tests.unit.simgpu.program import MIB
from tests.unit.simgpu.test_ioctls import Caller, memory_params


@pytest.fixture
def caller(host: SimHost) -> Iterator[Caller]:
    """A client by hand."""
    caller = Caller(host)
    yield caller
    os.close(caller.fd)


def control(caller: Caller, handle: int, command: int, params: bytes) -> tuple[int, bytes]:
    """NV_ESC_RM_CONTROL: the status, and the parameters as they come back."""
    buffer = ctypes.create_string_buffer(params, len(params))
    message = abi.CONTROL.pack(caller.root, handle, command, 0, ctypes.addressof(buffer), len(params), 0xFFFF)
    return int(abi.CONTROL.unpack(caller.ioctl(0xC020462A, message))[6]), buffer.raw


@pytest.fixture
def subdevice(caller: Caller) -> int:
    return caller.alloc(caller.root, caller.device, abi.CLASS_SUBDEVICE)[0]


def held(caller: Caller, subdevice: int, *pids: int) -> list[tuple[int, ...]]:
    """NV2080_CTRL_CMD_GPU_GET_PID_INFO: (pid, index, result, memPrivate, …) of each."""
    params = bytearray(abi.PID_INFO_PARAMS)
    abi.U32.pack_into(params, 0, len(pids))
    for place, pid in enumerate(pids):
        abi.U32.pack_into(params, abi.PID_INFO_FIRST + place * abi.PID_INFO.size, pid)
    status, answer = control(caller, subdevice, abi.CTRL_GPU_GET_PID_INFO, bytes(params))
    assert status == abi.OK
    return [
        abi.PID_INFO.unpack_from(answer, abi.PID_INFO_FIRST + place * abi.PID_INFO.size) for place in range(len(pids))
    ]


def test_sizes_are_those_of_the_driver() -> None:
    assert (abi.UUID_INFO.size, abi.PIDS.size, abi.PID_INFO_PARAMS, abi.FB_INFO_PARAMS) == (272, 3812, 14408, 1028)


def test_a_uuid_tells_the_device(host: SimHost, caller: Caller) -> None:
    asked = abi.UUID_INFO.pack(host.host.gpus[0].uuid.encode(), 0, 0, 9, 9)
    status, answer = control(caller, caller.root, abi.CTRL_GPU_GET_UUID_INFO, asked)
    assert status == abi.OK
    assert abi.UUID_INFO.unpack(answer)[2:] == (0x100, 0, 0)
    unknown = abi.UUID_INFO.pack(b"GPU-none", 0, 0, 0, 0)
    assert control(caller, caller.root, abi.CTRL_GPU_GET_UUID_INFO, unknown)[0] == abi.ERR_NOT_FOUND


def test_who_holds_what(caller: Caller, subdevice: int) -> None:
    asked = abi.PIDS.pack(0, abi.CLASS_SUBDEVICE, 0, *[0] * abi.PIDS_MAX)
    status, answer = control(caller, subdevice, abi.CTRL_GPU_GET_PIDS, asked)
    assert (status, struct.unpack_from("<II", answer, 8)) == (abi.OK, (1, os.getpid()))
    caller.memory(5 * MIB)
    assert held(caller, subdevice, os.getpid(), 1 << 21, 0) == [
        (os.getpid(), 0, abi.OK, 6 * MIB, 0, 0),
        (1 << 21, 0, abi.OK, 0, 0, 0),
        (0, 0, abi.ERR_INVALID_ARGUMENT, 0, 0, 0),
    ]


def test_what_is_free(host: SimHost, caller: Caller, subdevice: int) -> None:
    caller.memory(64 * MIB)
    params = struct.pack("<IIIII", 2, abi.FB_HEAP_FREE, 0, abi.FB_RAM_SIZE, 0).ljust(abi.FB_INFO_PARAMS, b"\0")
    status, answer = control(caller, subdevice, abi.CTRL_FB_GET_INFO_V2, params)
    gpu = host.host.gpus[0]
    free = (gpu.total - gpu.reserved - 64 * MIB) // 1024
    assert (status, struct.unpack_from("<IIIII", answer)[1:]) == (
        abi.OK, (abi.FB_HEAP_FREE, free, abi.FB_RAM_SIZE, gpu.total // 1024)
    )  # fmt: skip


def test_a_command_wants_its_object_and_its_size(caller: Caller, subdevice: int) -> None:
    size = abi.FB_INFO_PARAMS
    answers = [
        control(caller, *asked)[0]
        for asked in (
            (subdevice, abi.CTRL_FB_GET_INFO_V2, bytes(size)),
            (subdevice, abi.CTRL_FB_GET_INFO_V2, bytes(size - 4)),
            (caller.device, abi.CTRL_FB_GET_INFO_V2, bytes(size)),
            (0xBAD, abi.CTRL_FB_GET_INFO_V2, bytes(size)),
        )
    ]
    assert answers == [
        abi.OK, abi.ERR_INVALID_PARAM_STRUCT, abi.ERR_INVALID_COMMAND, abi.ERR_INVALID_OBJECT_HANDLE
    ]  # fmt: skip


def test_an_allocation_says_what_it_was_given(caller: Caller) -> None:
    params = memory_params(3 * MIB)
    assert caller.alloc(caller.root, caller.device, 0x40, ctypes.addressof(params))[1] == abi.OK
    assert abi.U64.unpack_from(params, abi.MEMORY_PARAMS_BYTES) == (4 * MIB,)


@pytest.mark.parametrize("cls", [abi.CLASS_MEMORY_LOCAL_PHYSICAL, abi.CLASS_OS_DESCRIPTOR])
@pytest.mark.parametrize("privileged", [False, True])
def test_some_classes_are_for_the_administrator(host: SimHost, cls: int, privileged: bool) -> None:
    code = (
        "import sys; from pathlib import Path; from types import SimpleNamespace; import ctypes;"
        "from tests.unit.simgpu.test_ioctls import Caller, memory_params;"
        "caller = Caller(SimpleNamespace(dev=Path(sys.argv[1])));"
        "params = memory_params(4 << 20);"
        "print(caller.alloc(caller.root, caller.device, int(sys.argv[2]), ctypes.addressof(params))[1])"
    )
    drop = [] if privileged else ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    command = [*drop, sys.executable, "-c", code, str(host.dev), str(cls)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert int(answer) == (abi.OK if privileged else abi.ERR_PERMISSIONS)
