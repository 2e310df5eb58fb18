"""The static program that only makes ioctls, with nothing between it and the device: every way takes memory up to the
GPU's capacity. That is what an agent has to stop, so a way that fails here would prove nothing there.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.programs.build import program
from tests.simgpu.config import HostConfig
from tests.simgpu.host import SimHost
from tests.unit.simgpu.program import MIB, settled

SMALL = {"memory_mib": 1024, "reserved_mib": 64, "context_mib": 160}
CAPACITY = 960 * MIB
FULL = f"15 allocations, {CAPACITY} bytes, status 0x51"
WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")


@pytest.fixture(scope="module")
def small_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimHost]:
    """A host whose GPU is soon full."""
    with SimHost(tmp_path_factory.mktemp("small"), {"gpus": [SMALL]}) as host:
        yield host


@pytest.fixture
def small(small_host: SimHost) -> Iterator[SimHost]:
    """The host, with nothing on it before and after."""
    settled(small_host, 0)
    yield small_host
    settled(small_host, 0)


def command(host: SimHost, *arguments: str, prefix: tuple[str, ...] = ()) -> list[str]:
    return [*prefix, str(program("rawgpu", "-static")), "-d", str(host.dev), *arguments]


def raw(host: SimHost, *arguments: str, prefix: tuple[str, ...] = ()) -> str:
    """The line that the program prints."""
    done = subprocess.run(
        command(host, *arguments, prefix=prefix), stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    return done.stdout.rstrip("\n")


class Held:
    """The program while it holds what it took: with its line, until the end of the block."""

    def __init__(self, host: SimHost, *arguments: str) -> None:
        self._process = subprocess.Popen(
            command(host, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def test_the_small_host() -> None:
    (gpu,) = HostConfig.parse({"gpus": [SMALL]}).gpus
    assert gpu.total - gpu.reserved == CAPACITY


@pytest.mark.parametrize(
    "way",
    ["fill", "highbits", "direction", "old32", "xfer", "int80", "vidheap", "vidrange", "shortparams", "hugeparams",
     "privileged"],
)  # fmt: skip
def test_a_way_takes_all_that_there_is(small: SimHost, way: str) -> None:
    with Held(small, "-w", way, "64") as line:
        assert (line, small.used()) == (FULL, CAPACITY)


@pytest.mark.parametrize(
    ("way", "answer"), [("privileged", "0 allocations, 0 bytes, status 0x1b"), ("osdesc", "status 0x1b")]
)
def test_privileged_classes_are_refused_without_privilege(small: SimHost, way: str, answer: str) -> None:
    assert raw(small, way, "64", prefix=WITHOUT_PRIVILEGE) == answer


def test_pages_of_the_caller_take_no_device_memory(small: SimHost) -> None:
    with Held(small, "-w", "osdesc", "4") as line:
        assert (line, small.used()) == ("status 0x0", 0)


@pytest.mark.parametrize("what", ["swapclass", "swapsize"])
def test_a_message_that_changes(small: SimHost, what: str) -> None:
    """On a busy machine the two threads may take a while to come to the moment."""
    for seconds in (1, 5, 25):
        with Held(small, "-w", what, str(seconds), "64") as line:
            granted, refused = map(int, re.findall(r"(\d+) (?:granted|refused)", line))
            if granted and refused:
                assert line.endswith("last status 0x51")
                assert small.used() > CAPACITY - 64 * MIB
                return
    raise AssertionError(line)


def test_other_files_know_no_such_request(small: SimHost) -> None:
    assert raw(small, "wrongfd") == ", ".join(
        [*(f"{name}{' 25' * 7}" for name in ("null", "pipe", "socket")), f"closed{' 9' * 7}"]
    )


@pytest.mark.parametrize("how", ["forkhold", "passfd"])
def test_memory_outlives_its_process(small: SimHost, how: str) -> None:
    with Held(small, how, "512") as line:
        holder, size = map(int, re.fullmatch(r"(\d+) holds (\d+) bytes", line).groups())  # type: ignore[union-attr]
        assert (size, small.used()) == (512 * MIB, 512 * MIB)
        os.kill(holder, 0)


def test_a_duplicate_outlives_the_original(small: SimHost) -> None:
    with Held(small, "-w", "duphold", "64") as line:
        assert (line, small.used()) == (f"15 duplicates, {CAPACITY} bytes, status 0x51", CAPACITY)


@pytest.mark.parametrize("restart", ["SA_RESTART", "none"])
def test_signals_lose_nothing(small: SimHost, restart: str) -> None:
    with Held(small, "-w", "timer", restart, "500", "4") as line:
        assert re.fullmatch(r"500 pairs, 0 failed, \d+ interrupted, last status 0x0", line)
        assert small.used() == 0


def test_many_at_once(small: SimHost) -> None:
    with Held(small, "-w", "threads", "256", "2") as line:
        assert (line, small.used()) == (f"256 threads, 480 allocations, {CAPACITY} bytes, status 0x51", CAPACITY)


def test_one_after_the_other(small: SimHost) -> None:
    assert raw(small, "processes", "50", "900") == "50 processes, 50 granted"


def test_pairs(small: SimHost) -> None:
    assert re.fullmatch(r"100 pairs, median \d+ ns, status 0x0", raw(small, "pairs", "100", "64"))


def test_hold(small: SimHost) -> None:
    with Held(small, "hold", "64") as line:
        assert (line, small.used()) == ("ready", 64 * MIB)
    assert raw(small, "hold", "1024") == "status 0x51"


def test_contexts_take_what_nobody_asks_for(small: SimHost) -> None:
    group = "status 0x0 (address space 0x0, group 0x0"
    with Held(small, "-w", "context", "3") as line:
        assert (line, small.used()) == (f"3 contexts, {group}, share 0x0)", (2 + 3 * 8) * MIB)
    with Held(small, "-w", "shares", "3") as line:
        assert (line, small.used()) == (f"3 shares, {group}, share 0x0)", (2 + 8) * MIB)
    with Held(small, "-w", "groups", "3") as line:
        assert (line, small.used()) == (f"3 groups, {group})", (2 + 3 * 8) * MIB)
    with Held(small, "-w", "channels", "3") as line:
        assert (line, small.used()) == ("3 channels, status 0x0", (2 + 3 * 8) * MIB)
