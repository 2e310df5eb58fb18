"""runai-docker with a real engine: what the README promises."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker import images
from tests.docker.host import CUDASH, Runai, grants_in
from tests.programs.build import program

PROGRAM = Path(sys.executable).with_name("runai-docker")


def start(runai: Runai, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DOCKER_HOST": runai.engine.host, "RUNAI_DOCKER": "/usr/bin/docker"}
    return subprocess.run(
        [PROGRAM, *arguments], env=environment, input=stdin, capture_output=True, text=True, check=False
    )


USE = Path(__file__).parents[2] / "docs/use.md"


@pytest.fixture(autouse=True)
def leaves_nothing(runai: Runai) -> Iterator[None]:
    yield
    runai.engine.remove_containers()
    assert grants_in(runai.state) == []


@pytest.mark.parametrize("memory", ["0.3", "3296m"])
def test_the_picture(runai: Runai, memory: str) -> None:
    run = ["run", "-i", "--rm", "--gpus", "1", "--gpu-memory", memory, "--network=none", images.BUSYBOX]
    done = start(runai, *run, "nvidia-smi")
    assert "0MiB /   3296MiB" in done.stdout, done.stderr


def test_beyond_the_share(runai: Runai) -> None:
    volume = f"--volume={program('cudash')}:{CUDASH}:ro"
    run = ["run", "--rm", "--gpu-memory=3g", "--network=none", volume, images.BUSYBOX, CUDASH, "primary"]
    assert start(runai, *run, "alloc 2g").stdout.count("CUDA_SUCCESS") == 2
    assert start(runai, *run, "alloc 4g").stdout.endswith("alloc 4g -> 2 CUDA_ERROR_OUT_OF_MEMORY\n")


def test_input_and_exit_status(runai: Runai) -> None:
    run = ["run", "-i", "--rm", "--gpu-memory=1", "--network=none", images.BUSYBOX]
    done = start(runai, *run, "sh", "-c", "cat; exit 42", stdin="input\n")
    assert (done.returncode, done.stdout) == (42, "input\n")


def test_without_a_share(runai: Runai) -> None:
    done = start(runai, "run", "--rm", "--network=none", images.BUSYBOX, "ls", "/.runai")
    assert done.returncode == 1


def test_a_gpu_that_is_not_there(runai: Runai) -> None:
    done = start(runai, "run", "--rm", "--gpus=device=7", "--gpu-memory=1g", "--network=none", images.BUSYBOX, "true")
    assert done.returncode == 125
    assert "runai: RUNAI_GPUS" in done.stderr


@pytest.mark.parametrize("client", [["/usr/bin/docker-compose"], [PROGRAM, "--dry-run", "compose"]])
def test_compose(runai: Runai, tmp_path: Path, client: list[str | Path]) -> None:
    """The file of docs/use.md; runai-docker hands compose on."""
    text = USE.read_text().partition("```yaml\n")[2].partition("```")[0]
    assert "RUNAI_GPU_MEMORY: 3g" in text
    path = tmp_path / "docker-compose.yml"
    path.write_text(text.replace("IMAGE", images.BUSYBOX) + "    network_mode: none\n")
    environment = os.environ | {"DOCKER_HOST": runai.engine.host, "RUNAI_DOCKER": "/usr/bin/docker"}
    command = [*client, "-f", path, "-p", "runai", "up"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    if client[0] == PROGRAM:
        assert done.stdout == f"docker compose -f {path} -p runai up\n"
    else:
        assert "0MiB /   3072MiB" in done.stdout
