"""In a container that an agent bounds: what it counts is shown, and nothing but managed memory is charged.

The agent's page is written by hand here, and nobody bounds anything: the simulated driver knows no share.
"""

from __future__ import annotations

import subprocess

import pytest

from tests.simgpu.abi import MIB
from tests.unit.libvgpu.place import AGENT_PAGE_BYTES, CONTEXT, GOOD, OUT, SHARES, Place, Program, numbers

PYTHON = "/usr/bin/python3"


def until_hold(program: Program) -> list[str]:
    """What its calls answered until it holds what it has."""
    lines = []
    while not (line := program.line()).startswith("hold"):
        assert line
        lines.append(line)
    return numbers("\n".join(lines))


@pytest.mark.parametrize("build", ["asan", "plain"])
def test_nothing_is_charged(place: Place, build: str) -> None:
    """Not even noted: past the share the driver still gives, and what it says at its own end is what comes back."""
    place.agent().gpu(0, SHARES[0])
    program = place.start(
        "cudash", "primary", "alloc 1100m", "pitch 1000 1000", "async 100m", "pool 100m", "create 100m", "map 4", "ctx",
        "alloc 1", "alloc 4g", "create 4g", "hold", "unmap 4", "release 4", "freeasync 2", "freeasync 3", "free 0",
        "free 1", "sync", "destroy", build=build,
    )  # fmt: skip
    assert until_hold(program) == [
        GOOD, f"{GOOD} 0", f"{GOOD} 1 1024", f"{GOOD} 2", f"{GOOD} 3", f"{GOOD} 4", GOOD, GOOD, f"{GOOD} 5", OUT, OUT,
    ]  # fmt: skip
    assert place.total() == 0 and set(place.held().values()) <= {0}
    assert place.host.used() > 2 * CONTEXT + 1400 * MIB
    assert set(numbers(program.end())) == {GOOD}
    assert place.total() == 0


def test_managed_memory_is_charged(place: Place) -> None:
    """Up to what the share leaves beside the rest, however old the page's "used" is; the share may change."""
    agent = place.agent()
    agent.gpu(0, share=1024 * MIB, used=600 * MIB, device=600 * MIB)
    program = place.start(
        "cudash", "primary", "managed 300m", "managed 124m", "managed 1", "free 0", "managed 302m", "managed 300m",
        "hold", "managed 300m", "managed 1", "free 1", "free 2", "free 3", "destroy", build="asan",
    )  # fmt: skip
    assert until_hold(program) == [GOOD, f"{GOOD} 0", f"{GOOD} 1", OUT, GOOD, OUT, f"{GOOD} 2"]
    assert place.total() == 424 * MIB and place.held() == {program.process.pid: 424 * MIB}
    agent.gpu(0, share=1324 * MIB, used=600 * MIB, device=600 * MIB)
    assert numbers(program.end()) == [f"{GOOD} 3", OUT, GOOD, GOOD, GOOD, GOOD]
    assert place.total() == 0


def test_managed_memory_goes_with_its_context(place: Place) -> None:
    place.agent().gpu(0, SHARES[0])
    program = place.start(
        "cudash", "ctx", "managed 100m", "destroy", "primary", "managed 100m", "destroy", "hold", build="asan"
    )
    program.until("hold")
    assert place.total() == 0


def test_managed_memory_of_a_dead_process_comes_back(place: Place) -> None:
    place.agent().gpu(0, SHARES[0])
    program = place.start("cudash", "primary", "managed 900m", "hold")
    program.until("hold")
    assert numbers(place.run("cudash", "primary", "managed 900m")) == [GOOD, OUT]
    program.process.kill()
    program.process.wait()
    assert numbers(place.run("cudash", "primary", "managed 900m")) == [GOOD, f"{GOOD} 0"]


