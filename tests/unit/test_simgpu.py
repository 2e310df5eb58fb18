"""The simulated GPU host: does it behave as the driver does, where the facts are known?"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simgpu import abi
from tests.simgpu.build import NOT_SUPPORTED, SOURCE, exports, headers
from tests.simgpu.config import HostConfig
from tests.simgpu.host import REPOSITORY, SimHost
from tests.simgpu.resman import File, ResourceManager, RmError

MIB = abi.MIB
CONTEXT = 160 * MIB
EIGHT = {"gpus": [{"name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "reserved_mib": 480, "context_mib": 526}] * 8}

PRELUDE = """
import ctypes, os, signal, sys
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_void_p
cuda = ctypes.CDLL("libcuda.so.1")
def start(device=0):
    context = c_void_p()
    assert cuda.cuInit(0) == 0
    result = cuda.cuCtxCreate_v2(byref(context), 0, device)
    assert result == 0, result
    return context
def alloc(size, call="cuMemAlloc_v2", *more):
    address = c_uint64()
    result = getattr(cuda, call)(byref(address), c_size_t(size), *more)
    return address.value if result == 0 else -result
def free(address):
    assert cuda.cuMemFree_v2(c_uint64(address)) == 0
def info():
    left, total = c_size_t(), c_size_t()
    assert cuda.cuMemGetInfo_v2(byref(left), byref(total)) == 0
    return left.value, total.value
def say(*what):
    os.write(1, (" ".join(map(str, what)) + "\\n").encode())
def wait():
    sys.stdin.readline()
"""


PROGRAMS: list[Program] = []
"""Those of the running test: none outlives it."""


class Program:
    """Python code with PRELUDE on a simulated host, stepped by lines of its input and output."""

    def __init__(self, host: SimHost, code: str, *prefix: str) -> None:
        command = [*prefix, sys.executable, "-S", "-c", PRELUDE + code]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=host.environment(), stdin=pipe, stdout=pipe, text=True)
        PROGRAMS.append(self)

    def line(self) -> str:
        """What it says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def step(self) -> None:
        """Let it go on behind its wait()."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Its input ends, and it with it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(10) == 0

    def close(self) -> None:
        """Whatever it does, it ends now."""
        self.process.kill()
        with self.process:
            pass


def run(host: SimHost, code: str) -> list[str]:
    """What a program with PRELUDE prints."""
    command = [sys.executable, "-S", "-c", PRELUDE + code]
    return subprocess.run(command, env=host.environment(), stdout=subprocess.PIPE, text=True, check=True).stdout.split()


def settled(host: SimHost, used: int, gpu: int = 0) -> None:
    """The device's used memory is that much, within a second: the kernel tells of a closed file in its own time."""
    for _ in range(100):
        if host.used(gpu) == used:
            return
        time.sleep(0.01)
    assert host.used(gpu) == used


def is_mounted(folder: Path) -> bool:
    """By the list of mounts: os.path.ismount also denies it for one whose server is just going away."""
    return f" {folder} " in Path("/proc/self/mounts").read_text()


@pytest.fixture(scope="module")
def shared_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimHost]:
    """One host with the default GPU for all tests of this file."""
    with SimHost(tmp_path_factory.mktemp("gpu")) as host:
        yield host


@pytest.fixture
def host(shared_host: SimHost) -> Iterator[SimHost]:
    """The host, with nothing on it before and after."""
    settled(shared_host, 0)
    yield shared_host
    while PROGRAMS:
        PROGRAMS.pop().close()
    settled(shared_host, 0)


# The resource manager alone.


def manager(mib: int = 100, context: int = 0) -> tuple[ResourceManager, File, int, int]:
    gpu = {"memory_mib": mib, "reserved_mib": 0, "context_mib": context}
    rm = ResourceManager(HostConfig.parse({"gpus": [gpu]}))
    file = File("nvidiactl", "one")
    root = rm.new_client(file, 0, "one")
    return rm, file, root, rm.new_object(file, root, root, 0, abi.CLASS_DEVICE, 0)


