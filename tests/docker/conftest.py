"""The Docker host that the tests share: a private engine, a simulated GPU host, and runai-runtime between them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runai_runtime.configure import configure
from tests.docker import images
from tests.docker.engine import Engine
from tests.docker.host import Runai, configuration
from tests.simgpu.host import SimHost

PLACES = {
    "runai": ".",
    "runai-two": "two",
    "runai-agent": "b",
    "runai-interposer": "i",
    "runai-cut": "x",
    "runai-eight": "8",
    "runai-refused": "r",
    "runai-made": "made",
    "runai-mig": "m",
    "runai-hosts": "h",
    "runai-upgrade": "u",
    "runai-other": "o",
}
"""The runtimes of the shared engine, and the folders that they lie in: short ones, for the sockets in them."""


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A short path on a disk, for what is mounted into containers and for sockets."""
    with tempfile.TemporaryDirectory(prefix="runai-test-", dir="/var/tmp") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def engine(folder: Path) -> Iterator[Engine]:
    """The engine, with the images, and with the programs that are going to be runai-runtime."""
    with Engine({name: folder / place / "runai-runtime" for name, place in PLACES.items()}) as engine:
        images.load(engine, images.BUSYBOX)
        yield engine


@pytest.fixture(scope="session")
def simhost(folder: Path) -> Iterator[SimHost]:
    with SimHost(folder / "gpu-host") as host:
        yield host


@pytest.fixture(scope="session")
def runai_default(request: pytest.FixtureRequest, folder: Path, engine: Engine, simhost: SimHost) -> Runai:
    config = configuration(folder, simhost) | {"enforcement": request.config.getoption("--enforcement")}
    return Runai.configured(engine, simhost, config, folder)


@pytest.fixture(scope="session")
def runai(runai_default: Runai) -> Runai:
    return runai_default


@pytest.fixture(scope="session")
def runai_two(folder: Path, engine: Engine) -> Iterator[Runai]:
    """The same engine with a host of two GPUs of different sizes."""
    gpus = [{"name": "NVIDIA A", "memory_mib": 8192}, {"name": "NVIDIA B", "memory_mib": 4096}]
    with SimHost(folder / "two/gpu-host", {"gpus": gpus}) as host:
        config = configuration(folder / "two", host)
        program = folder / "two/runai-runtime"
        configure(config, folder / "two/config.json", program)
        yield Runai(engine, host, config, program, "runai-two")


def bounded_by(enforcement: str, runtime: str, folder: Path, engine: Engine, simhost: SimHost) -> Runai:
    """RUNTIME of the same engine and GPU host, with that in its configuration."""
    place = folder / PLACES[runtime]
    config = configuration(place, simhost) | {"enforcement": enforcement}
    return Runai.configured(engine, simhost, config, place, runtime)


@pytest.fixture(scope="session")
def runai_agent(folder: Path, engine: Engine, simhost: SimHost) -> Runai:
    """The same engine and GPU host, where the agent bounds the containers."""
    return bounded_by("agent", "runai-agent", folder, engine, simhost)


@pytest.fixture(scope="session")
def runai_interposer(folder: Path, engine: Engine, simhost: SimHost) -> Runai:
    """The same engine and GPU host, where libvgpu alone bounds the containers."""
    return bounded_by("interposer", "runai-interposer", folder, engine, simhost)


@pytest.fixture(scope="session", params=["runai_default", "runai_interposer"])
def either(request: pytest.FixtureRequest, engine: Engine) -> Runai:
    """What bounds the containers by default, and libvgpu alone: for the tests of what a share is. ENGINE is asked for
    by name so that leaves_no_container sees it.
    """
    found: Runai = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def image(engine: Engine) -> Iterator[Callable[..., str]]:
    """Make an image of the test's own, as images.derive does."""
    made: list[str] = []

    def make(script: str = "true", *changes: str, base: str = images.BUSYBOX) -> str:
        made.append(images.derive(engine, f"derived:{len(made)}", script, *changes, base=base))
        return made[-1]

    yield make
    engine.remove_containers()
    if made:
        engine.docker("rmi", *made)


@pytest.fixture(autouse=True)
def leaves_no_container(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test started ends with it."""
    yield
    if "engine" in request.fixturenames:
        request.getfixturevalue("engine").remove_containers()
