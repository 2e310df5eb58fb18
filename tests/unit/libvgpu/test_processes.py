"""Several processes with one account: fork, exec, an end of any kind."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.simgpu.abi import MIB
from tests.unit.libvgpu.place import CONTEXT, GOOD, OUT, Place, Program, numbers, wait_for


def test_one_of_many_gets_the_last_block(place: Place, count: Callable[[int], int]) -> None:
    rounds = count(1000)
    assert place.run("lastblock", "6", str(rounds)) == f"{rounds} rounds, {rounds} got it, 0 wrong\n"


def test_fork_has_the_drivers_own_error(place: Place) -> None:
    """The child has no CUDA, doesn't touch its parent's part, and its end gives nothing back."""
    before = place.run(
        "cudash", "primary", "alloc 100m", "fork 3", "alloc 1m", "create 2m", "ctx", "wait", build="asan"
    )
    error = "3 CUDA_ERROR_NOT_INITIALIZED"
    assert numbers(before)[2:] == [error, error, error, f"{GOOD} 0"]
    program = place.start("cudash", "primary", "alloc 100m", "fork 2", "alloc 1m", "free 0", "wait", "hold")
    program.until("hold")
    assert place.held() == {program.process.pid: CONTEXT + 100 * MIB}
    assert place.total() == place.host.used() == CONTEXT + 100 * MIB


def test_fork_before_cuda(place: Place) -> None:
    """A parent that has only loaded the library: its children count for themselves."""
    output = place.run("cudash", "has cuInit", "fork 3", "primary", "alloc 100m", "info", "wait", "primary", "info")
    assert numbers(output)[3] == numbers(output)[6].replace(str(960 * MIB), str(860 * MIB))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_dead_process_held_comes_back(place: Place, end: signal.Signals) -> None:
    program = place.start("cudash", "primary", "alloc 900m", "hold")
    program.until("hold")
    assert numbers(place.run("cudash", "primary")) == [OUT]
    program.process.send_signal(end)
    wait_for(lambda: place.host.used() == 0)  # it is a zombie now: nobody has waited for it
    assert numbers(place.run("cudash", "primary", "alloc 960m")) == [GOOD, f"{GOOD} 0"]


PYTHON = "/usr/bin/python3"
TAKE_900M = f"""
import ctypes, os, sys
cuda = ctypes.CDLL("libcuda.so.1")
context, address = ctypes.c_void_p(), ctypes.c_uint64()
assert cuda.cuInit(0) == 0 and cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
assert cuda.cuCtxSetCurrent(context) == 0
assert cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t({900 * MIB})) == 0
"""


@pytest.mark.parametrize("then", ["another image", "the same image"])
def test_exec_gives_back(place: Place, then: str) -> None:
    """The driver takes everything back at an exec, although the process lives on under its pid."""
    again = place.command("cudash", "hold") if then == "the same image" else ["/bin/sleep", "60"]
    code = f"{TAKE_900M}print('ready', flush=True)\nsys.stdin.readline()\nos.execv({again[0]!r}, {again!r})\n"
    program = Program([PYTHON, "-c", code], place.environment("plain"))
    place.programs.append(program)
    program.until("ready")
    assert numbers(place.run("cudash", "primary")) == [OUT]
    program.go_on()
    wait_for(lambda: place.host.used() == 0)
    assert numbers(place.run("cudash", "primary", "alloc 960m")) == [GOOD, f"{GOOD} 0"]
    assert program.process.poll() is None


def test_exec_and_cuda_again(place: Place) -> None:
    """The new image of a process needs what its old one held."""
    hungry = place.command("cudash", "primary", "alloc 960m", "print ready")
    code = f"{TAKE_900M}os.execv({hungry[0]!r}, {hungry!r})\n"
    done = subprocess.run(
        [PYTHON, "-c", code], env=place.environment("plain"), capture_output=True, text=True, check=True
    )
    assert numbers(done.stdout)[:2] == [GOOD, f"{GOOD} 0"]


def test_stopped_process_holds_nobody_up(place: Place) -> None:
    program = place.start("cudawalk", "1", "1000000", "2")
    program.until("walking")
    for _ in range(20):
        time.sleep(0.01)
        program.process.send_signal(signal.SIGSTOP)
        place.run("cudash", "info", "total")
        program.process.send_signal(signal.SIGCONT)