@pytest.mark.parametrize(("asked", "taken"), [(1, 2), (2 * MIB, 2), (3 * MIB, 4), (MIB + 1, 2), (64 * MIB, 64)])
def test_physical_memory_is_taken_in_granules(asked: int, taken: int) -> None:
    rm, file, root, device = manager()
    rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, asked)
    assert rm.gpus[0].used == taken * MIB


def test_past_the_pool_is_no_memory_and_takes_nothing() -> None:
    rm, file, root, device = manager(10)
    rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 8 * MIB)
    with pytest.raises(RmError) as refused:
        rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 4 * MIB)
    assert refused.value.status == abi.ERR_NO_MEMORY
    assert rm.gpus[0].used == 8 * MIB


def test_system_memory_is_not_charged() -> None:
    rm, file, root, device = manager()
    rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_SYSTEM, 64 * MIB)
    assert rm.gpus[0].used == 0


def test_freeing_a_parent_frees_its_children() -> None:
    rm, file, root, device = manager()
    memory = rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 8 * MIB)
    rm.free(file, root, device)
    assert rm.gpus[0].used == 0
    with pytest.raises(RmError):
        rm.free(file, root, memory)


@pytest.mark.parametrize("first", ["original", "duplicate"])
def test_a_duplicate_keeps_its_memory(first: str) -> None:
    rm, file, root, device = manager()
    other = File("nvidiactl", "one")
    other_root = rm.new_client(other, 0, "one")
    memory = rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 8 * MIB)
    rm.duplicate(other, other_root, other_root, 0, (root, memory))
    rm.close(file if first == "original" else other)
    assert rm.gpus[0].used == 8 * MIB
    rm.close(other if first == "original" else file)
    assert rm.gpus[0].used == 0


def test_a_mapping_keeps_its_memory() -> None:
    rm, file, root, device = manager()
    uvm = File("nvidia-uvm", "one")
    memory = rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 8 * MIB)
    rm.map(uvm, 0x1000, (root, memory), "one")
    rm.free(file, root, memory)
    assert rm.gpus[0].used == 8 * MIB
    rm.unmap(uvm, 0x1000)
    assert rm.gpus[0].used == 0


def test_what_a_file_carries_outlives_its_maker() -> None:
    rm, file, root, device = manager()
    memory = rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 8 * MIB)
    passed = File("nvidiactl", "one")
    rm.export(passed, (root, memory), "one")
    rm.close(file)
    assert rm.gpus[0].used == 8 * MIB
    taker = File("nvidiactl", "two")
    taker_root = rm.new_client(taker, 0, "two")
    rm.import_(passed, (taker_root, taker_root, 0), "two")
    rm.close(passed)
    assert rm.gpus[0].used == 8 * MIB
    rm.close(taker)
    assert rm.gpus[0].used == 0


def test_a_client_is_of_its_file_alone() -> None:
    rm, _file, root, device = manager()
    stranger = File("nvidiactl", "two")
    with pytest.raises(RmError) as refused:
        rm.new_object(stranger, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, MIB)
    assert refused.value.status == abi.ERR_INVALID_CLIENT
    stranger_root = rm.new_client(stranger, 0, "two")
    with pytest.raises(RmError) as refused:
        rm.duplicate(stranger, stranger_root, stranger_root, 0, (root, device))
    assert refused.value.status == abi.ERR_PERMISSIONS


def test_nvml_leaves_out_part_of_a_context_and_managed_memory() -> None:
    rm, file, root, device = manager(context=20)
    rm.new_object(file, root, device, 0, abi.CLASS_CONTEXT, 0)
    rm.new_object(file, root, device, 0, abi.CLASS_MEMORY_LOCAL_USER, 12 * MIB)
    rm.managed(File("nvidia-uvm", "one"), 0x1000, 6 * MIB, 0, "one")
    assert rm.gpus[0].used == 28 * MIB
    assert rm.gpus[0].listed["one"] == 12 * MIB


