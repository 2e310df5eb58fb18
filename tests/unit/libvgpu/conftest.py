"""libvgpu as a program meets it, under the sanitizers, on the simulated driver and without a container."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simgpu.host import SimHost
from tests.unit.libvgpu.place import HOST, Place, wait_for


@pytest.fixture(scope="package")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimHost]:
    with SimHost(tmp_path_factory.mktemp("host"), HOST) as host:
        yield host


@pytest.fixture(scope="package")
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
