"""Threads, and the children of processes that have some."""

from __future__ import annotations

from collections.abc import Callable

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