def test_what_a_process_takes_besides_its_contexts_comes_and_goes_once() -> None:
    rm, file, root, device = manager(context=20)
    first = rm.new_object(file, root, device, 0, abi.CLASS_CONTEXT, 0)
    second = rm.new_object(file, root, device, 0, abi.CLASS_CONTEXT, 0)
    assert rm.gpus[0].used == (2 + 8 + 8) * MIB and not rm.gpus[0].listed
    rm.free(file, root, first)
    assert rm.gpus[0].used == (2 + 8) * MIB
    rm.free(file, root, second)
    assert rm.gpus[0].used == 0 and rm.gpus[0].owners() == []


@pytest.mark.parametrize(
    "config",
    [{"gpu": []}, {"gpus": [{"memory": 1}]}, {"gpus": [{"memory_mib": 1, "reserved_mib": 2}]},
     {"gpus": [{"uuid": "a"}, {"uuid": "a"}]}],
)  # fmt: skip
def test_a_faulty_configuration_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="simgpu:"):
        HostConfig.parse(config)


# The ioctls.


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
    message = abi.ALLOC_MEMORY.pack(caller.root, caller.device, 0, 0x40, 0, 0, 4 * MIB - 1, 0xFFFF, -1)
    assert abi.ALLOC_MEMORY.unpack(caller.ioctl(0xC0384627, message))[7] == 0
    heap = bytearray(abi.VID_HEAP_SIZE)
    abi.VID_HEAP_HEAD.pack_into(heap, 0, caller.root, caller.device, abi.VID_HEAP_ALLOC_SIZE, 0)
    abi.U64.pack_into(heap, abi.VID_HEAP_BYTES, 6 * MIB)
    caller.ioctl(0xC0B8464A, bytes(heap))
    assert host.used() == 10 * MIB


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


def test_an_ioctl_is_quick(caller: Caller) -> None:
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(200):
            caller.ioctl(0xC00846D6, bytes(8))
        best = min(best, (time.perf_counter() - start) / 200)
    assert best < 500e-6  # 25 to 40 µs on an idle machine


# The life of memory.


def test_context_and_allocations_are_what_the_device_gave(host: SimHost) -> None:
    program = Program(host, "start(); say(*info()); say(alloc(3 << 20) > 0, *info()); wait()")
    total = (10989 - 64) * MIB
    assert program.line() == f"{total - CONTEXT} {total}"
    assert program.line() == f"True {total - CONTEXT - 4 * MIB} {total}"
    assert host.used() == CONTEXT + 4 * MIB
    assert host.processes() == {program.process.pid: CONTEXT + 4 * MIB}
    program.end()


def test_small_allocations_share_a_block(host: SimHost) -> None:
    code = """
start()
before = info()[0]
taken = [alloc(size) for size in (1, 4096, 1 << 20)]
say(before - info()[0], len({address >> 21 for address in taken}))
one = alloc((1 << 20) + 1)
say(before - info()[0], one % (2 << 20))
for address in [*taken, one]: free(address)
say(before - info()[0])
"""
    assert run(host, code) == [str(2 * MIB), "1", str(4 * MIB), "0", "0"]


def test_killed_gives_its_memory_back(host: SimHost) -> None:
    program = Program(host, "start(); alloc(512 << 20); say('up'); wait()")
    program.line()
    assert host.used() == CONTEXT + 512 * MIB
    program.process.kill()
    program.process.communicate()
    settled(host, 0)


def test_a_forked_child_keeps_the_memory(host: SimHost) -> None:
    code = """
start(); alloc(512 << 20)
child = os.fork()
if child == 0:
    say(cuda.cuInit(0), cuda.cuCtxSynchronize(), alloc(1 << 20))
    wait()
else:
    say("parent"); os._exit(0)
"""
    program = Program(host, code)
    assert {program.line(), program.line()} == {"parent", "3 3 -3"}
    assert program.process.wait(5) == 0
    time.sleep(0.1)
    assert host.used() == CONTEXT + 512 * MIB
    program.end()
    settled(host, 0)


