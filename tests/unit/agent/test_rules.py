"""Each rule of the agent, by a program that makes nothing but ioctls; and that without the agent none of them holds."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.simgpu.host import SimHost
from tests.unit.agent.bounded import MIB, SHARE, Container, wait_for

DENIED = {
    "the usual form": ("fill", "64"),
    "blocks of one granule": ("fill", "2"),
    "high bits of the request": ("highbits", "64"),
    "another type and direction": ("direction", "64"),
    "the 32-byte form": ("old32", "64"),
    "carried by XFER_CMD": ("xfer", "64"),
    "int 0x80": ("int80", "64"),
    "vid heap control": ("vidheap", "64"),
    "vid heap control, another function": ("vidrange", "64"),
    "a short size of parameters": ("shortparams", "64"),
    "a huge size of parameters": ("hugeparams", "64"),
    "size swapped by another thread": ("swapsize", "1", "64"),
    "duplicates that hold what was freed": ("duphold", "64"),
    "mappings that hold what was freed": ("uvmhold", "64"),
    "exports that hold what was freed": ("exporthold", "64"),
    "64 threads": ("threads", "64", "2"),
}
"""Never above the share, at no moment."""


class Watch:
    """The most that the GPU gave meanwhile, in bytes."""

    most = 0


@contextmanager
def watched(host: SimHost) -> Iterator[Watch]:
    watch, end = Watch(), threading.Event()

    def look() -> None:
        while not end.is_set():
            watch.most = max(watch.most, host.used())
            time.sleep(0.002)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        end.set()
        thread.join()
        watch.most = max(watch.most, host.used())


@pytest.mark.parametrize("way", DENIED.values(), ids=DENIED)
def test_denied(container: Container, host: SimHost, way: tuple[str, ...]) -> None:
    with watched(host) as watch:
        answer = container.run(*way)
    assert watch.most <= SHARE, answer
    wait_for(lambda: host.used() == 0)


@pytest.mark.parametrize("way", DENIED.values(), ids=DENIED)
def test_without_the_agent_it_is_not(
    container_with: Callable[..., Container], host: SimHost, way: tuple[str, ...]
) -> None:
    container = container_with(bounded=False)
    with watched(host) as watch:
        answer = container.run("-w", *way, seconds=60)
    took = [int(number) for number in re.findall(r"(\d+) bytes", answer)]
    assert watch.most > SHARE or max(took, default=0) > SHARE, answer


def test_almost_all_of_the_share_can_be_had(container: Container, host: SimHost) -> None:
    program = container.start("hold", "986")
    assert program.stdout and program.stdout.readline() == "ready\n"
    assert host.used() >= 0.96 * SHARE


@pytest.mark.parametrize("way", [("privileged", "64"), ("osdesc", "64")], ids=lambda way: way[0])
def test_no_privilege_is_lent(container: Container, host: SimHost, way: tuple[str, ...]) -> None:
    """The agent runs as root; the driver would give these classes to a task with CAP_SYS_ADMIN."""
    assert "status 0x1b" in container.run(*way)
    assert host.used() == 0


def test_class_swapped_by_another_thread_is_found_and_ended(container: Container, host: SimHost) -> None:
    program = container.start("swapclass", "20", "64")
    assert program.wait(10) == -signal.SIGKILL
    wait_for(lambda: host.used() == 0)
    wait_for(lambda: "was ended" in container.log())


def test_descriptors_that_are_no_device_get_the_kernels_answer(container_with: Callable[..., Container]) -> None:
    bounded, free = container_with().run("wrongfd"), container_with(bounded=False).run("wrongfd")
    assert re.sub(r"22,|22$", "*", bounded) == re.sub(r"(\d+),|(\d+)$", "*", free)


@pytest.mark.parametrize("way", ["forkhold", "passfd"])
def test_what_a_dead_process_leaves_is_given_back(container: Container, host: SimHost, way: str) -> None:
    """A child keeps the file, or another process has its descriptor: the client would live on."""
    program = container.start("-w", way, "512")
    assert program.stdout
    program.stdout.readline()
    wait_for(lambda: host.used() == 0)
    assert container.run("fill", "64").startswith("15 allocations")


@pytest.mark.parametrize("flag", ["SA_RESTART", "none"])
def test_interrupted_calls_are_neither_lost_nor_done_twice(
    container: Container, host: SimHost, flag: str, count: Callable[[int], int]
) -> None:
    answer = container.run("timer", flag, str(count(10000)), "64", seconds=300)
    assert ", 0 failed," in answer
    wait_for(lambda: host.used() == 0)
    assert container.run("fill", "64").startswith("15 allocations")


def test_the_heap_is_as_large_as_the_share(container: Container, host: SimHost) -> None:
    """Vulkan's libraries begin with that question."""
    assert container.run("heapsize") == f"a heap of {SHARE} bytes, status 0x0\n"
    assert host.used() == 0


def test_memory_that_vid_heap_control_frees_is_credited(container: Container) -> None:
    assert container.run("vidpairs", "20", "600") == "20 pairs, status 0x0\n"


def test_256_threads(container: Container, host: SimHost) -> None:
    with watched(host) as watch:
        container.run("threads", "256", "2")
    assert watch.most <= SHARE
    wait_for(lambda: host.used() == 0)


def test_processes_without_end(container: Container, host: SimHost, count: Callable[[int], int]) -> None:
    number = count(3000)
    answer = container.run("processes", str(number), "2", seconds=300)
    assert f"{number} granted" in answer
    wait_for(lambda: host.used() == 0)


@pytest.mark.parametrize("way", ["context", "groups", "channels"])
def test_contexts_are_charged_what_no_call_asks_for(
    container_with: Callable[..., Container], host: SimHost, way: str
) -> None:
    container = container_with(200 * MIB)
    with watched(host) as watch:
        assert re.match(r"24 \w+, .*status 0x51", container.run(way, "40"))
    assert watch.most <= 200 * MIB


def test_processes_killed_in_mid_allocation(container: Container, host: SimHost, count: Callable[[int], int]) -> None:
    for turn in range(count(1000)):
        program = container.start("pairs", "100000", "64")
        time.sleep(0.005 + turn % 10 / 1000)
        program.send_signal(signal.SIGKILL)
        program.communicate()
    wait_for(lambda: host.used() == 0)
    assert container.run("fill", "64").startswith("15 allocations")


def test_without_its_agent_a_container_gets_no_more(container: Container, host: SimHost) -> None:
    program = container.start("hold", "64")
    assert program.stdout and program.stdout.readline() == "ready\n"
    assert container.agent
    container.agent.kill()
    container.agent.wait()
    os.kill(program.pid, 0)
    assert host.used() == 64 * MIB
    program.communicate()
    container.agent = None


def test_a_share_that_changes(container: Container, host: SimHost) -> None:
    program = container.start("hold", "512")
    assert program.stdout and program.stdout.readline() == "ready\n"
    assert container.ask(f"share 0 {256 * MIB}\n") == f"ok {522 * MIB}\n"
    assert container.run("fill", "2").startswith("0 allocations")
    time.sleep(0.3)
    assert program.poll() is None
    assert host.used() == 512 * MIB
    container.ask(f"share 0 {2048 * MIB}\n")
    assert container.run("fill", "64").startswith("23 allocations")
    for wrong in ("share 1 5\n", "share 0 -1", "x\n", "share 0 5 6\n"):
        assert container.ask(wrong).startswith("error ")
