"""libvgpu as a program meets it, under the sanitizers, on the simulated driver and without a container.

The libraries are built here, by gcc, with their folder (`RUNAI_DIR`) in a temporary place. Their DT_NEEDED names the
simulated driver's files where the host has them, since that driver finds its nodes beside its own path.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import struct
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import SymbolTableSection

from tests.programs.build import tools
from tests.simgpu.abi import MIB
from tests.simgpu.config import HostConfig
from tests.simgpu.host import SimHost

TOP = Path(__file__).parents[2]
LIBVGPU = TOP / "libvgpu"
PROGRAMS = TOP / "tests/programs"
NATIVE = Path(sysconfig.get_path("platlib"), "runai_runtime/native")
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
"""account_page.h; test_page_size compares."""


def policies(part: str) -> list[tuple[str, str]]:
    """The lines of a table of functions, in its order: policy and name."""
    text = (LIBVGPU / part / "functions.h").read_text()
    return [(policy, name) for policy, name in re.findall(r"^FUNCTION\((\w+), (\w+)\)$", text, re.MULTILINE)]


def sources(part: str) -> list[Path]:
    return [*sorted(LIBVGPU.glob("*.c")), *sorted((LIBVGPU / part).glob("*.c"))]


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
            PROGRAMS / f"{name}.c", *(out / soname for soname in SONAMES.values()),
            f"-Wl,-rpath-link,{self.host.lib}", "-ldl", "-lpthread", "-o", out / name,
        )  # fmt: skip

    @property
    def page(self) -> Path:
        return self.folder / "account/page"

    @property
    def limits(self) -> Path:
        return self.folder / "limits"

    def renew(self, *shares: tuple[str, int, int]) -> None:
        """An empty account, and these limits: UUID, bytes, bytes of a bare context."""
        self.page.unlink(missing_ok=True)
        self.page.write_bytes(bytes(PAGE_SIZE))
        self.limits.unlink(missing_ok=True)
        shares = shares or tuple((uuid, share, CONTEXT) for uuid, share in zip(UUIDS, SHARES, strict=True))
        self.limits.write_text("".join(f"{uuid} {share} {context}\n" for uuid, share, context in shares))

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


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimHost]:
    with SimHost(tmp_path_factory.mktemp("host"), HOST) as host:
        yield host


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, host: SimHost) -> Place:
    return Place(tmp_path_factory.mktemp("place") / "runai", host)


@pytest.fixture
def place(built: Place) -> Iterator[Place]:
    """The account is empty, and so is the GPU."""
    wait_for(lambda: built.host.used(0) == built.host.used(1) == 0)
    built.renew()
    yield built
    for program in built.programs:
        program.process.kill()
        program.process.communicate()
    built.programs.clear()


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


# ---- every call ------------------------------------------------------------------------------------------------

CASES = "linear packed limit odd_arguments version_1 contexts two_gpus pools vmm outside small_stacks".split()


@pytest.mark.parametrize("build", ["asan", "plain"])
@pytest.mark.parametrize("case", CASES)
def test_account_follows_the_driver(place: Place, case: str, build: str) -> None:
    assert place.run("cudacheck", case, build=build) == ""


@pytest.mark.parametrize("known", [0, CONTEXT // 4])
def test_contexts_cost_more_than_known(place: Place, known: int) -> None:
    place.renew((UUIDS[0], SHARES[0], known))
    place.run("cudacheck", "contexts_cost_more", build="asan")


def test_gpu_without_a_share(place: Place) -> None:
    place.renew((UUIDS[0], SHARES[0], CONTEXT))
    place.run("cudacheck", "no_share", build="asan")


def test_dlclose_forgets_nothing(place: Place) -> None:
    place.run("cudacheck", "loaded_again")


@pytest.mark.parametrize("build", ["asan", "tsan"])
@pytest.mark.parametrize(
    "case", ["primaries_in_threads", "contexts_in_threads", "memory_in_threads", "cancelled_threads"]
)
def test_threads(place: Place, count: Callable[[int], int], case: str, build: str) -> None:
    place.run("cudacheck", case, str(count(200)), build=build)


@pytest.mark.parametrize("build", ["asan", "plain"])
def test_children_of_threads(place: Place, count: Callable[[int], int], build: str) -> None:
    place.run("cudacheck", "children_of_threads", str(count(200)), build=build)


def test_cudash(place: Place) -> None:
    """The commands with which the tests in containers work."""
    half = 480 * MIB
    output = place.run(
        "cudash", "primary", "info", f"alloc {half}", f"managed {half}", "alloc 1", "free 0", f"create {half}",
        "map 2", "alloc 1", "unmap 2", "release 2", f"async {half - 32 * MIB}", "pool 1", "freeasync 3", "sync",
        "pitch 1000 1000", "info", "destroy", build="asan",
    )  # fmt: skip
    assert numbers(output) == [
        GOOD, f"{GOOD} {960 * MIB} {1024 * MIB}", f"{GOOD} 0", f"{GOOD} 1", OUT, GOOD, f"{GOOD} 2", GOOD, OUT, GOOD,
        GOOD, f"{GOOD} 3", OUT, GOOD, GOOD, f"{GOOD} 4 1024", f"{GOOD} {478 * MIB} {1024 * MIB}", GOOD,
    ]  # fmt: skip


# ---- processes -------------------------------------------------------------------------------------------------


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
        began = time.monotonic()
        place.run("cudash", "info", "total")
        assert time.monotonic() - began < 5
        program.process.send_signal(signal.SIGCONT)


# ---- what is missing or damaged ----------------------------------------------------------------------------------


def _no_limits(place: Place) -> None:
    place.limits.unlink()


def _damaged_limits(place: Place) -> None:
    place.limits.write_text(f"{UUIDS[0]} lots 0\n")


def _endless_limits(place: Place) -> None:
    place.limits.write_text("x" * 100000)


def _folder_for_limits(place: Place) -> None:
    place.limits.unlink()
    place.limits.symlink_to(place.folder)


def _no_page(place: Place) -> None:
    place.page.unlink()


def _short_page(place: Place) -> None:
    os.truncate(place.page, PAGE_SIZE - 1)


def _folder_for_page(place: Place) -> None:
    place.page.unlink()
    place.page.symlink_to(place.folder)


@pytest.mark.parametrize(
    "damage",
    [_no_limits, _damaged_limits, _endless_limits, _folder_for_limits, _no_page, _short_page, _folder_for_page],
)
def test_damage_stops_allocations_alone(place: Place, damage: Callable[[Place], None]) -> None:
    damage(place)
    place.run("cudacheck", "nothing_allowed", build="asan")
    said = numbers(place.run("nvmlsh", "init", "device 0", "memory"))
    assert said == ["0 ", "0 ", "17"]  # NVML_ERROR_OPERATING_SYSTEM


def test_account_that_cannot_be_written(place: Place) -> None:
    """Root may write what is read-only: another user then."""
    os.chmod(place.page, 0o444)
    for folder in {*place.folder.parents, *place.host.lib.parents}:
        if not folder.stat().st_mode & 1:
            os.chmod(folder, folder.stat().st_mode | 0o011)
    done = subprocess.run(
        place.command("cudacheck", "nothing_allowed"), env=place.environment("plain"), user=65534, group=65534,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


# ---- what a process keeps to itself --------------------------------------------------------------------------------


def test_nothing_of_the_process_is_touched(place: Place) -> None:
    with_us = place.run("cudacheck", "footprint")
    environment = place.environment("plain") | {"LD_LIBRARY_PATH": str(place.host.lib)}
    native = subprocess.run(
        place.command("cudacheck", "footprint"), env=environment, capture_output=True, text=True, check=True
    )
    assert with_us == native.stdout and not native.stderr
    assert "descriptors more: 0, maps more: 0" in with_us


# ---- NVML ----------------------------------------------------------------------------------------------------------


def test_nvml_shows_the_share(place: Place) -> None:
    one = place.start("cudash", "primary", "alloc 100m", "device 1", "primary", "alloc 50m", "info", "hold")
    free = one.until("info").split()[-2]
    one.until("hold")
    ask = ("init", "device 0", "memory", "memory2", "device 1", "memory", "memory2")
    lines = numbers(place.run("nvmlsh", *ask))
    used = CONTEXT + 100 * MIB
    assert lines[2] == f"0 {SHARES[0]} {SHARES[0] - used} {used}"
    assert lines[3] == f"0 {SHARES[0]} {SHARES[0] - used} {used} 0"
    used = CONTEXT + 50 * MIB
    assert free == str(SHARES[1] - used)
    assert lines[5] == f"0 {SHARES[1]} {SHARES[1] - used} {used}"
    one.process.kill()
    wait_for(lambda: place.host.used(0) == 0)
    lines = numbers(place.run("nvmlsh", *ask))
    assert lines[2] == f"0 {SHARES[0]} {SHARES[0]} 0" and lines[5] == f"0 {SHARES[1]} {SHARES[1]} 0"


# ---- the random walk ------------------------------------------------------------------------------------------------


class Mortals:
    """Walkers that are killed at random moments, each with another in its place, until it is over."""

    def __init__(self, place: Place, dice: random.Random) -> None:
        self.place, self.dice = place, dice
        self.killed: set[int] = set()

    def live(self, over: threading.Event) -> None:
        while not over.is_set():
            walker = self.place.start("cudawalk", str(self.dice.randrange(1 << 20)), "1000000000", "3", "10")
            walker.until("walking")
            over.wait(0.1 + 0.5 * self.dice.random())
            self.killed.add(walker.process.pid)  # before: a look at the device must not find it in between
            walker.process.kill()
            walker.process.communicate()
            self.place.programs.remove(walker)


class Sampler:
    """The most that living walkers held of each GPU at a time, by the simulated kernel side."""

    def __init__(self, place: Place, mortals: Mortals) -> None:
        self.place, self.mortals, self.worst = place, mortals, [0, 0]

    def look(self, over: threading.Event) -> None:
        # FUSE tells of a dead process's files a moment after its death, where a real driver has closed them before.
        while not over.wait(0.002):
            for gpu in (0, 1):
                taken = self.place.host.processes(gpu)
                held = sum(used for pid, used in taken.items() if pid not in self.mortals.killed)
                self.worst[gpu] = max(self.worst[gpu], held)


def give_all_back(place: Place, walkers: list[Program]) -> list[str]:
    """What is wrong, if anything, with the account of those who have done their calls, and when they have freed all."""
    problems = compare(place, walkers)
    for walker in walkers:
        walker.go_on()
        walker.until("emptied")
    return problems + compare(place, walkers)


@pytest.mark.timeout(1500)
def test_random_walk(place: Place, soak: bool) -> None:
    """Processes and threads do everything at random, and others beside them are killed; in the end the account is what
    was given. A tenth of the calls needs the simulated kernel side.
    """
    seed = random.randrange(1 << 30)
    processes, threads, calls = 4, 3, 10_000_000 if soak else 100_000
    mine = str(-(-calls // (processes * threads)))
    print(f"seed {seed}")
    mortals = Mortals(place, random.Random(seed))
    sampler = Sampler(place, mortals)
    over = threading.Event()
    beside = [threading.Thread(target=mortals.live, args=(over,)) for _ in range(2)]
    beside.append(threading.Thread(target=sampler.look, args=(over,)))
    walkers = [place.start("cudawalk", str(seed + i), mine, str(threads), "10") for i in range(processes)]
    for thread in beside:
        thread.start()
    try:
        for walker in walkers:
            walker.until("done")
    finally:
        over.set()
        for thread in beside:
            thread.join()
    problems = give_all_back(place, walkers)
    wait_for(lambda: not any(place.host.used(gpu) for gpu in (0, 1)))
    problems += [f"GPU {gpu}: {worst} bytes taken" for gpu, worst in enumerate(sampler.worst) if worst > SHARES[gpu]]
    assert not problems, f"seed {seed}: {problems}"
    assert sampler.worst[0] > SHARES[0] // 2, "the walk came nowhere near the limit"
    assert len(mortals.killed) > 3


def compare(place: Place, walkers: list[Program]) -> list[str]:
    """Where the account differs from what the simulated kernel side gave. Nothing moves meanwhile."""
    problems = []
    for gpu in (0, 1):
        given = place.host.processes(gpu)
        for walker in walkers:
            pid = walker.process.pid
            held = place.held(gpu).get(pid, 0)
            if held != given.get(pid, 0):
                problems.append(f"GPU {gpu}, process {pid}: account {held}, given {given.get(pid, 0)}")
        if place.total(gpu) != sum(place.held(gpu).values()):
            problems.append(f"GPU {gpu}: total {place.total(gpu)} isn't the sum of {place.held(gpu)}")
    return problems


def test_random_walk_of_threads(place: Place, count: Callable[[int], int]) -> None:
    for build in ("tsan", "asan"):
        seed = random.randrange(1 << 30)
        walker = place.start("cudawalk", str(seed), str(count(8000)), "4", build=build)
        try:
            walker.until("done")
            assert compare(place, [walker]) == []
            walker.go_on()
            walker.until("emptied")
            assert compare(place, [walker]) == []
            walker.end()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {build}: {error}") from error


# ---- the source, and what was built from it --------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["cuda", "nvml", "hook"])
def test_analyzer_is_silent(part: str) -> None:
    paths = sorted((TOP / "hook").glob("*.c")) if part == "hook" else sources(part)
    more = [] if part == "hook" else [f'-DRUNAI_LIBRARY_H="{part}/library.h"', "-isystem", tools()[1]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in [
            pool.submit(
                gcc, *FLAGS, *WARNINGS, "-O2", "-fanalyzer", *more, "-iquote", LIBVGPU, "-c", path, "-o", os.devnull
            )
            for path in paths
        ]:
            done.result()


def test_page_size(tmp_path: Path) -> None:
    source = tmp_path / "size.c"
    source.write_text(f'#include "account_page.h"\n_Static_assert(sizeof(struct account_page) == {PAGE_SIZE}, "");\n')
    gcc("-iquote", LIBVGPU, "-c", source, "-o", os.devnull)


@pytest.mark.parametrize("part", SONAMES)
def test_table(part: str) -> None:
    names = [name for _, name in policies(part)]
    assert names == sorted(set(names))
    defined = set()
    for path in (LIBVGPU / part).glob("*.c"):
        defined |= set(re.findall(r"^EXPORT \w+ (\w+)\(", path.read_text(), re.MULTILINE))
    assert defined == {name for policy, name in policies(part) if policy == "TAKE"}


def dynamic(elf: ELFFile) -> dict[str, list[Any]]:
    section = elf.get_section_by_name(".dynamic")
    assert isinstance(section, DynamicSection)
    found: dict[str, list[Any]] = {}
    for tag in section.iter_tags():
        value = {"DT_NEEDED": "needed", "DT_SONAME": "soname"}.get(tag.entry.d_tag)
        found.setdefault(tag.entry.d_tag, []).append(getattr(tag, value) if value else tag.entry.d_val)
    return found


@pytest.mark.parametrize("part", SONAMES)
def test_installed_library(part: str) -> None:
    prefix = {"cuda": "cu", "nvml": "nvml"}[part]
    with (NATIVE / SONAMES[part]).open("rb") as file:
        elf = ELFFile(file)
        tags = dynamic(elf)
        assert tags["DT_SONAME"] == [SONAMES[part]]
        assert tags["DT_NEEDED"][0] == f"/.runai/real/{SONAMES[part]}"
        allowed = {"libc.so.6", "libdl.so.2", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
        assert set(tags["DT_NEEDED"][1:]) <= allowed
        assert tags["DT_FLAGS"][0] & 0x8 and tags["DT_FLAGS_1"][0] & 0x9 == 0x9  # BIND_NOW; NOW and NODELETE
        assert not {"DT_TEXTREL", "DT_RPATH", "DT_RUNPATH"} & set(tags)
        segments = {segment["p_type"]: segment["p_flags"] for segment in elf.iter_segments()}
        assert "PT_GNU_RELRO" in segments and not segments["PT_GNU_STACK"] & 1
        assert elf.get_section_by_name(".note.gnu.build-id") is not None

        symbols = elf.get_section_by_name(".dynsym")
        assert isinstance(symbols, SymbolTableSection)
        exported = [s.name for s in symbols.iter_symbols() if s["st_shndx"] != "SHN_UNDEF" and s.name]
        assert sorted(exported) == sorted(name for _, name in policies(part))
        assert all(name.startswith(prefix) for name in exported)
        needs = elf.get_section_by_name(".gnu.version_r")
        assert isinstance(needs, GNUVerNeedSection)
        versions = {auxiliary.name for _, entries in needs.iter_versions() for auxiliary in entries}
        glibc = [tuple(map(int, name.removeprefix("GLIBC_").split("."))) for name in versions]
        assert max(glibc) <= (2, 17)