def test_two_processes_compete_for_one_pool(host: SimHost) -> None:
    first = Program(host, "start(); say(alloc(8 << 30) > 0); wait(); os._exit(0)")
    assert first.line() == "True"
    assert run(host, "start(); say(alloc(4 << 30))") == ["-2"]
    first.end()
    settled(host, 0)
    assert run(host, "start(); say(alloc(4 << 30) > 0)") == ["True"]


def test_a_context_needs_room(host: SimHost) -> None:
    first = Program(host, "start(); say(alloc((10989 - 64 - 200) << 20) > 0); wait()")
    assert first.line() == "True"
    code = "assert cuda.cuInit(0) == 0; say(cuda.cuCtxCreate_v2(byref(c_void_p()), 0, 0))"
    assert run(host, code) == ["2"]
    assert host.used() == CONTEXT + (10989 - 64 - 201) * MIB // (2 * MIB) * 2 * MIB + 2 * MIB
    first.end()


def test_managed_memory_shows_on_the_device_only(host: SimHost) -> None:
    code = """
start(); address = alloc(64 << 20, "cuMemAllocManaged", 1)
ctypes.memset(address, 7, 4096)
mapped = [line for line in open("/proc/self/maps") if "nvidia-uvm" in line]
say(len(mapped), ctypes.string_at(address + 4095, 1)[0]); wait(); free(address); say(info()[0]); wait()
"""
    program = Program(host, code)
    assert program.line() == "1 7"
    assert host.used() == CONTEXT + 64 * MIB
    assert smi_processes(host) == {program.process.pid: 150}
    program.step()
    assert program.line() == str((10989 - 64) * MIB - CONTEXT)
    program.end()


def test_data_arrives(host: SimHost) -> None:
    code = """
start()
a, b = alloc(4096), alloc(8 << 20)
text, back = ctypes.create_string_buffer(b"simulated"), ctypes.create_string_buffer(9)
say(cuda.cuMemcpyHtoD_v2(c_uint64(a), text, c_size_t(9)))
say(cuda.cuMemcpyDtoD_v2(c_uint64(b + 100), c_uint64(a), c_size_t(9)))
say(cuda.cuMemcpyDtoHAsync_v2(back, c_uint64(b + 100), c_size_t(9), None), back.raw.decode())
say(cuda.cuMemsetD32_v2(c_uint64(b), 0x41414141, c_size_t(1)))
say(cuda.cuMemcpyDtoH_v2(back, c_uint64(b), c_size_t(4)), back.raw[:4].decode())
say(cuda.cuMemcpyHtoD_v2(c_uint64(0x1000), text, c_size_t(9)))
"""
    assert run(host, code) == ["0", "0", "0", "simulated", "0", "0", "AAAA", "1"]


def test_a_pool_grows_in_steps_and_is_trimmed(host: SimHost) -> None:
    code = """
start(); before = info()[0]
stream = c_void_p(); assert cuda.cuStreamCreate(byref(stream), 0) == 0
taken = [alloc(1 << 20, "cuMemAllocAsync", stream) for _ in range(33)]
say((before - info()[0]) >> 20)
for address in taken[1:]: assert cuda.cuMemFreeAsync(c_uint64(address), stream) == 0
say((before - info()[0]) >> 20)
cuda.cuStreamSynchronize(stream); say((before - info()[0]) >> 20)
pool, value = c_void_p(), c_uint64(64 << 20)
assert cuda.cuDeviceGetDefaultMemPool(byref(pool), 0) == 0
assert cuda.cuMemPoolSetAttribute(pool, 4, byref(value)) == 0
free(taken[0]); cuda.cuCtxSynchronize(); say((before - info()[0]) >> 20)
for what in 5, 6, 7, 8:
    assert cuda.cuMemPoolGetAttribute(pool, what, byref(value)) == 0; say(value.value >> 20)
assert cuda.cuMemPoolTrimTo(pool, c_size_t(0)) == 0; say((before - info()[0]) >> 20)
"""
    assert run(host, code) == ["64", "64", "32", "32", "32", "64", "0", "33", "0"]


