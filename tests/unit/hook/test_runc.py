"""The hooks as the real runc runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.hook.container import HOME, LIMITS, Container, snapshot

BUSYBOX = Path("/bin/busybox")  # busybox-static: the image has no loader


@dataclass
class Runc:
    """A bundle that the real runc runs with our hooks; LOG gets a line when poststop hooks are run."""

    container: Container

    def config(self, arguments: list[str]) -> dict[str, Any]:
        def hook(stage: str) -> dict[str, Any]:
            return {
                "path": str(self.container.hook),
                "args": ["runai-hook", stage, str(self.container.state)],
                "env": [],
            }

        log = {"path": "/bin/sh", "args": ["sh", "-c", f"echo poststop >> {self.container.base}/log"], "env": []}
        kinds = ("pid", "mount", "ipc", "uts")
        return {
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": arguments, "env": ["PATH=/bin"], "cwd": "/"},
            "root": {"path": str(self.container.root)},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in kinds]},
            "annotations": {"pid": "1", "nested": '{"pid":1}'},
            "hooks": {
                "prestart": [hook("prestart")],
                "createContainer": [hook("createContainer")],
                "poststop": [log, hook("poststop")],
            },
        }

    def run(
        self, *arguments: str, edit: Callable[[dict[str, Any]], None] = lambda config: None
    ) -> subprocess.CompletedProcess[str]:
        config = self.config(list(arguments))
        edit(config)
        base = self.container.base
        (base / "config.json").write_text(json.dumps(config))
        done = subprocess.run(
            ["runc", "--root", base / "runc", "run", "-b", base, f"runai-test-{os.getpid()}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert str(base) not in Path("/proc/self/mountinfo").read_text()
        return done

    def poststops(self) -> int:
        log = self.container.base / "log"
        return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def runc(debian: Container) -> Runc:
    (debian.root / "bin").mkdir()
    shutil.copy(BUSYBOX, debian.root / "bin/busybox")
    for name in ("sh", "cat", "ls", "true", "mount", "touch", "rm"):
        debian.link(f"/bin/{name}", "busybox")
    for name in ("proc", "dev"):
        (debian.root / name).mkdir()
    return Runc(debian)


def test_runc(runc: Runc) -> None:
    image = snapshot(runc.container.root)
    done = runc.run(
        "/bin/sh",
        "-c",
        f"cat /.runai/limits {HOME}/libcuda.so.1 /.runai/real/libnvidia-ml.so.1 "
        "/usr/bin/nvidia-smi /dev/nvidia0; touch /.runai/x /.runai/account/y; rm -f /.runai/account/page; "
        "ls /.runai/account",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "GPU-1 3221225472\nours cudareal nvmlsminodepage\n"
    assert runc.poststops() == 1
    assert not runc.container.state.exists()
    assert snapshot(runc.container.root) == image


def test_runc_reports_a_failed_hook_and_runs_poststop(runc: Runc) -> None:
    os.mkfifo(runc.container.root / HOME[1:] / "libnvidia-ml.so.1")
    image = snapshot(runc.container.root)
    done = runc.run("/bin/true")
    assert done.returncode == 1
    assert f"runai: {HOME}/libnvidia-ml.so.1 can't be used as a mount point, it is a FIFO" in done.stderr
    assert runc.poststops() == 1
    assert not runc.container.state.exists()
    assert snapshot(runc.container.root) == image


def test_runc_stops_when_prestart_fails(runc: Runc) -> None:
    runc.container.ours["libcuda.so.1"].unlink()
    done = runc.run("/bin/true")
    assert done.returncode == 1
    assert "ours-libcuda.so.1 can't be used, it does not exist" in done.stderr
    assert not runc.container.state.exists()


def test_runc_with_a_read_only_root(runc: Runc) -> None:
    done = runc.run("/bin/cat", "/.runai/limits", edit=lambda config: config["root"].update(readonly=True))
    assert (done.returncode, done.stdout) == (0, LIMITS.decode()), done.stderr


def test_runc_with_a_volume_that_is_a_link_to_the_host(runc: Runc) -> None:
    """A volume's own links are looked up in the container."""
    volume = runc.container.base / "volume"
    volume.mkdir()
    (volume / "libcuda.so.1").symlink_to("/etc/passwd")

    def edit(config: dict[str, Any]) -> None:
        config["mounts"].append(
            {"destination": "/usr/local/cuda/compat", "type": "bind", "source": str(volume), "options": ["rbind"]}
        )

    passwd = Path("/etc/passwd").read_bytes()
    done = runc.run("/bin/cat", "/etc/passwd", edit=edit)
    assert (done.returncode, done.stdout) == (0, "ours cuda"), done.stderr
    assert Path("/etc/passwd").read_bytes() == passwd
