"""runai-ctl configure and unconfigure on a host with a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import PLACES
from tests.docker.engine import Engine
from tests.docker.host import Container, Runai, configuration
from tests.simgpu.host import SimHost

NAME = "runai-made"
BEFORE = '{\n  "log-level": "warn",\n  "runtimes": {"other": {"path": "/x"}}\n}\n'


class Made:
    """A host that is set up by the command alone."""

    def __init__(self, folder: Path, engine: Engine, simhost: SimHost) -> None:
        self.folder = folder / PLACES[NAME]
        self.folder.mkdir(exist_ok=True)
        self.config, self.program = self.folder / "etc/config.json", self.folder / "runai-runtime"
        self.daemon = self.folder / "daemon.json"
        self.daemon.write_text(BEFORE)
        self.config.parent.mkdir()
        values = configuration(self.folder, simhost)
        self.config.write_text(json.dumps(values))
        self.runai = Runai(engine, simhost, values, self.program, NAME)

    def ctl(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("runai-ctl")
        paths = (f"--config={self.config}", f"--program={self.program}", f"--daemon-json={self.daemon}")
        environment = os.environ | {"DOCKER_HOST": self.runai.engine.host, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        words: list[str | Path] = [program, command, *paths, f"--name={NAME}", *options]
        return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)

    def left(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))


@pytest.fixture
def made(folder: Path, engine: Engine, simhost: SimHost) -> Iterator[Made]:
    host = Made(folder, engine, simhost)
    yield host
    subprocess.run(["/bin/rm", "-rf", host.folder], check=True)


def test_there_and_back(made: Made) -> None:
    before = made.left()
    shown = made.ctl("configure", "--dry-run", "--set-as-default")
    assert shown.returncode == 0, shown.stderr
    assert f'+  "default-runtime": "{NAME}"' in shown.stdout
    assert made.left() == before
    done = made.ctl("configure")
    assert done.returncode == 0, done.stderr
    assert "systemctl reload docker" in done.stdout
    runtimes = {"other": {"path": "/x"}, NAME: {"path": str(made.program)}}
    assert json.loads(made.daemon.read_text()) == {"log-level": "warn", "runtimes": runtimes}
    assert "3072MiB" in made.runai.run("nvidia-smi").stdout
    done = made.ctl("unconfigure")
    assert done.returncode == 0, done.stderr
    assert made.left() == ["daemon.json"]
    assert made.daemon.read_text() == BEFORE


@pytest.mark.parametrize("memory", ["1g", None], ids=["with a share", "without"])
def test_a_container_that_runs_is_in_the_way(made: Made, memory: str | None) -> None:
    assert made.ctl("configure").returncode == 0
    container = Container(made.runai, "sleep", "600", memory=memory)
    refused = made.ctl("unconfigure")
    assert refused.returncode == 1
    assert f"containers run on it: {container.id[:12]}; stop them first" in refused.stderr
    assert made.program.exists() and NAME in made.daemon.read_text()
    made.runai.engine.docker("rm", "-f", container.id)
    assert made.ctl("unconfigure").returncode == 0
    assert not made.program.exists()


def test_a_daemon_json_that_is_damaged(made: Made) -> None:
    made.daemon.write_text('{\n  "debug": true,\n}\n')
    before = made.left()
    done = made.ctl("configure")
    assert made.left() == before
    assert done.returncode == 1
    assert done.stderr.startswith(f"runai-ctl: {made.daemon} is not the JSON that dockerd reads: ")
    assert "line 3" in done.stderr
