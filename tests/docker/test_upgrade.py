"""The files of runai-runtime are replaced while a container runs: it lives on, counts, and ends as it should."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runai_runtime.configure import configure
from runai_runtime.host import Host
from runai_runtime.live import set_share
from tests.docker.agents import agent_of, agents, tools, wait_for
from tests.docker.conftest import PLACES
from tests.docker.engine import Engine, EngineError
from tests.docker.host import CUDASH, NATIVE, Container, Runai, changed, configuration, grants_in
from tests.simgpu.host import SimHost

GIB = 1 << 30


@pytest.fixture
def upgraded(folder: Path, engine: Engine, simhost: SimHost) -> Runai:
    """A runtime of the shared engine with files of its own."""
    place = folder / PLACES["runai-upgrade"]
    shutil.rmtree(place, ignore_errors=True)
    copy = shutil.copytree(NATIVE, place / "native")
    config = configuration(place, simhost) | {"libvgpu": str(copy), "hook": str(copy / "runai-hook")}
    config["enforcement"] = "agent"
    return Runai.configured(engine, simhost, config, place, "runai-upgrade")


def reconfigure(runai: Runai, native: Path) -> None:
    runai.config |= {"libvgpu": str(native), "hook": str(native / "runai-hook")}
    configure(runai.config, runai.program.with_name("config.json"), runai.program)


def written_anew(runai: Runai, more: bytes = b"") -> None:
    """As pip does: other files by the same names. MORE, behind all that is read or run, makes them other versions."""
    native = Path(runai.config["libvgpu"])
    for path in [path for path in native.iterdir() if path.is_file()]:
        content, mode = path.read_bytes(), path.stat().st_mode
        path.unlink()
        path.write_bytes(content + (more if content[:4] == b"\x7fELF" else b""))
        path.chmod(mode)
    reconfigure(runai, native)


def another_version(runai: Runai) -> None:
    written_anew(runai, b"another version")


def another_place(runai: Runai) -> None:
    """As from another virtual environment, with the old one gone, and with it the hook in the container's bundle."""
    old = Path(runai.config["libvgpu"])
    reconfigure(runai, Path(shutil.copytree(old, old.with_name("native-2"))))
    shutil.rmtree(old)


HOW = (written_anew, another_version, another_place)


@pytest.mark.parametrize("upgrade", HOW)
def test_a_container_of_the_old_version(upgraded: Runai, upgrade: Callable[[Runai], None]) -> None:
    one = Container(upgraded, "sleep", "600", memory="3g", options=tools())
    held = upgraded.engine.popen("exec", "-i", one.id, CUDASH, "primary", "alloc 1g", "hold", "alloc 1g", "alloc 1g")
    assert held.stdout is not None
    assert "CUDA_SUCCESS" in [held.stdout.readline() for _ in range(2)][1]
    agent = agent_of(one)

    upgrade(upgraded)

    assert "3072MiB" in one.execute("nvidia-smi")
    assert "CUDA_ERROR_OUT_OF_MEMORY" in one.execute(CUDASH, "primary", "alloc 2g")
    said = held.communicate()[0].splitlines()
    assert ["CUDA_SUCCESS" in line for line in said[-2:]] == [True, False], said
    with pytest.raises(EngineError, match=rf"GPU 0 has 7853 MiB free of 10925 MiB \({one.id[:12]}: 3072 MiB\)"):
        Container(upgraded, "true", memory="8g")
    two = Container(upgraded, "sleep", "600", memory="6g", options=tools())
    assert "6144MiB" in two.execute("nvidia-smi")
    assert grants_in(upgraded.state) == sorted([one.id, two.id])

    set_share(Host("config.json", upgraded.config), one.id, "4g")
    assert "4096MiB" in one.execute("nvidia-smi")
    assert "CUDA_SUCCESS" in one.execute(CUDASH, "primary", "alloc 3g").splitlines()[1]
    assert agent_of(one) == agent

    upgraded.engine.docker("kill", one.id, two.id)
    upgraded.engine.docker("wait", one.id, two.id)
    if upgrade is another_place:  # its hook is gone: the next create takes it back, with its mount points left empty
        assert "3072MiB" in upgraded.run("nvidia-smi").stdout
    assert grants_in(upgraded.state) == []
    left = ["libcuda" in changed(upgraded, container.id) for container in (one, two)]
    assert left == [upgrade is another_place, False]
    wait_for(lambda: agents(upgraded.state) == [])

    upgraded.engine.docker("start", one.id)
    assert "3072MiB" in one.execute("nvidia-smi")


def test_a_grant_that_a_newer_version_made(upgraded: Runai) -> None:
    """After a downgrade: no more shares, and all the rest as ever, until its container is gone."""
    one = Container(upgraded, "sleep", "600")
    path = one.grant / "grant.json"
    grant = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps(grant | {"version": 2, "gpus": None}))
    with pytest.raises(EngineError, match=r"runai: .*grant\.json is damaged, or of a version of runai-runtime that"):
        Container(upgraded, "true", memory="1g")
    assert upgraded.run("echo", "runs", memory=None).stdout == "runs\n"
    assert "3072MiB" in one.execute("nvidia-smi")
    upgraded.engine.docker("rm", "--force", one.id)
    assert "1024MiB" in upgraded.run("nvidia-smi", memory="1g").stdout