def test_mapped_memory_goes_back_with_its_last_reference(host: SimHost) -> None:
    code = """
start(); before = info()[0]
taken = lambda: (before - info()[0]) >> 20
class Location(ctypes.Structure): _fields_ = [("type", c_int), ("id", c_int)]
class Props(ctypes.Structure):
    _fields_ = [("type", c_int), ("handles", c_int), ("location", Location), ("w", c_void_p), ("rest", c_uint64)]
class Access(ctypes.Structure): _fields_ = [("location", Location), ("flags", c_int)]
size, props, handle, again, address = c_size_t(4 << 20), Props(1, 1, Location(1, 0)), c_uint64(), c_uint64(), c_uint64()
area, none = c_size_t(8 << 20), c_uint64(0)
assert cuda.cuMemAddressReserve(byref(address), area, c_size_t(0), none, none) == 0; say(taken())
assert cuda.cuMemCreate(byref(handle), size, byref(props), c_uint64(0)) == 0; say(taken())
assert cuda.cuMemMap(address, size, c_size_t(0), handle, c_uint64(0)) == 0
assert cuda.cuMemSetAccess(address, size, byref(Access(Location(1, 0), 3)), c_size_t(1)) == 0
assert cuda.cuMemsetD8_v2(address, 5, size) == 0
assert cuda.cuMemRelease(handle) == 0; say(taken())
assert cuda.cuMemRetainAllocationHandle(byref(again), address) == 0
assert cuda.cuMemUnmap(address, size) == 0; say(taken())
second = c_uint64(address.value + (4 << 20))
assert cuda.cuMemMap(second, size, c_size_t(0), again, c_uint64(0)) == 0
assert cuda.cuMemSetAccess(second, size, byref(Access(Location(1, 0), 3)), c_size_t(1)) == 0
say(ctypes.string_at(second.value + (4 << 20) - 1, 1)[0])
fd = c_int(); assert cuda.cuMemExportToShareableHandle(byref(fd), again, 1, c_uint64(0)) == 0
assert cuda.cuMemUnmap(second, size) == 0 and cuda.cuMemRelease(again) == 0; say(taken())
assert cuda.cuMemImportFromShareableHandle(byref(handle), c_void_p(fd.value), 1) == 0
os.close(fd.value); say(taken())
assert cuda.cuMemRelease(handle) == 0; say(taken())
assert cuda.cuMemAddressFree(address, c_size_t(8 << 20)) == 0
"""
    # The release of the exported descriptor comes in the kernel's own time, but before the last look here.
    assert run(host, code)[:7] == ["0", "4", "4", "4", "5", "4", "4"]


def test_the_rest_that_takes_memory(host: SimHost) -> None:
    code = """
context = start(); before = info()[0]
class Array(ctypes.Structure):
    _fields_ = [("w", c_size_t), ("h", c_size_t), ("format", c_int), ("channels", c_uint)]
array, pitch, address = c_void_p(), c_size_t(), c_uint64()
assert cuda.cuArrayCreate_v2(byref(array), byref(Array(1024, 1024, 32, 4))) == 0
say((before - info()[0]) >> 20); assert cuda.cuArrayDestroy(array) == 0
assert cuda.cuMemAllocPitch_v2(byref(address), byref(pitch), c_size_t(1000), c_size_t(4096), 4) == 0
say(pitch.value, (before - info()[0]) >> 20)
assert cuda.cuCtxDestroy_v2(context) == 0
primary = c_void_p(); assert cuda.cuDevicePrimaryCtxRetain(byref(primary), 0) == 0
assert cuda.cuCtxSetCurrent(primary) == 0; say(before - info()[0])
assert cuda.cuDevicePrimaryCtxRelease_v2(0) == 0; say(alloc(4096))
"""
    assert run(host, code) == ["16", "1024", "4", "0", "-709"]


def test_threads(host: SimHost) -> None:
    code = """
import threading
context = start(); before = info()[0]
def work():
    assert cuda.cuCtxSetCurrent(context) == 0
    for size in [512, 1 << 20, 3 << 20, 4096] * 25:
        call = "cuMemAlloc_v2" if size % 3 else "cuMemAllocAsync"
        address = alloc(size, call, *([None] if size % 3 == 0 else []))
        assert address > 0
        free(address)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
cuda.cuCtxSynchronize(); say(before - info()[0])
"""
    assert run(host, code) == ["0"]


