"""ctr, containerd's own client, with runai-runtime as the low-level program of containerd's runc runtime."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker import images
from tests.docker.agents import FILL, FILLED, agents, wait_for
from tests.docker.host import Runai, grants_in, host_mounts
from tests.docker.place import run_client
from tests.programs.build import program

NAMESPACE = "runai-ctr"
IMAGE = f"docker.io/library/{images.BUSYBOX}"
SHOWN = "0MiB /   3072MiB"
SECONDS = 60


class Ctr:
    """ctr with the containerd of the private engine."""

    def __init__(self, runai: Runai) -> None:
        self.runai = runai

    def __call__(self, *args: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        engine = self.runai.engine
        command = [engine.program("ctr"), "--address", engine.containerd_address, "--namespace", NAMESPACE, *args]
        return run_client("ctr", command, check=check, seconds=SECONDS)

    def run(
        self, name: str, *command: str, options: tuple[str, ...] = (), memory: str = "3g", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        place = self.runai.engine.place
        runtime = [f"--runc-binary={self.runai.program}", f"--runc-root={place.state}/ctr"]
        tool = f"--mount=type=bind,src={program('rawgpu', '-static')},dst=/usr/local/bin/rawgpu,options=rbind:ro"
        asked = [f"--cgroup=/{place.cgroup}/{name}", f"--env=RUNAI_GPU_MEMORY={memory}", tool]
        return self("run", *runtime, *asked, *options, IMAGE, name, *command, check=check)


@pytest.fixture(scope="module")
def client(runai_default: Runai, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctr]:
    """The image is containerd's own as well then: dockerd keeps its images elsewhere."""
    tar = tmp_path_factory.mktemp("ctr") / "image.tar"
    runai_default.engine.docker("save", "--output", tar, images.BUSYBOX)
    ctr = Ctr(runai_default)
    ctr("image", "import", tar)
    yield ctr
    ctr("image", "rm", "--sync", IMAGE)
    ctr("namespace", "rm", NAMESPACE)


@pytest.fixture
def ctr(client: Ctr) -> Iterator[Ctr]:
    before = host_mounts()
    yield client
    for name in client("container", "ls", "--quiet").stdout.split():
        client("task", "rm", "--force", name, check=False)
        client("container", "rm", name)
    assert grants_in(client.runai.state) == []
    wait_for(lambda: agents(client.runai.state) == [])
    assert host_mounts() == before


@pytest.mark.parametrize("options", [(), ("--seccomp",), ("--read-only",)])
def test_the_share_is_shown(ctr: Ctr, options: tuple[str, ...]) -> None:
    assert SHOWN in ctr.run("one", "nvidia-smi", options=("--rm", *options)).stdout


def test_an_annotation_asks_for_it(ctr: Ctr) -> None:
    options = ("--rm", "--annotation=RUNAI_GPU_MEMORY=2g")
    assert "0MiB /   2048MiB" in ctr.run("one", "nvidia-smi", options=options).stdout


@pytest.mark.parametrize("options", [(), ("--seccomp",)])
def test_the_share_is_held_by_an_agent(ctr: Ctr, options: tuple[str, ...]) -> None:
    """With containerd's seccomp profile and without any, which is how ctr starts containers."""
    assert ctr.run("one", *FILL, options=("--rm", *options), memory="1g").stdout == FILLED


def test_more_than_there_is_refused(ctr: Ctr) -> None:
    done = ctr.run("one", "echo", "ran", options=("--rm",), memory="30g", check=False)
    assert done.returncode and done.stdout == ""
    assert 'runai: RUNAI_GPU_MEMORY is "30g", 30720 MiB; GPU 0 has 10989 MiB; ask for less' in done.stderr


def test_privileged_is_refused(ctr: Ctr) -> None:
    done = ctr.run("one", "echo", "ran", options=("--rm", "--privileged"), check=False)
    assert done.returncode and "runai: the container has CAP_SYS_ADMIN" in done.stderr


def test_the_grant_comes_and_goes(ctr: Ctr) -> None:
    grant = ctr.runai.state / "one"
    ctr.run("one", "sleep", "600", options=("--detach",))
    assert SHOWN in ctr("task", "exec", "--exec-id=smi", "one", "nvidia-smi").stdout
    for command in ("pause", "resume"):
        ctr("task", command, "one")
        ctr.runai.run("true")  # and its sweep, which leaves the grant alone
        assert grant.is_dir()
    ctr("task", "kill", "--signal=SIGKILL", "one")
    wait_for(lambda: "STOPPED" in ctr("task", "ls").stdout)
    ctr("task", "rm", "one")
    assert not grant.exists()
    ctr("task", "start", "--detach", "one")
    assert grant.is_dir()
    ctr("task", "rm", "--force", "one")
    assert not grant.exists()
