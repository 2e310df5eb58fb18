"""The agent on a simulated driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.simgpu.host import SimHost
from tests.unit.agent.bounded import SHARE, Container, compile_agent, wait_for


@pytest.fixture(scope="package")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_agent(tmp_path_factory.mktemp("agent") / "runai-agent")


@pytest.fixture(scope="package")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimHost]:
    with SimHost(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def container_with(agent: Path, host: SimHost, tmp_path: Path) -> Iterator[Callable[..., Container]]:
    """Makes containers: of this share, in bytes, with or without an agent, and with more of what Container takes."""
    made: list[Container] = []

    def make(share: int = SHARE, *, bounded: bool = True, **settings: Any) -> Container:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Container(folder, host, agent if bounded else None, [share], **settings))
        return made[-1]

    wait_for(lambda: host.used() == 0)
    yield make
    for one in made:
        one.end()


@pytest.fixture
def container(container_with: Callable[..., Container]) -> Container:
    return container_with()
