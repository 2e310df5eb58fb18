"""What may die beside an agent, and the agent itself: its container is bounded all the while, others don't notice."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runai_runtime.configure import configure
from tests.docker import images
from tests.docker.agents import FILL, FILLED, RAW, agent_of, agents, tools, used, wait_for
from tests.docker.engine import Engine
from tests.docker.host import CUDASH, Container, Runai, configuration, grants_in
from tests.simgpu.host import SimHost

MIB = 1 << 20
GIB = 1 << 30
ENOSYS = 38


@pytest.fixture(autouse=True)
def leaves_nothing(runai_agent: Runai) -> Iterator[None]:
    yield
    runai_agent.engine.remove_containers()
    wait_for(lambda: agents(runai_agent.state) == [])
    assert grants_in(runai_agent.state) == []


@contextlib.contextmanager
def talked_to(runai: Runai, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A docker command with pipes."""
    with runai.engine.popen(*arguments) as running:
        yield running
        running.kill()


# ---- the agent ---------------------------------------------------------------------------------------------------


def test_without_its_agent_a_container_gets_no_more_memory(runai_agent: Runai) -> None:
    script = f'{CUDASH} primary "alloc 256m" hold "alloc 64m" "fill 64m"; {" ".join(FILL)} 2>&1'
    arguments = runai_agent.arguments("--interactive", "--name=bereft", *tools(), memory="1g")
    neighbour = Container(runai_agent, "sleep", "600", memory="1g", options=tools())
    with talked_to(runai_agent, "run", *arguments, images.BUSYBOX, "sh", "-c", script) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(3)]
        assert "CUDA_SUCCESS" in lines[1]
        ident = runai_agent.engine.docker("inspect", "--format={{.Id}}", "bereft").stdout.strip()
        (agent,) = agents(runai_agent.state / ident)
        taken = runai_agent.simhost.used()
        os.kill(agent, signal.SIGKILL)
        wait_for(lambda: agents(runai_agent.state / ident) == [])
        refused = runai_agent.engine.docker("exec", ident, "true", check=False)
        assert refused.returncode != 0 and "/agent: connect: connection refused" in refused.stdout + refused.stderr
        assert neighbour.execute(*FILL) == FILLED
        wait_for(lambda: runai_agent.simhost.used() == taken)
        rest, _ = running.communicate("")
    one, fill, raw = rest.splitlines()
    assert "CUDA_SUCCESS" not in one and "CUDA_ERROR" in one
    assert "CUDA_ERROR" in fill and fill.endswith(" 0")
    assert raw == f"rawgpu: a client and a device: errno {ENOSYS}"
    runai_agent.engine.docker("rm", "-f", "bereft")
    assert not (runai_agent.state / ident).exists()
    assert neighbour.execute(*FILL) == FILLED


# ---- processes in a container ------------------------------------------------------------------------------------

KILLS = """
i=0
while [ $i -lt $0 ]; do
    case $((i % 3)) in
    0) rawgpu pairs 100000000 64 & ;;
    1) rawgpu threads 32 1 >/dev/null & ;;
    2) cudash primary "pairs 64m 100000000" >/dev/null & ;;
    esac
    usleep $((i * 7919 % 90000))
    kill -9 $!
    wait $!
    i=$((i + 1))
done
"""


def test_a_process_killed_in_the_middle(runai_agent: Runai, count: Callable[[int], int]) -> None:
    container = Container(runai_agent, "sleep", "600", memory="2g", options=tools())
    with talked_to(runai_agent, "exec", "-i", container.id, RAW, "hold", "256") as holding:
        assert holding.stdout is not None
        assert holding.stdout.readline() == "ready\n"
        before, really = used(container), runai_agent.simhost.used()
        assert before >= 256 * MIB
        runai_agent.engine.docker("exec", container.id, "sh", "-c", KILLS, str(count(1000)), timeout=900)
        wait_for(lambda: used(container) == before)
        assert runai_agent.simhost.used() == really
        holding.communicate("")
    wait_for(lambda: used(container) == 0)
    assert runai_agent.simhost.used() == 0


def test_a_child_of_a_cuda_program_is_bounded_as_well(runai_agent: Runai) -> None:
    commands = (
        "fork 2",
        "primary",
        "fill 64m",
        "wait",
        "primary",
        "alloc 256m",
        "fork 1",
        "fill 64m",
        "wait",
        "fill 64m",
    )
    lines = runai_agent.run(CUDASH, *commands, memory="1g", options=tools()).stdout.splitlines()
    filled = [line for line in lines if line.startswith("fill 64m -> ")]
    assert all("CUDA_SUCCESS" not in line for line in filled)
    amounts = [int(line.split()[-1]) for line in filled]
    assert len(filled) == 3 and max(amounts) <= GIB
    assert amounts[0] >= 0.7 * GIB and amounts[1] == 0  # CUDA is of no use after a fork
    assert runai_agent.simhost.used() == 0


