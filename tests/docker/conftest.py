"""The Docker host that the tests share: a private engine, a simulated GPU host, and runai-runtime between them."""

from __future__ import annotations

import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.configure import configure
from tests.docker import images
from tests.docker.engine import Engine
from tests.simgpu.host import SimHost


class Runai:
    """A Docker host with runai-runtime: an engine, a simulated GPU host and what daemon.json registers."""

    def __init__(self, engine: Engine, simhost: SimHost, config: dict[str, Any], program: Path) -> None:
        self.engine = engine
        self.simhost = simhost
        self.config = config
        self.program = program
        self.state = Path(config["state"])

    def arguments(self, *args: str | Path, memory: str | None, runtime: str = "runai") -> list[str]:
        """What `docker run` is given before the image."""
        asked = [] if memory is None else ["--env", f"RUNAI_GPU_MEMORY={memory}"]
        return ["--network=none", f"--runtime={runtime}", *asked, *map(str, args)]

    def run(
        self,
        *command: str | Path,
        memory: str | None = "3g",
        image: str = images.BUSYBOX,
        options: tuple[str | Path, ...] = (),
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """`docker run --rm` of a command in an image, with a share of the GPU unless memory is None."""
        arguments = self.arguments(*options, memory=memory)
        return self.engine.docker("run", "--rm", *arguments, image, *command, check=check)


def configuration(folder: Path, simhost: SimHost, runtime: str = "/usr/sbin/runc") -> dict[str, Any]:
    """A configuration of runai-runtime for a simulated host, with all of its own under one folder."""
    native = Path(sysconfig.get_path("platlib"), "runai_runtime/native")
    return {
        "runtime": runtime,
        "state": str(folder / "state"),
        "libvgpu": str(native),
        "hook": str(native / "runai-hook"),
        "driver": {
            "libraries": [str(simhost.lib)],
            "programs": [str(simhost.bin)],
            "devices": str(simhost.dev),
        },
    }


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A short path on a disk, for what is mounted into containers and for sockets."""
    with tempfile.TemporaryDirectory(prefix="runai-test-", dir="/var/tmp") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def engine(folder: Path) -> Iterator[Engine]:
    """The engine, with the images, and with the program that is going to be runai-runtime."""
    with Engine({"runai": folder / "runai-runtime"}) as engine:
        images.load(engine, images.BUSYBOX)
        yield engine


@pytest.fixture(scope="session")
def simhost(folder: Path) -> Iterator[SimHost]:
    with SimHost(folder / "gpu-host") as host:
        yield host


@pytest.fixture(scope="session")
def runai(folder: Path, engine: Engine, simhost: SimHost) -> Runai:
    config = configuration(folder, simhost)
    program = folder / "runai-runtime"
    configure(config, folder / "config.json", program)
    return Runai(engine, simhost, config, program)


@pytest.fixture(autouse=True)
def leaves_no_container(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test started ends with it."""
    yield
    if "engine" in request.fixturenames:
        request.getfixturevalue("engine").remove_containers()
