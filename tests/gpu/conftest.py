"""The Docker host with a real GPU that the tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gpu.host import GpuHost, start


@pytest.fixture(scope="session")
def gpu_host(request: pytest.FixtureRequest) -> Iterator[GpuHost]:
    if not Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has no NVIDIA GPU")

    def folder(option: str) -> Path | None:
        value = request.config.getoption(option)
        return Path(value) if value else None

    enforcement = request.config.getoption("--enforcement")
    with start(folder("--engine"), folder("--image"), folder("--programs"), enforcement) as host:
        yield host
