"""runai-ctl configure and unconfigure on a host with a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runai_runtime.dockerd import RUNTIMES
from tests.docker import images
from tests.docker.agents import wait_for
from tests.docker.conftest import PLACES
from tests.docker.engine import Engine
from tests.docker.host import Container, Runai, configuration
from tests.simgpu.host import SimHost

NAME = "runai-made"
BEFORE = '{\n  "log-level": "warn",\n  "runtimes": {"other": {"path": "/x"}}\n}\n'


class Made:
    """A host that is set up by the command alone."""

    def __init__(self, folder: Path, engine: Engine, simhost: SimHost, daemon: Path | None = None) -> None:
        self.folder = folder / PLACES[NAME]
        self.folder.mkdir(exist_ok=True)
        self.config, self.program = self.folder / "etc/config.json", self.folder / "runai-runtime"
        self.search = self.folder / "search"
        self.daemon = daemon or self.folder / "daemon.json"
        if not daemon:
            self.daemon.write_text(BEFORE)
        self.values = configuration(self.folder, simhost)
        self.write_config()
        self.runai = Runai(engine, simhost, self.values, self.program, NAME)

    def write_config(self) -> None:
        self.config.parent.mkdir(exist_ok=True)
        self.config.write_text(json.dumps(self.values))

    def ctl(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("runai-ctl")
        paths = (f"--config={self.config}", f"--program={self.program}", f"--daemon-json={self.daemon}")
        search = f"{self.search}:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = os.environ | {"DOCKER_HOST": self.runai.engine.host, "PATH": search}
        words: list[str | Path] = [program, command, *paths, f"--name={NAME}", *options]
        return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)

    def set_systemctl(self, script: str) -> None:
        """What stands for systemctl."""
        self.search.mkdir(exist_ok=True)
        (self.search / "systemctl").write_text(f"#!/bin/sh\n{script}\n")
        (self.search / "systemctl").chmod(0o755)

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


@pytest.fixture(scope="module")
def own_engine(folder: Path) -> Iterator[Engine]:
    """One that reads its daemon.json at a reload, and is told there neither of runtimes nor of a default."""
    with Engine() as engine:
        images.load(engine, images.BUSYBOX)
        path = engine.place.data / "daemon.json"
        values = json.loads(path.read_text())
        path.write_text(json.dumps({key: values[key] for key in values if "runtime" not in key}, indent=2) + "\n")
        yield engine


@pytest.fixture
def default(folder: Path, own_engine: Engine, simhost: SimHost) -> Iterator[Made]:
    """A host whose engine starts every container with ours that names no runtime."""
    host = Made(folder, own_engine, simhost, own_engine.place.data / "daemon.json")
    before = host.daemon.read_text()
    host.set_systemctl(RELOAD.format(own_engine.pid("dockerd")))
    done = host.ctl("configure", "--set-as-default", "--reload")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: known(own_engine)[0] == NAME)
    yield host
    own_engine.remove_containers()
    host.set_systemctl(RELOAD.format(own_engine.pid("dockerd")))
    host.ctl("unconfigure", "--reload")
    assert host.daemon.read_text() == before
    subprocess.run(["/bin/rm", "-rf", host.folder], check=True)


RELOAD = '[ "$*" = "reload docker" ] && kill -HUP {}'


def known(engine: Engine) -> tuple[str, set[str]]:
    """The default runtime, and the names of all."""
    default, names = map(json.loads, engine.docker("info", "--format", RUNTIMES).stdout.splitlines())
    return default, set(names)


def test_docker_forgets_the_default(default: Made) -> None:
    engine = default.runai.engine
    engine.docker("run", "--rm", "--network=host", images.BUSYBOX, "true")
    done = default.ctl("unconfigure")
    assert done.returncode == 0, done.stderr
    assert not default.program.exists() and "runtime" not in json.loads(default.daemon.read_text())
    engine.docker("run", "--rm", "--network=host", images.BUSYBOX, "true")
    assert known(engine)[0] == "runc" and NAME not in known(engine)[1]
    default.write_config()
    assert default.ctl("configure", "--reload").returncode == 0
    wait_for(lambda: NAME in known(engine)[1])
    listed = default.ctl("unconfigure")
    assert f"Docker info has the runtime {NAME} until docker is restarted" in listed.stdout
    done = default.ctl("unconfigure", "--reload")
    assert done.returncode == 0, done.stderr
    assert NAME not in known(engine)[1]


def test_docker_that_does_not_forget(default: Made) -> None:
    before, left = default.daemon.read_text(), default.left()
    default.set_systemctl("echo no unit >&2; exit 5")
    refused = default.ctl("unconfigure")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert f"docker didn't forget the runtime {NAME}: docker didn't reload: no unit; " in refused.stderr
    assert "--force and restart docker" in refused.stderr
    assert (default.daemon.read_text(), default.left()) == (before, left)
    forced = default.ctl("unconfigure", "--force")
    assert forced.returncode == 0
    assert "Restart docker (systemctl restart docker): until then " in forced.stdout
    assert not default.program.exists()
