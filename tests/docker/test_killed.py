"""Whoever dies in the middle, the ledger is that of the containers that live as soon as the next one is made."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.docker import images
from tests.docker.agents import FILL, FILLED, agents, tools, wait_for
from tests.docker.engine import Engine
from tests.docker.host import NATIVE, Runai, configuration, grants_in, host_mounts, mounts_in
from tests.simgpu.host import SimHost

LONGEST = 0.3
"""Seconds that a `docker run -d` takes, and some more."""

# Instead of PROGRAM: itself, killed so many seconds after its start as the file AFTER says, if there is one.
CUT = """\
#!/bin/sh
if [ -e {after} ] && read -r after <{after}; then
    exec /usr/bin/timeout --foreground -s KILL "$after" {program} "$@"
fi
exec {program} "$@"
"""

BY_THEMSELVES = {"the shim": 0.05, "the hook": 0.02, "runc": 0.15}
"""Those that live too short to be looked for, and for how many seconds."""

DAEMONS = ("an agent", "a containerd-shim", "containerd", "dockerd")


@pytest.fixture(scope="module")
def cut(folder: Path, simhost: SimHost) -> Iterator[Runai]:
    """A host with live-restore, whose shim, hook and runc end early when they are told so."""
    home = folder / "q"
    home.mkdir()
    config = configuration(home, simhost, str(home / "runc")) | {"hook": str(home / "hook"), "enforcement": "agent"}
    config["agent"] = str(NATIVE / "runai-agent")
    programs = {
        "shim": home / "runai-runtime",
        "hook": NATIVE / "runai-hook",
        "runc": Path("/usr/sbin/runc"),
    }
    for name, program in programs.items():
        path = home / (f"{name}-cut" if name == "shim" else name)
        path.write_text(CUT.format(after=home / f"{name}.after", program=program))
        path.chmod(0o755)
    with Engine({"runai": home / "shim-cut"}, live_restore=True) as engine:
        images.load(engine)
        yield Runai.configured(engine, simhost, config, home)


def grants(runai: Runai) -> set[str]:
    return set(grants_in(runai.state))


def living(runai: Runai) -> set[str]:
    return set(runai.engine.docker("ps", "--quiet", "--no-trunc").stdout.split())


def victims(runai: Runai, actor: str) -> list[int]:
    """The processes of one of DAEMONS that are killed from outside."""
    if actor == "an agent":
        return agents(runai.state)
    return [pid for pid in runai.engine.place.processes() if name_of(pid).startswith("containerd-shim")]


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0].rpartition("/")[2]
    except OSError:
        return ""


def strike(runai: Runai, actor: str, chance: random.Random) -> bool:
    """Kill ACTOR at some moment of a `docker run -d`, which ends then in one way or another; whether it fails."""
    after = runai.program.parent / f"{actor.rpartition(' ')[2]}.after"
    if actor in BY_THEMSELVES:
        after.write_text(f"{chance.uniform(0, BY_THEMSELVES[actor]):.4f}\n")
    arguments = runai.with_network().arguments(*tools(), memory="64m")
    running = runai.engine.popen("run", "-d", *arguments, images.BUSYBOX, "sleep", "600")
    with running:
        if actor in DAEMONS:
            with suppress(subprocess.TimeoutExpired):
                running.wait(chance.uniform(0, LONGEST))
        if actor == "containerd":
            runai.engine.crash_containerd()
        elif actor == "dockerd":
            runai.engine.restart_dockerd(kill=True)
        elif actor in DAEMONS and (found := victims(runai, actor)):
            with suppress(ProcessLookupError):
                os.kill(chance.choice(found), signal.SIGKILL)
        running.communicate(timeout=60)
    after.unlink(missing_ok=True)
    if actor == "containerd":  # dockerd finds it again within 3 s
        wait_for(lambda: ": unavailable" not in runai.run("true", check=False).stderr)
    return running.returncode != 0


@pytest.mark.timeout(3600)
def test_kills_at_random_moments(cut: Runai, count: Callable[[int], int]) -> None:
    chance = random.Random(5)  # the same rounds each time
    actors = [*BY_THEMSELVES, *DAEMONS]
    before = host_mounts()
    rounds, failed = count(300), 0
    for number in range(rounds):
        actor = actors[number % len(actors)]
        failed += strike(cut, actor, chance)
        settle(cut, f"{number}, {actor}")
        if actor == actors[-1]:
            cut.engine.remove_containers()
            settle(cut, "all removed")
            for name in waiting(cut):  # as an administrator would, whom docker doesn't show it
                subprocess.run(["/usr/sbin/runc", "--root", root_of(cut, name), "delete", "--force", name], check=True)
            settle(cut, "none waits")
            assert grants(cut) == set()
    assert 0 < failed < rounds  # or no kill came in time, or each too early
    cut.engine.remove_containers()
    assert cut.run(*FILL, memory="1g", options=tools()).stdout == FILLED
    wait_for(lambda: grants(cut) == set() and agents(cut.state) == [])
    assert mounts_in(cut.engine) == [] and host_mounts() == before
    assert cut.simhost.used() == 0


def settle(runai: Runai, what: str) -> None:
    """See that the next create puts the ledger right: what docker has running is granted, and what is granted has a
    process. After the end of containerd that can be a container that waits for its start, which docker doesn't give any
    more. A create that comes while containerd or runc still clear up finds what they aren't done with.
    """
    for _ in range(30):
        runai.run("true")
        if grants(runai) - waiting(runai) == living(runai):
            return
        time.sleep(0.2)
    more = {name: status(runai, name) for name in grants(runai) - living(runai)}
    raise AssertionError(f"{what}: granted {more}, without {living(runai) - grants(runai)}")


def waiting(runai: Runai) -> set[str]:
    return {name for name in grants(runai) - living(runai) if status(runai, name) == "created"}


def status(runai: Runai, name: str) -> str:
    """What runc says of a container: created, running, paused, stopped; "" if it knows none."""
    with suppress(OSError, ValueError):
        command = ["/usr/sbin/runc", "--root", root_of(runai, name), "state", name]
        return str(json.loads(subprocess.run(command, capture_output=True, check=False).stdout)["status"])
    return ""


def root_of(runai: Runai, name: str) -> str:
    return str(json.loads((runai.state / name / "grant.json").read_text())["root"])
