"""Managed memory beside an agent: charged by libvgpu, and bounded by what the kernel has mapped."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.docker.agents import FILL, FILLED, RAW, tools, used, wait_for
from tests.docker.host import CUDASH, Container, Runai
from tests.unit.agent.test_rules import watched

MIB = 1 << 20
GIB = 1 << 30
KILLED = 128 + 9


@pytest.fixture
def container(runai_agent: Runai) -> Iterator[Container]:
    container = Container(runai_agent, "sleep", "600", memory="1g", options=tools())
    yield container
    runai_agent.engine.docker("rm", "-f", container.id)
    wait_for(lambda: runai_agent.simhost.used() == 0)


def start(container: Container, *command: str) -> subprocess.Popen[str]:
    """A program of the container that takes what it can and then waits: with its first two lines read."""
    program = container.runai.engine.popen("exec", "-i", container.id, *command)
    assert program.stdout is not None
    assert "SUCCESS" in program.stdout.readline()
    assert program.stdout.readline()
    return program


def shown(container: Container) -> int:
    """MiB that nvidia-smi has as used."""
    found = re.search(r"(\d+)MiB / +1024MiB", container.execute("nvidia-smi"))
    assert found
    return int(found[1])


def test_a_killed_process_leaves_none(container: Container) -> None:
    with start(container, CUDASH, "primary", "managed 512m", "hold") as program:
        wait_for(lambda: used(container) >= 512 * MIB)
        assert shown(container) >= 512
        container.execute("killall", "-9", "cudash")
        program.wait()
        wait_for(lambda: used(container) == 0)
        assert shown(container) == 0


def test_an_honest_program_keeps_its_own_and_a_thief_is_ended(container: Container) -> None:
    with start(container, CUDASH, "primary", "fillmanaged 64m", "hold") as honest:
        wait_for(lambda: used(container) > GIB - 64 * MIB)  # the agent has seen all of it
        before = used(container)
        with container.runai.engine.popen("exec", "-i", container.id, RAW, "-w", "managed", "64") as thief:
            assert thief.wait(30) == KILLED
        wait_for(lambda: used(container) == before)
        assert honest.poll() is None
        assert (container.grant / "agent.log").read_text().count("was ended") == 1
        honest.communicate("")


def test_all_of_a_share_as_managed_memory(container: Container) -> None:
    """Taken and given back up to the share again and again, while the agent looks at it some times: nobody is ended."""
    script = f'while :; do {CUDASH} primary "fillmanaged 16m" || exit; done'
    with watched(container.runai.simhost) as watch:
        container.runai.engine.docker("exec", container.id, "timeout", "4", "sh", "-c", script, check=False)
    assert 0.8 * GIB <= watch.most <= GIB
    assert (container.grant / "agent.log").read_text() == ""


@pytest.mark.parametrize("way", ["orphanmanaged", "sharedmanaged"])
def test_a_process_that_never_asked_the_driver_is_found(container: Container, way: str) -> None:
    """What asked has ended, and nothing but the container's cgroup tells of the other."""
    container.execute(RAW, way, "64")
    log = container.grant / "agent.log"
    wait_for(lambda: log.exists() and "was ended" in log.read_text())
    wait_for(lambda: container.runai.simhost.used() == 0 and used(container) == 0)
    assert FILLED in container.execute(*FILL)


def test_without_the_agent_it_is_not(runai_interposer: Runai) -> None:
    container = Container(runai_interposer, "sleep", "600", memory="1g", options=tools())
    container.execute(RAW, "orphanmanaged", "64")
    wait_for(lambda: runai_interposer.simhost.used() > 2 * GIB)


def test_an_address_space_of_two_processes_counts_once(container: Container) -> None:
    with container.runai.engine.popen("exec", "-i", container.id, RAW, "twinmanaged", "700") as twins:
        assert twins.stdout and twins.stdout.readline() == "ready\n"
        wait_for(lambda: used(container) >= 700 * MIB)
        with container.runai.engine.popen("exec", "-i", container.id, RAW, "-w", "managed", "64") as thief:
            assert thief.wait(30) == KILLED  # by then all were looked at more than once
        wait_for(lambda: used(container) < 710 * MIB)
        assert twins.poll() is None
        container.execute("killall", "-9", "rawgpu")
        twins.communicate()