def test_the_view_is_the_page(place: Place) -> None:
    """Each time anew: the share may change while a program runs."""
    agent = place.agent()
    agent.gpu(0, share=800 * MIB, used=123456789)
    agent.gpu(1, share=300 * MIB, used=400 * MIB)
    steps = ("total", "info", "device 1", "total", "device 0")
    program = place.start("cudash", "primary", *steps, "hold", *steps[:2])
    lines = until_hold(program)
    assert lines[1:4] == [f"{GOOD} {800 * MIB}", f"{GOOD} {800 * MIB - 123456789} {800 * MIB}", f"{GOOD} 1"]
    assert lines[4] == f"{GOOD} {300 * MIB}"
    agent.gpu(0, share=500 * MIB, used=600 * MIB)
    assert numbers(program.end()) == [f"{GOOD} {500 * MIB}", f"{GOOD} 0 {500 * MIB}"]
    lines = numbers(place.run("nvmlsh", "init", "device 0", "memory", "memory2", "device 1", "memory"))
    assert lines[2:4] == [f"0 {500 * MIB} 0 {500 * MIB}", f"0 {500 * MIB} 0 {500 * MIB} 0"]
    assert lines[5] == f"0 {300 * MIB} 0 {300 * MIB}"


@pytest.mark.parametrize("sequence", [2, 3])
def test_the_process_list_is_the_page(place: Place, sequence: int) -> None:
    """Of those that the driver lists. An agent that ended while it wrote the list keeps nobody waiting."""
    agent = place.agent()
    agent.gpu(0, SHARES[0])
    agent.gpu(1, SHARES[1])
    one, two, neighbour = (place.start("cudash", "primary", "hold") for _ in range(3))
    for program in (one, two, neighbour):
        program.until("hold")
    listed = {one.process.pid: 77 * MIB, two.process.pid: 234567}
    agent.processes((neighbour.process.pid, 1, 1), (1, 0, 1), *((pid, 0, held) for pid, held in listed.items()))
    agent.put(8, "Q", sequence)
    names = ("processes1", "processes2", "processes3")
    lines = numbers(place.run("nvmlsh", "init", "device 0", *names, "device 1", "processes3"))
    expected = {f"{pid}:{held}" for pid, held in listed.items()}
    for line in lines[2:5]:
        assert line.startswith("0 ") and set(line.split()[1:]) == expected
    assert lines[6] == "0"


CUDA_ALONE = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
context, address, free = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_size_t()
assert cuda.cuInit(0) == 0 and cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
assert cuda.cuCtxSetCurrent(context) == 0
assert cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(100 << 20)) == 0
assert cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(free)) == 0
print("libnvidia-ml" in open("/proc/self/maps").read())
"""


@pytest.mark.parametrize("bounded", [True, False])
def test_cuda_needs_no_nvml(place: Place, bounded: bool) -> None:
    if bounded:
        place.agent().gpu(0, SHARES[0])
    done = subprocess.run(
        [PYTHON, "-c", CUDA_ALONE], env=place.environment("plain"), capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{not bounded}\n"


@pytest.mark.parametrize("page", ["zeroes", "short", "another number"])
def test_a_page_without_its_number_is_none(place: Place, page: str) -> None:
    agent = place.agent()
    agent.gpu(0, 800 * MIB, 100 * MIB)
    if page == "short":
        with agent.path.open("r+b") as file:
            file.truncate(AGENT_PAGE_BYTES - 1)
    else:
        agent.put(0, "Q", 0 if page == "zeroes" else 1)
    program = place.start("cudash", "primary", "alloc 100m", "info", "alloc 900m", "hold")
    assert until_hold(program) == [GOOD, f"{GOOD} 0", f"{GOOD} {860 * MIB} {SHARES[0]}", OUT]
    assert place.total() == CONTEXT + 100 * MIB
    assert numbers(place.run("nvmlsh", "init", "device 0", "memory"))[2].startswith(f"0 {SHARES[0]} ")
