"""Containers that can reach an MPS server of the host's, by what is mounted into them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.errors import RefusalError
from runai_runtime.mps import SETTING, refuse_servers


@pytest.fixture
def pipes(tmp_path: Path) -> Path:
    """The folder of a server that runs, at the default place; server() makes another one."""
    return server(tmp_path / "tmp/nvidia-mps")


def server(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("control", "control_privileged"):
        os.mknod(folder / name, stat.S_IFSOCK | 0o666)
    os.mkfifo(folder / "log")
    (folder / "control_lock").touch()
    return folder


def bind(source: Path | str, target: str = "/x") -> dict[str, Any]:
    return {"destination": target, "source": str(source), "type": "bind", "options": ["rbind"]}


def refused(pipes: Path, *mounts: dict[str, Any], setting: str = "", **more: Any) -> str:
    environment = {SETTING: setting} if setting else {}
    try:
        refuse_servers({"mounts": list(mounts), **more}, environment, str(pipes))
    except RefusalError as refusal:
        return str(refusal)
    return ""


def test_the_folder_by_any_way(pipes: Path, tmp_path: Path) -> None:
    link, socket = tmp_path / "link", tmp_path / "socket"
    link.symlink_to(pipes)
    socket.symlink_to(pipes / "control")
    for source in (pipes, pipes.parent, pipes / "control", link, socket, f"{pipes}/../nvidia-mps/", "/"):
        said = refused(pipes, bind("/etc/hosts"), bind(source))
        assert said.startswith('the volume on "/x" leads to an MPS server of the host\'s'), source


def test_another_place_than_the_default(pipes: Path, tmp_path: Path) -> None:
    other = server(tmp_path / "srv/mps/one")
    for source in (other, other / "control"):
        assert refused(pipes, bind(source)) != ""
    volume = bind(tmp_path / "srv", "/run/mps")
    assert refused(pipes, volume) == ""
    said = refused(pipes, volume, setting="/run/mps/mps/one")
    assert said.startswith(
        'its CUDA_MPS_PIPE_DIRECTORY, "/run/mps/mps/one", lies in a volume and leads to an MPS server'
    )
    assert refused(pipes, volume, setting="/run/mps/none") == ""
    assert refused(pipes, volume, bind(tmp_path / "tmp", "/run/mps/mps"), setting="/run/mps/mps/nvidia-mps") != ""


def test_a_folder_without_a_server_yet(tmp_path: Path) -> None:
    pipes = tmp_path / "tmp/nvidia-mps"
    pipes.mkdir(parents=True)
    assert refused(pipes, bind(pipes)) != ""
    assert refused(pipes, bind(pipes.parent)) == ""


def test_what_nvidias_hook_mounts(pipes: Path, tmp_path: Path) -> None:
    hooks = {"prestart": [{"path": "/usr/bin/nvidia-container-runtime-hook"}]}
    assert "NVIDIA's container toolkit mounts" in refused(pipes, hooks=hooks)
    assert refused(tmp_path / "none", hooks=hooks) == ""


@pytest.mark.parametrize(
    "mount",
    [
        bind("/etc/hosts"),
        bind("/nowhere"),
        bind("/x\0"),
        bind("/\ud800"),
        {"destination": "/tmp/nvidia-mps", "source": "tmpfs", "type": "tmpfs"},
        {"destination": "/x", "type": "bind"},
        {"destination": 1, "source": 2, "type": 3, "options": 4},
    ],
)
def test_others_are_let_in(pipes: Path, mount: dict[str, Any]) -> None:
    for setting in ("", "/x", "/x\0", "relative", "/\ud800"):
        assert refused(pipes, mount, setting=setting) == ""
