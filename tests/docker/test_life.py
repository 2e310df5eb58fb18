"""What docker does to a container in its life, and after each step: the ledger is exactly the containers that run."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runai_runtime.host import Host
from runai_runtime.ledger import read_ledger
from tests.docker import images
from tests.docker.agents import FILL, FILLED, agent_of, agents, tools, wait_for
from tests.docker.engine import Engine, EngineError
from tests.docker.host import CUDASH, Container, Runai, configuration, grants_in, mounts_in
from tests.simgpu.host import SimHost

SLEEP = ("sleep", "600")


@pytest.fixture(scope="module")
def lasting(folder: Path, simhost: SimHost) -> Iterator[Runai]:
    """An engine with live-restore: containers outlive dockerd. The state lies on a disk, as a boot would find it."""
    home = folder / "l"
    with Engine({"runai": home / "runai-runtime"}, live_restore=True) as engine:
        config = configuration(home, simhost) | {"enforcement": "agent"}
        images.load(engine, images.BUSYBOX)
        yield Runai.configured(engine, simhost, config, home)


@pytest.fixture(autouse=True)
def leaves_nothing(lasting: Runai) -> Iterator[None]:
    yield
    lasting.engine.remove_containers()
    exact(lasting)
    assert lasting.simhost.used() == 0
    assert mounts_in(lasting.engine) == []


def exact(runai: Runai) -> None:
    """Files, sums and agents are those of the containers that have a process."""
    states = [f"--filter=status={status}" for status in ("running", "paused", "restarting")]
    ids = runai.engine.docker("ps", "--quiet", "--no-trunc", *states).stdout.split()
    form = "--format={{if .State.Pid}}{{.Id}}{{end}}"
    running = sorted(runai.engine.docker("inspect", form, *ids).stdout.split()) if ids else []
    assert grants_in(runai.state) == running
    holders = read_ledger(Host("config.json", runai.config)).holders
    assert sorted(name for held in holders.values() for name in held) == running
    wait_for(lambda: len(agents(runai.state)) == len(running))


def held_by(container: Container) -> None:
    """Its share is shown and kept, in what is started now."""
    assert "1024MiB" in container.execute("nvidia-smi")
    assert container.execute(*FILL) == FILLED


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "ended"])
def test_live_restore(lasting: Runai, kill: bool) -> None:
    one = Container(lasting, *SLEEP, memory="1g", options=tools())
    two = Container(lasting, "sh", "-c", "trap exit TERM; sleep 600 & wait", memory="1g", options=tools())
    agent = agent_of(one)
    if kill:
        lasting.engine.kill_dockerd()
        assert sorted(grants_in(lasting.state)) == sorted([one.id, two.id]), "without dockerd"
    lasting.engine.restart_dockerd()
    exact(lasting)
    assert agent_of(one) == agent
    held_by(one)
    lasting.engine.docker("stop", "--time=5", two.id)
    exact(lasting)
    lasting.engine.docker("start", two.id)
    held_by(two)
    exact(lasting)


def test_a_container_that_ends_without_dockerd(lasting: Runai) -> None:
    """Its grant comes back when dockerd sees to it, or at the next create."""
    one = Container(lasting, *SLEEP, memory="1g", options=tools())
    stays = Container(lasting, *SLEEP, memory="1g", options=tools())
    first = int((one.grant / "pid").read_text())
    lasting.engine.kill_dockerd()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{first}").exists())
    lasting.engine.restart_dockerd()
    wait_for(lambda: grants_in(lasting.state) == [stays.id])
    exact(lasting)


def test_pause(lasting: Runai) -> None:
    """A paused container keeps its grant and what it holds, and nobody gets that."""
    one = Container(lasting, CUDASH, "primary", "alloc 700m", "hold", memory="1g", options=("-i", *tools()))
    one.wait_for("alloc 700m")
    lasting.engine.docker("pause", one.id)
    exact(lasting)
    with pytest.raises(EngineError, match=rf"{one.id[:12]}: 1024 MiB"):
        Container(lasting, "true", memory="1")
    lasting.engine.docker("unpause", one.id)
    assert lasting.simhost.used() > 700 << 20
    exact(lasting)


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure:2"])
def test_a_restart_policy(lasting: Runai, policy: str) -> None:
    """Each start asks anew. Between two of them there is no process, and no grant."""
    one = Container(lasting, "sh", "-c", "nvidia-smi; exit 7", memory="1g", options=(f"--restart={policy}",))
    wait_for(lambda: one.logs().count("1024MiB") >= 3)
    if policy == "on-failure:2":
        lasting.engine.docker("wait", one.id)
        assert one.logs().count("1024MiB") == 3
    else:
        lasting.engine.docker("stop", "--time=1", one.id)
    exact(lasting)


def test_a_restart_that_finds_no_room(lasting: Runai) -> None:
    """Who came meanwhile has it; the sentence stands in the container's state, and the policy tries no more."""
    one = Container(lasting, "sh", "-c", "nvidia-smi; sleep 600", memory="1", options=("--restart=always",))
    one.wait_for("MiB /")
    lasting.engine.docker("stop", "--time=0", one.id)
    two = Container(lasting, *SLEEP, memory="1g")
    with pytest.raises(EngineError, match=rf"runai: GPU 0 has 9901 MiB free of 10925 MiB \({two.id[:12]}: 1024 MiB\)"):
        lasting.engine.docker("start", one.id)
    exact(lasting)
    lasting.engine.docker("rm", "--force", two.id)
    lasting.engine.docker("start", one.id)
    exact(lasting)


def test_update_and_restart(lasting: Runai) -> None:
    one = Container(lasting, *SLEEP, memory="1g", options=tools())
    for command in ("update --memory=128m --memory-swap=128m", "update --cpus=0.5", "restart --time=0", "rename"):
        lasting.engine.docker(*command.split(), one.id, *(["another"] if command == "rename" else []))
        exact(lasting)
        held_by(one)


@pytest.mark.parametrize(
    ("options", "command", "said"),
    [
        (("--volume=/dev/null:/usr/lib",), ("true",), "error mounting"),
        (("--ulimit=nofile=2000000000:2000000000",), ("true",), "error setting rlimit"),
        ((), ("no-such-program",), "executable file not found"),
    ],
    ids=["before the hooks", "after them", "at the program"],
)
def test_a_create_that_fails_behind_us(
    lasting: Runai, options: tuple[str, ...], command: tuple[str, ...], said: str
) -> None:
    stays = Container(lasting, *SLEEP, memory="1g")
    done = lasting.run(*command, memory="1g", options=options, check=False)
    assert done.returncode in (125, 126, 127), done.stderr
    assert re.search(said, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert grants_in(lasting.state) == [stays.id]
    exact(lasting)


def test_another_boot(lasting: Runai) -> None:
    """The state as a host finds it that went down with its containers: nothing of it counts."""
    one = Container(lasting, *SLEEP, memory="1")
    grant = json.loads((one.grant / "grant.json").read_text())
    old = lasting.state / ("0" * 64)
    old.mkdir(mode=0o711)
    creator = grant["creator"] | {"boot": "00000000-0000-0000-0000-000000000000"}
    root = Path(grant["root"]) / old.name
    root.mkdir()  # a runtime's root on a disk
    try:
        (old / "grant.json").write_text(json.dumps(grant | {"id": old.name, "creator": creator}))
        lasting.engine.docker("rm", "--force", one.id)
        assert "10989MiB" in lasting.run("nvidia-smi", memory="1").stdout
        assert grants_in(lasting.state) == []
    finally:
        root.rmdir()