def test_nodes_in_dev_for_a_library_that_lies_elsewhere(host: SimHost, tmp_path: Path) -> None:
    """As in a container: the library in some folder, its nodes bind-mounted into /dev, the user not root."""
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    tmp_path.chmod(0o755)
    for name in ("nvidiactl", "nvidia0", "nvidia-uvm"):
        (nodes / name).touch()
    library = tmp_path / "libcuda.so.1"
    library.write_bytes((host.lib / "libcuda.so.1").read_bytes())
    script = f"""
set -e
mount -t tmpfs -o mode=755 tmpfs /mnt
cp {library} /mnt/libcuda.so.1
for node in nvidiactl nvidia0 nvidia-uvm; do mount --bind {host.dev}/$node {nodes}/$node; done
mount --rbind {nodes} /dev
cd / && LD_LIBRARY_PATH=/mnt exec setpriv --reuid 1000 --clear-groups {Path(sys.executable).resolve()} -S -c "$CODE"
"""
    code = PRELUDE + "start(); alloc(64 << 20); say(os.getuid(), info()[0] >> 20)"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(command, env={**os.environ, "CODE": code}, capture_output=True, text=True, check=False)
    assert done.stdout == f"1000 {10989 - 64 - 160 - 64}\n", done.stderr


# Processes, NVML and nvidia-smi.


def smi(host: SimHost, *arguments: str) -> str:
    command = [str(host.bin / "nvidia-smi"), *arguments]
    return subprocess.run(command, env=host.environment(), stdout=subprocess.PIPE, text=True, check=True).stdout


