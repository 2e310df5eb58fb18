"""The main line with crun below: containers are shown their share and held to it, or their owner reads why not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runai_runtime.configure import configure
from tests.docker import images
from tests.docker.engine import Engine
from tests.docker.host import CUDASH, Container, Runai, changed, configuration, grants_in, host_mounts, mounts_in
from tests.programs.build import program
from tests.simgpu.host import SimHost

GIB = 1 << 30
LIBRARY = f"/usr/lib/{images.MULTIARCH}/libcuda.so.1"
SHOWN = "0MiB /   3072MiB"
ALLOC = (CUDASH, "primary", "total", "alloc 2g", "alloc 1g")
ANSWERS = ["CUDA_SUCCESS", f"CUDA_SUCCESS {3 * GIB}", "CUDA_SUCCESS 0", "CUDA_ERROR_OUT_OF_MEMORY"]
TOOLS = (f"--volume={program('cudash')}:{CUDASH}:ro",)


@pytest.fixture(scope="module")
def crun(folder: Path, simhost: SimHost) -> Iterator[Runai]:
    """A Docker host on which runai-runtime becomes crun, without agents (test_agent_hosts.py has them)."""
    home = folder / "crun"
    registered = home / "runai-runtime"
    with Engine({"runai": registered}, crun=True) as engine:
        images.load(engine)
        config = configuration(home, simhost, "/usr/bin/crun") | {"enforcement": "interposer"}
        configure(config, home / "config.json", registered)
        yield Runai(engine, simhost, config, registered)


@pytest.fixture(autouse=True)
def leaves_nothing(crun: Runai) -> Iterator[None]:
    before = host_mounts()
    yield
    crun.engine.remove_containers()
    assert grants(crun) == []
    assert mounts_in(crun.engine) == []
    assert host_mounts() == before


def grants(runai: Runai) -> list[str]:
    return grants_in(runai.state)


def answers(output: str) -> list[str]:
    return [line.partition(" -> ")[2].partition(" ")[2] for line in output.splitlines()]


@pytest.mark.parametrize(
    "options",
    ["", "--read-only", "--read-only --user=1000 --tmpfs=/tmp", "--init --pid=host", "--tmpfs=/run --cap-drop=ALL"],
)
def test_the_share_is_shown_and_held(crun: Runai, options: str) -> None:
    done = crun.run(*ALLOC, options=(*TOOLS, *options.split()))
    assert answers(done.stdout) == ANSWERS
    assert crun.simhost.used() == 0


def test_nvidia_smi_and_exec(crun: Runai) -> None:
    container = Container(crun, "sleep", "600", options=TOOLS)
    assert SHOWN in container.execute("nvidia-smi")
    assert answers(container.execute(*ALLOC)) == ANSWERS
    assert (container.grant / "pid").read_text().strip().isdigit()


def test_stop_and_start(crun: Runai) -> None:
    container = Container(crun, "sleep", "600", options=("--read-only",))
    crun.engine.docker("stop", "--time=0", container.id)
    assert not container.grant.exists()
    assert changed(crun, container.id) == ""
    crun.engine.docker("start", container.id)
    assert SHOWN in container.execute("nvidia-smi")


def test_a_read_only_root_stays_so(crun: Runai) -> None:
    done = crun.run("touch", "/usr/lib/x", options=("--read-only",), check=False)
    assert "Read-only file system" in done.stderr


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 125, (done.stdout, done.stderr)
    before, found, words = done.stderr.partition("runai: ")
    assert found and "error executing hook" not in done.stderr, done.stderr
    assert before.endswith("OCI runtime create failed: ")
    return words


def test_refused_before_it_is_made(crun: Runai) -> None:
    assert "GPU 0 has 10989 MiB" in sentence(crun.run("true", memory="20g", check=False))


def test_refused_by_the_prestart_hook(crun: Runai) -> None:
    """Of what a hook says crun itself tells nothing."""
    hook = Path(crun.config["hook"])
    script = hook.with_name("no-limits")
    script.write_text(f'#!/bin/sh\nif [ "$1" = prestart ]; then rm -f "$2/limits"; fi\nexec {hook} "$@"\n')
    script.chmod(0o755)
    config = crun.state.parent / "config.json"
    saved = config.read_text()
    config.write_text(saved.replace(str(hook), str(script)))
    try:
        assert "its file limits isn't there" in sentence(crun.run("true", check=False))
    finally:
        config.write_text(saved)
        script.unlink()
        crun.run("true")


def test_refused_by_the_create_container_hook_and_taken_back(crun: Runai, tmp_path: Path) -> None:
    """For a container that it couldn't create crun calls no poststop: the next create does it, but for empty
    mount points in that container's root.
    """
    docker = crun.engine.docker
    images.derive(crun.engine, "odd:fifo", "mkfifo /usr/bin/nvidia-smi")
    try:
        container = docker("create", *crun.arguments(memory="3g"), "odd:fifo", "true").stdout.strip()
        failed = docker("start", container, check=False)
        assert "runai: /usr/bin/nvidia-smi can't be used as a mount point, it is a FIFO" in failed.stderr
        assert grants(crun) == [container]
        crun.run("true")
        assert grants(crun) == []
        docker("cp", f"{container}:{LIBRARY}", tmp_path / "left")
        assert (tmp_path / "left").read_bytes() == b""  # by then Docker has taken the root away
    finally:
        crun.engine.remove_containers()
        docker("rmi", "odd:fifo")
