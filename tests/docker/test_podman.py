"""podman, Debian's, with runai-runtime as its OCI runtime, over runc and over crun."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.configure import configure
from tests.docker.agents import FILL, FILLED, agents, tools, wait_for
from tests.docker.host import configuration, grants_in, host_mounts
from tests.docker.podman import IMAGE, Podman
from tests.simgpu.host import SimHost

SHARE = "--env=RUNAI_GPU_MEMORY=3g"
SHOWN = "0MiB /   3072MiB"
RUNTIMES = {"runc": "/usr/sbin/runc", "crun": "/usr/bin/crun"}


@pytest.fixture(scope="module", params=RUNTIMES)
def podman(request: pytest.FixtureRequest, folder: Path, simhost: SimHost) -> Iterator[Podman]:
    home = folder / f"p{request.param[0]}"
    program = home / "runai-runtime"
    configure(configuration(home, simhost, RUNTIMES[request.param]), home / "config.json", program)
    with Podman(program, crun=request.param == "crun") as podman:
        yield podman


@pytest.fixture(autouse=True)
def leaves_nothing(podman: Podman) -> Iterator[None]:
    before = host_mounts()
    yield
    podman.remove_containers()
    assert grants(podman) == []
    wait_for(lambda: agents(state(podman)) == [])
    assert host_mounts() == before


def state(podman: Podman) -> Path:
    return podman.program.parent / "s"


def grants(podman: Podman) -> list[str]:
    return grants_in(state(podman))


def grant(podman: Podman, container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((state(podman) / container / "grant.json").read_text())
    return found


@pytest.mark.parametrize("option", [SHARE, "--annotation=RUNAI_GPU_MEMORY=3g"])
def test_the_share_is_shown(podman: Podman, option: str) -> None:
    assert SHOWN in podman.run("--rm", option, IMAGE, "nvidia-smi").stdout


def test_the_share_is_held_by_an_agent(podman: Podman) -> None:
    share = "--env=RUNAI_GPU_MEMORY=1g"
    container = podman.run("-d", share, *tools(), IMAGE, "sleep", "600").stdout.strip()
    assert grant(podman, container)["enforcement"]["by"] == "agent"
    assert podman("exec", container, *FILL).stdout == FILLED
    assert podman.run("--rm", share, *tools(), IMAGE, *FILL).stdout == FILLED


def test_more_than_there_is_refused(podman: Podman) -> None:
    done = podman.run("--rm", "--env=RUNAI_GPU_MEMORY=30g", IMAGE, "echo", "ran", check=False)
    assert (done.returncode, done.stdout) == (126, "")
    assert 'runai: RUNAI_GPU_MEMORY is "30g", 30720 MiB; GPU 0 has 10989 MiB; ask for less' in done.stderr


def test_privileged_is_refused(podman: Podman) -> None:
    done = podman.run("--rm", "--privileged", SHARE, IMAGE, "echo", "ran", check=False)
    assert done.returncode and "runai: the container has CAP_SYS_ADMIN" in done.stderr


def test_the_grant_comes_and_goes(podman: Podman) -> None:
    container = podman.run("-d", SHARE, IMAGE, "sleep", "600").stdout.strip()
    for command in ("pause", "unpause", "restart --time=0"):
        podman(*command.split(), container)
        assert grants(podman) == [container], command
    assert SHOWN in podman("exec", container, "nvidia-smi").stdout
    podman("stop", "--time=0", container)
    assert grants(podman) == []
    podman("start", container)
    assert grants(podman) == [container]
    assert SHOWN in podman("exec", container, "nvidia-smi").stdout
    podman("rm", "--force", "--time=0", container)
    assert grants(podman) == []


def test_without_a_share(podman: Podman) -> None:
    assert podman.run("--rm", IMAGE, "sh", "-c", "ls -d /.runai || echo none").stdout == "none\n"
