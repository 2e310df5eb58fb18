"""The simulated GPU host that these tests share: does it behave as the driver does, where the facts are known?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simgpu.host import SimHost
from tests.unit.simgpu.program import PROGRAMS, settled


@pytest.fixture(scope="package")
def shared_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimHost]:
    """One host with the default GPU for all tests of this folder."""
    with SimHost(tmp_path_factory.mktemp("gpu")) as host:
        yield host


@pytest.fixture
def host(shared_host: SimHost) -> Iterator[SimHost]:
    """The host, with nothing on it before and after."""
    settled(shared_host, 0)
    yield shared_host
    while PROGRAMS:
        PROGRAMS.pop().close()
    settled(shared_host, 0)
