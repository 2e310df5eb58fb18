"""Threads, and the children of processes that have some."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.unit.libvgpu.place import Place


@pytest.mark.parametrize("build", ["asan", "tsan"])
@pytest.mark.parametrize(
    "case", ["primaries_in_threads", "contexts_in_threads", "memory_in_threads", "cancelled_threads"]
)
def test_threads(place: Place, count: Callable[[int], int], case: str, build: str) -> None:
    place.run("cudacheck", case, str(count(200)), build=build)


@pytest.mark.parametrize("build", ["asan", "plain"])
def test_children_of_threads(place: Place, count: Callable[[int], int], build: str) -> None:
    place.run("cudacheck", "children_of_threads", str(count(200)), build=build)


@contextmanager
def busy_processors() -> Iterator[None]:
    """More work than the machine has processors for, so that threads lose theirs in the middle of a call."""
    work = [subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) for _ in range((os.cpu_count() or 1) + 3)]
    try:
        yield
    finally:
        for process in work:
            process.kill()
        for process in work:
            process.wait()


def test_threads_that_always_have_a_call_under_way(place: Place) -> None:
    """What a call on a pool was charged beyond its need stayed charged until there was none under way: never, here."""
    with busy_processors():
        place.run("cudacheck", "memory_in_threads", "150", build="asan")
