"""libvgpu, built by gcc under the sanitizers, and programs that run with it as if in a container.

Its folder (`RUNAI_DIR`) is a temporary place. The libraries' DT_NEEDED names the simulated driver's files where the
host has them, since that driver finds its nodes beside its own path.
"""

from __future__ import annotations

import itertools
import os
import re
import struct
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.programs.build import tools
from tests.simgpu.abi import MIB
from tests.simgpu.config import HostConfig
from tests.simgpu.host import SimHost

TOP = Path(__file__).parents[3]
LIBVGPU = TOP / "libvgpu"
PROGRAMS = TOP / "tests/programs"
SONAMES = {"cuda": "libcuda.so.1", "nvml": "libnvidia-ml.so.1"}
GCC = "/usr/bin/gcc"
SANITIZERS = {
    "asan": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1"),
    "tsan": ("-fsanitize=thread", "-O1"),
    "plain": ("-O2",),
}
WARNINGS = re.findall(r"^    (-W[\w=-]+)", (TOP / "CMakeLists.txt").read_text(), re.MULTILINE)
FLAGS = ["-std=gnu17", "-D_GNU_SOURCE", "-g", "-fPIC", "-fvisibility=hidden"]

CONTEXT = 64 * MIB
SHARES = (1024 * MIB, 512 * MIB)
HOST = {
    "gpus": [
        {"memory_mib": 4096, "reserved_mib": 64, "context_mib": CONTEXT // MIB},
        {"memory_mib": 2048, "reserved_mib": 64, "context_mib": CONTEXT // MIB},
    ]
}
UUIDS = [gpu.uuid for gpu in HostConfig.parse(HOST).gpus]

GRANULE = 2 * MIB
GPUS, SLOTS = 16, 1024
SLOT_WORDS = 3 + GPUS + 2 * GPUS
PAGE_SIZE = 8 * (1 + GPUS + SLOTS * SLOT_WORDS)
"""account_page.h; test_source.py compares."""

AGENT_MAGIC, AGENT_PAGE_BYTES, AGENT_PROCESSES = 0x3165676150494152, 65536, 2048
AGENT_DEVICE = 24 + 16 * GPUS + 16 * AGENT_PROCESSES
"""agent_page.h; test_source.py compares."""


class AgentPage:
    """/.runai/page, written as an agent would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(AGENT_PAGE_BYTES))
        self.put(0, "Q", AGENT_MAGIC)

    def put(self, offset: int, layout: str, *values: int) -> None:
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(struct.pack("<" + layout, *values))

    def gpu(self, gpu: int, share: int, used: int = 0, device: int = 0) -> None:
        self.put(16 + 16 * gpu, "QQ", share, used)
        self.put(AGENT_DEVICE + 8 * gpu, "Q", device)

    def processes(self, *processes: tuple[int, int, int]) -> None:
        """PID, GPU and bytes of each."""
        self.put(16 + 16 * GPUS, "Q", len(processes))
        for i, process in enumerate(processes):
            self.put(24 + 16 * GPUS + 16 * i, "IIQ", *process)


def policies(part: str) -> list[tuple[str, str]]:
    """The lines of a table of functions, in its order: policy and name."""
    text = (LIBVGPU / part / "functions.h").read_text()
    return [(policy, name) for policy, name in re.findall(r"^FUNCTION\((\w+), (\w+)\)$", text, re.MULTILINE)]


def sources(part: str) -> list[Path]:
    return [*sorted(LIBVGPU.glob("*.c")), *sorted((LIBVGPU / part).glob("*.c"))]


def program_sources(name: str) -> list[Path]:
    """A test program: one file, or a folder of them."""
    return sorted((PROGRAMS / name).glob("*.c")) or [PROGRAMS / f"{name}.c"]


def gcc(*arguments: str | Path) -> None:
    done = subprocess.run([GCC, *map(str, arguments)], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


class Program:
    """A running program, by its lines of output."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def until(self, start: str) -> str:
        """The next line that starts so. Fails with the program's errors where it ends before."""
        while line := self.line():
            if line.startswith(start):
                return line
        raise AssertionError(self.process.communicate()[1])

    def go_on(self) -> None:
        """One more line of input."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """What it still printed, once its input has ended and it too."""
        output, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        return output


class Place:
    """What is /.runai in a container, and programs that run as if in it."""

    def __init__(self, folder: Path, host: SimHost) -> None:
        self.folder, self.host = folder, host
        self.programs: list[Program] = []
        (folder / "account").mkdir(parents=True)
        (folder / "real").symlink_to(host.lib)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done in [pool.submit(self._build, part, build) for part in SONAMES for build in SANITIZERS]:
                done.result()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            wanted = itertools.product(("cudacheck", "cudash", "cudawalk"), SANITIZERS)
            for done in [pool.submit(self._program, name, build) for name, build in wanted]:
                done.result()
        for name in ("nvmlsh", "lastblock"):
            self._program(name, "plain")
        self.renew()

    def _build(self, part: str, build: str) -> None:
        soname = SONAMES[part]
        out = self.folder / build
        out.mkdir(exist_ok=True)
        stub = out / f"real-{part}.so"
        gcc("-shared", "-fPIC", TOP / "cmake/empty.c", f"-Wl,-soname,{self.host.lib / soname}", "-o", stub)
        gcc(
            *FLAGS, *WARNINGS, *SANITIZERS[build], f'-DRUNAI_DIR="{self.folder}"',
            f'-DRUNAI_LIBRARY_H="{part}/library.h"', "-iquote", LIBVGPU, "-isystem", tools()[1],
            *sources(part), LIBVGPU / "trampolines.S", "-shared",
            f"-Wl,-soname,{soname}", f"-Wl,--version-script={LIBVGPU / part / 'exports.map'}",
            "-Wl,-z,now,-z,nodelete,--no-as-needed", stub, "-ldl", "-lpthread", "-o", out / soname,
        )  # fmt: skip

    def _program(self, name: str, build: str) -> None:
        out = self.folder / build
        gcc(
            "-std=gnu17", "-D_GNU_SOURCE", "-g", "-Wall", "-Wextra", "-Werror", "-fPIE",
            *SANITIZERS[build], f'-DRUNAI_DIR="{self.folder}"', "-iquote", LIBVGPU, "-isystem", tools()[1],
            *program_sources(name), *(out / soname for soname in SONAMES.values()),
            f"-Wl,-rpath-link,{self.host.lib}", "-ldl", "-lpthread", "-o", out / name,
        )  # fmt: skip

    @property
    def page(self) -> Path:
        return self.folder / "account/page"

    @property
    def limits(self) -> Path:
        return self.folder / "limits"

    def renew(self, *shares: tuple[str, int, int]) -> None:
        """An empty account, no agent, and these limits: UUID, bytes, bytes of a bare context."""
        (self.folder / "page").unlink(missing_ok=True)
        self.page.unlink(missing_ok=True)
        self.page.write_bytes(bytes(PAGE_SIZE))
        self.limits.unlink(missing_ok=True)
        shares = shares or tuple((uuid, share, CONTEXT) for uuid, share in zip(UUIDS, SHARES, strict=True))
        self.limits.write_text("".join(f"{uuid} {share} {context}\n" for uuid, share, context in shares))

    def agent(self) -> AgentPage:
        """From now on, an agent bounds the container."""
        return AgentPage(self.folder / "page")

    def environment(self, build: str) -> dict[str, str]:
        return {
            "LD_LIBRARY_PATH": str(self.folder / build),
            "ASAN_OPTIONS": "detect_leaks=0:handle_segv=1:abort_on_error=0",
            "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }

    def command(self, name: str, *arguments: str, build: str = "plain") -> list[str]:
        return [str(self.folder / build / name), *arguments]

    def run(self, name: str, *arguments: str, build: str = "plain") -> str:
        """What a program prints. It must end well, with nothing on stderr."""
        done = subprocess.run(
            self.command(name, *arguments, build=build), env=self.environment(build), capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0 and not done.stderr, f"{name} {arguments}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def start(self, name: str, *arguments: str, build: str = "plain") -> Program:
        """A program beside this one, which is ended with the test."""
        program = Program(self.command(name, *arguments, build=build), self.environment(build))
        self.programs.append(program)
        return program

    def total(self, gpu: int = 0) -> int:
        """Bytes in the account."""
        word: int = struct.unpack_from("<Q", self.page.read_bytes(), 8 * (1 + gpu))[0]
        return (word >> 40) * GRANULE

    def held(self, gpu: int = 0) -> dict[int, int]:
        """Bytes by pid, of every slot that is taken."""
        page = self.page.read_bytes()
        found = {}
        for slot in range(SLOTS):
            at = 8 * (1 + GPUS + slot * SLOT_WORDS)
            owner = struct.unpack_from("<Q", page, at)[0]
            if owner:
                word = struct.unpack_from("<Q", page, at + 8 * (3 + GPUS + 2 * gpu + 1))[0]
                found[owner >> 32] = (word >> 30) * GRANULE
        return found


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def numbers(output: str) -> list[str]:
    """The lines of cudash, what comes after the arrow."""
    return [line.partition(" -> ")[2] for line in output.splitlines()]


OUT = "2 CUDA_ERROR_OUT_OF_MEMORY"
GOOD = "0 CUDA_SUCCESS"
