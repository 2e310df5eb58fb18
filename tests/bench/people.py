"""What people wait for at a prompt: runai-docker where it only hands a command on, and a look at a full host."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.pairs import Pairs, Row, measure
from tests.docker import images
from tests.docker.engine import Engine
from tests.docker.host import Runai

CONTAINERS = 64
GPUS = 8
DOCKER = "/usr/bin/docker"
PROGRAMS = Path(sys.executable).parent
FORMATS = ("table", "json")


def handed_on(engine: Engine, rounds: int) -> Iterator[Row]:
    """What runai-docker adds to a command that is docker's alone."""
    environment = engine.environment() | {"DOCKER_HOST": engine.host, "RUNAI_DOCKER": DOCKER}
    base, other = measure(
        [started([program, "ps", "--quiet"], environment) for program in (DOCKER, PROGRAMS / "runai-docker")], rounds
    )
    added = [1000 * difference for difference in Pairs(base, other).differences]
    native = 1000 * statistics.median(base)
    yield Row(f"docker ps ({native:.0f} ms): added by runai-docker", 40.0, added, " ms")


def full_host(runai: Runai, rounds: int) -> Iterator[Row]:
    """runai-ctl status where many containers run, each with an agent, and the engine is asked for their names."""
    for number in range(CONTAINERS):
        options = runai.arguments(f"--name=job-{number}", memory="8g")
        runai.engine.docker("run", "--detach", *options, images.BUSYBOX, "sleep", "3600")
    environment = os.environ | {"DOCKER_HOST": runai.engine.host}
    config = f"--config={runai.program.with_name('config.json')}"
    looks = [
        started([DOCKER, "ps"], environment),
        *(started([PROGRAMS / "runai-ctl", "status", config, f"--format={as_}"], environment) for as_ in FORMATS),
    ]
    listed, *taken = measure(looks, rounds)
    runai.engine.remove_containers()
    native = 1000 * statistics.median(listed)
    for as_, times in zip(FORMATS, taken, strict=True):
        what = f"runai-ctl status as {as_}, {CONTAINERS} containers on {GPUS} GPUs (docker ps {native:.0f} ms)"
        yield Row(what, 300.0, [1000 * time for time in times], " ms")


def started(command: list[str | Path], environment: dict[str, str]) -> Callable[[], None]:
    def action() -> None:
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)

    return action
