"""The life of memory, by the calls of libcuda."""

from __future__ import annotations

import time

from tests.simgpu.host import SimHost
from tests.unit.simgpu.program import CONTEXT, MIB, Program, run, settled, smi_processes


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
