"""Programs on a simulated GPU host, stepped from a test, and what nvidia-smi says there."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.simgpu import abi
from tests.simgpu.host import SimHost

MIB = abi.MIB
CONTEXT = 160 * MIB

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


def smi(host: SimHost, *arguments: str) -> str:
    command = [str(host.bin / "nvidia-smi"), *arguments]
    return subprocess.run(command, env=host.environment(), stdout=subprocess.PIPE, text=True, check=True).stdout


def smi_processes(host: SimHost) -> dict[int, int]:
    answer = smi(host, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    return {int(line.split(",")[0]): int(line.split(",")[1]) for line in answer.splitlines()}