def test_memory_that_keeps_the_agent_waiting(runai_agent: Runai) -> None:
    """Its process is ended, and the others of the container are served again."""
    block = f"{RAW} blockpage own; echo $?"
    done = runai_agent.run("sh", "-c", block, memory="1g", options=tools())
    assert done.stdout == "1\n" and "userfaultfd" in done.stderr  # as docker starts containers, it isn't to be had
    loose = ("--cap-add=SYS_PTRACE", "--security-opt=seccomp=unconfined")
    container = Container(runai_agent, "sleep", "600", memory="1g", options=(*tools(), *loose))
    assert container.execute("sh", "-c", block) == "137\n"
    assert container.execute(*FILL) == FILLED
    assert "its memory kept the agent waiting" in (container.grant / "agent.log").read_text()


def test_an_exec_of_a_shell(runai_agent: Runai) -> None:
    command = ("sh", "-c", f"exec {' '.join(FILL)}")
    assert runai_agent.run(*command, memory="1g", options=tools()).stdout == FILLED
    container = Container(runai_agent, "sleep", "600", memory="1g", options=tools())
    assert container.execute(*command) == FILLED


# ---- many --------------------------------------------------------------------------------------------------------

MANY = 32
SHARE = 300 * MIB


def test_many_containers_at_once(runai_agent: Runai) -> None:
    command = ("sh", "-c", f"sleep 600 | {RAW} -w fill 2")

    def start(_: int) -> Container:
        return Container(runai_agent, *command, memory=str(SHARE), options=tools())

    with ThreadPoolExecutor(8) as pool:
        containers = list(pool.map(start, range(MANY)))
        logs = list(pool.map(lambda container: container.wait_for("status"), containers))
    amounts = [int(found[1]) for found in (re.search(r"(\d+) bytes, status 0x51", log) for log in logs) if found]
    assert len(amounts) == MANY and len(set(amounts)) == 1
    assert 0.8 * SHARE <= amounts[0] <= SHARE
    processes = runai_agent.simhost.processes()
    assert len(processes) == MANY and max(processes.values()) <= SHARE
    assert all(used(container) <= SHARE for container in containers)
    assert len({agent_of(container) for container in containers}) == MANY
    runai_agent.engine.remove_containers()
    wait_for(lambda: agents(runai_agent.state) == [])
    assert runai_agent.simhost.used() == 0


# ---- dockerd -----------------------------------------------------------------------------------------------------


def started(folder: Path, simhost: SimHost, name: str, *, live_restore: bool) -> Runai:
    """An engine of its own, started, for a dockerd that is going to be killed."""
    home = folder / name
    registered = home / "runai-runtime"
    config = configuration(home, simhost) | {"enforcement": "agent"}
    engine = Engine({"runai": registered}, live_restore=live_restore)
    engine.start()
    try:
        configure(config, home / "config.json", registered)
        images.load(engine)
    except BaseException:
        engine.stop()
        raise
    return Runai(engine, simhost, config, registered)


def test_dockerd_killed_under_live_restore(folder: Path, simhost: SimHost) -> None:
    runai = started(folder, simhost, "l", live_restore=True)
    try:
        script = f"mkfifo /tmp/go; read x </tmp/go; {' '.join(FILL)} >/tmp/filled; sleep 600"
        container = Container(runai, "sh", "-c", script, memory="1g", options=tools())
        agent = agent_of(container)
        runai.engine.kill_dockerd()
        assert agent_of(container) == agent
        runai.engine.restart_dockerd()
        assert agent_of(container) == agent
        assert container.execute(*FILL) == FILLED
        container.execute("sh", "-c", "echo >/tmp/go; until grep -q status /tmp/filled; do usleep 20000; done")
        assert container.execute("cat", "/tmp/filled") == FILLED
        runai.engine.docker("rm", "-f", container.id)
        wait_for(lambda: agents(runai.state) == [])
        assert not container.grant.exists()
    finally:
        runai.engine.stop()


def test_dockerd_killed_without_live_restore(folder: Path, simhost: SimHost) -> None:
    runai = started(folder, simhost, "k", live_restore=False)
    try:
        ending = ("sh", "-c", "trap exit TERM; sleep 600 & wait")  # dockerd waits 10 s for one that doesn't
        container = Container(runai, *ending, memory="1g", options=tools())
        agent = agent_of(container)
        runai.engine.kill_dockerd()
        assert agent_of(container) == agent
        runai.engine.restart_dockerd()
        assert runai.engine.docker("inspect", "--format={{.State.Running}}", container.id).stdout == "false\n"
        wait_for(lambda: agents(runai.state) == [])
        assert runai.run(*FILL, memory="1g", options=tools()).stdout == FILLED
        assert not container.grant.exists()
    finally:
        runai.engine.stop()