def smi_processes(host: SimHost) -> dict[int, int]:
    answer = smi(host, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    return {int(line.split(",")[0]): int(line.split(",")[1]) for line in answer.splitlines()}


def test_nvml_leaves_out_10_mib_a_context(host: SimHost) -> None:
    program = Program(host, "start(); alloc(64 << 20); say('up'); wait()")
    program.line()
    assert smi_processes(host) == {program.process.pid: 150 + 64}
    assert smi(host, "--query-gpu=memory.used", "--format=csv,noheader") == f"{160 + 64} MiB\n"
    program.end()


def test_a_pid_namespace_sees_its_own_processes(host: SimHost) -> None:
    outside = Program(host, "start(); say('up'); wait()")
    outside.line()
    code = """
start()
import subprocess
command = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
say(subprocess.run(command, capture_output=True, text=True).stdout.split())
wait()
"""
    inside = Program(host, code, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    assert inside.line() == "['1']"
    seen = smi_processes(host)
    assert len(seen) == 2 and outside.process.pid in seen and 1 not in seen
    inside.end()
    outside.end()


def test_nvml_in_all_its_versions(host: SimHost) -> None:
    program = Program(host, "start(); say('up'); wait()")
    program.line()
    code = """
nvml = ctypes.CDLL("libnvidia-ml.so.1")
count, device = c_uint(7), c_void_p()
say(nvml.nvmlDeviceGetCount_v2(byref(count)))
assert nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetHandleByIndex_v2(0, byref(device)) == 0
memory = (c_uint64 * 5)()
assert nvml.nvmlDeviceGetMemoryInfo(device, memory) == 0; say(*(value >> 20 for value in memory[:3]))
say(nvml.nvmlDeviceGetMemoryInfo_v2(device, memory))
memory[0] = 2 << 24 | 40
assert nvml.nvmlDeviceGetMemoryInfo_v2(device, memory) == 0; say(*(value >> 20 for value in memory[1:]))
for version, words in ("", 2), ("_v2", 3), ("_v3", 3):
    call, count, room = getattr(nvml, "nvmlDeviceGetComputeRunningProcesses" + version), c_uint(0), (c_uint64 * words)()
    say(call(device, byref(count), None), count.value, call(device, byref(count), room), room[0], room[1] >> 20)
"""
    pid = str(program.process.pid)
    assert run(host, code) == [
        "1", "10989", str(10989 - 64 - 160), str(64 + 160), "25", "10989", "64", str(10989 - 64 - 160), "160",
        *["7", "1", "0", pid, "150"] * 3,
    ]  # fmt: skip
    program.end()


def test_nvidia_smi_has_the_real_ones_layout(host: SimHost) -> None:
    program = Program(host, "start(); say('up'); wait()")
    program.line()
    lines = smi(host).splitlines()
    assert lines[2] == f"| NVIDIA-SMI 580.159.04             Driver Version: 580.159.04     CUDA Version: 13.0{'|':>6}"
    assert lines[8:11] == [
        "|   0  NVIDIA GeForce RTX 2080 Ti     Off |   00000000:01:00.0 Off |                  N/A |",
        "| 29%   35C    P8             23W /  250W |     160MiB /  10989MiB |      0%      Default |",
        "|                                         |                        |                  N/A |",
    ]
    assert {len(line) for line in lines[1:] if line} == {91}
    row = rf"\|    0   N/A  N/A {program.process.pid:>15}      C   \S+ +150MiB \|"
    assert re.fullmatch(row, lines[-2]), lines[-2]
    program.end()
    settled(host, 0)
    assert "|  No running processes found      " in smi(host)


def test_nvidia_smi_says_what_is_wrong(host: SimHost, tmp_path: Path) -> None:
    command = str(host.bin / "nvidia-smi")
    alone = subprocess.run([command], env={}, stdout=subprocess.PIPE, text=True, check=False)
    assert (alone.returncode, "couldn't find libnvidia-ml.so" in alone.stdout) == (12, True)
    (tmp_path / "libnvidia-ml.so.1").write_bytes((host.lib / "libnvidia-ml.so.1").read_bytes())
    no_driver = subprocess.run(
        [command], env={"LD_LIBRARY_PATH": str(tmp_path)}, stdout=subprocess.PIPE, text=True, check=False
    )
    assert (no_driver.returncode, "couldn't communicate with the NVIDIA driver" in no_driver.stdout) == (9, True)


def test_nvidia_smi_queries(host: SimHost) -> None:
    assert smi(host, "-L").startswith("GPU 0: NVIDIA GeForce RTX 2080 Ti (UUID: GPU-")
    assert smi(host, "--query-gpu=index,name,memory.total,driver_version", "--format=csv").splitlines() == [
        "index, name, memory.total [MiB], driver_version",
        "0, NVIDIA GeForce RTX 2080 Ti, 10989 MiB, 580.159.04",
    ]
    assert "        Total                                          : 10989 MiB" in smi(host, "-q", "-d", "MEMORY")


def test_eight_gpus(tmp_path: Path) -> None:
    with SimHost(tmp_path, EIGHT) as host:
        assert len(set(re.findall(r"GPU-[-0-9a-f]{36}", smi(host, "-L")))) == 8
        assert smi(host).count("|       0MiB /  81559MiB |") == 8
        assert smi(host, "-i", "3,5", "--query-gpu=index", "--format=csv,noheader").split() == ["3", "5"]
        program = Program(host, "start(5); alloc(64 << 20); say(info()[1] >> 20); wait()")
        assert program.line() == "81079"
        assert [host.used(gpu) >> 20 for gpu in range(8)] == [0, 0, 0, 0, 0, 526 + 64, 0, 0]
        program.end()
        program.close()
    assert not is_mounted(host.dev)


def test_a_second_host_and_a_stale_mount(host: SimHost, tmp_path: Path) -> None:
    other = SimHost(tmp_path)
    other.start()
    assert other._kernel is not None
    with other._kernel:
        other._kernel.kill()
    with SimHost(tmp_path) as again:
        assert again.used() == 0 and host.used() == 0


def test_in_the_foreground_until_sigterm(host: SimHost, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.simgpu", str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == f"{tmp_path}\n"
        assert (tmp_path / "dev" / "nvidia0").exists()
        program.terminate()
        assert program.wait(10) == 0
    assert list((tmp_path / "dev").iterdir()) == []


def test_it_ends_with_whoever_started_it(host: SimHost, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.simgpu", str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.kill()
    for _ in range(200):
        if not is_mounted(tmp_path / "dev"):
            break
        time.sleep(0.01)
    assert list((tmp_path / "dev").iterdir()) == []


# What the libraries export.


def symbols(library: Path) -> dict[str, int]:
    """Exported names and their values, by pyelftools."""
    elffile = pytest.importorskip("elftools.elf.elffile")
    with library.open("rb") as file:
        table = elffile.ELFFile(file).get_section_by_name(".dynsym")
        return {s.name: s["st_value"] for s in table.iter_symbols() if s["st_shndx"] != "SHN_UNDEF"}


@pytest.mark.parametrize(("name", "file"), [("cuda", "libcuda.so.1"), ("nvml", "libnvidia-ml.so.1")])
def test_every_name_of_the_lists_is_exported_and_no_other(shared_host: SimHost, name: str, file: str) -> None:
    assert set(symbols(shared_host.lib / file)) == set(exports(name))


def test_the_lists_hold_what_the_headers_declare() -> None:
    cuda = re.findall(r"CUresult\s+CUDAAPI\s+(cu[A-Z]\w+)\s*\(", (headers() / "cuda.h").read_text())
    nvml = re.findall(r"DECLDIR\s+\*?\s*(nvml\w+)\s*\(", (headers() / "nvml.h").read_text())
    assert len(cuda) > 400 and set(cuda) <= set(exports("cuda"))
    assert len(nvml) > 300 and set(nvml) <= set(exports("nvml"))


def test_what_is_not_simulated_says_so(shared_host: SimHost) -> None:
    assert ctypes.CDLL(str(shared_host.lib / "libcuda.so.1")).cuGraphCreate() == NOT_SUPPORTED["cuda"]
    assert ctypes.CDLL(str(shared_host.lib / "libnvidia-ml.so.1")).nvmlEventSetCreate() == NOT_SUPPORTED["nvml"]


def test_get_proc_address(shared_host: SimHost) -> None:
    library = shared_host.lib / "libcuda.so.1"
    cuda, at = ctypes.CDLL(str(library)), symbols(library)
    function, status = ctypes.c_void_p(), ctypes.c_int()
    names = {value: key for key, value in at.items()}
    base = ctypes.cast(cuda.cuInit, ctypes.c_void_p).value or 0

    def resolve(name: str, version: int, flags: int = 0) -> tuple[int, int | None, int]:
        result = cuda.cuGetProcAddress_v2(
            name.encode(), ctypes.byref(function), version, ctypes.c_uint64(flags), ctypes.byref(status)
        )
        offset = (function.value or 0) - base + at["cuInit"] if function.value else None
        return result, offset, status.value

    assert names[at["cuInit"]] == "cuInit"
    assert resolve("cuMemAlloc", 13000) == (0, at["cuMemAlloc_v2"], 0)
    assert resolve("cuMemAlloc", 2000) == (0, at["cuMemAlloc"], 0)
    assert resolve("cuCtxCreate", 12050) == (0, at["cuCtxCreate_v4"], 0)
    assert resolve("cuMemcpyHtoD", 12000, 2) == (0, at["cuMemcpyHtoD_v2_ptds"], 0)
    assert resolve("cuMemAllocAsync", 12000, 2) == (0, at["cuMemAllocAsync_ptsz"], 0)
    assert resolve("cuMemAllocAsync", 11000) == (500, None, 2)
    assert resolve("cuNoSuchThing", 13000) == (500, None, 1)


def test_the_header_mirrors_the_table() -> None:
    defines = re.findall(
        r"^#define (\w+) (0x[0-9A-F]+)$", (SOURCE / "common" / "abi.h").read_text(), re.MULTILINE | re.IGNORECASE
    )
    assert len(defines) > 15
    assert {name: int(value, 16) for name, value in defines} == {name: getattr(abi, name) for name, _ in defines}
