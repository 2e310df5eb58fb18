"""Memory of a container that keeps the agent waiting: the wait ends, and so does who may take memory meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simgpu.host import SimHost
from tests.unit.agent.bounded import MIB, Container, wait_for

FILLED = "15 allocations, 1006632960 bytes, status 0x51\n"
SECONDS = 30


def ended_by_the_agent(program: subprocess.Popen[str]) -> bool:
    return program.wait(SECONDS) == -signal.SIGKILL


def holding(container: Container) -> subprocess.Popen[str]:
    program = container.start("hold", "64")
    assert program.stdout and program.stdout.readline() == "ready\n"
    return program


def test_a_page_that_nobody_fills(container: Container, host: SimHost) -> None:
    """Its process is ended; at once another, with which those go that may have taken memory."""
    neighbour = holding(container)
    assert ended_by_the_agent(container.start("blockpage", "own", traces=True))
    assert "was ended: its memory kept the agent waiting" in container.log()
    assert container.run("fill", "64") == f"14 allocations, {14 * 64 * MIB} bytes, status 0x51\n"
    assert neighbour.poll() is None
    assert ended_by_the_agent(container.start("blockpage", "own", traces=True))
    assert ended_by_the_agent(neighbour)
    assert container.run("fill", "64") == FILLED
    wait_for(lambda: host.used() == 0)


def test_what_any_container_may_do_with_userfaultfd(container: Container) -> None:
    """One for user mode only doesn't keep the agent: the call fails as with a bad address."""
    assert container.run("blockpage", "user") == "answered\n"
    assert container.log() == ""


def test_who_took_memory_meanwhile_is_ended_too(container: Container, host: SimHost) -> None:
    """Another process holds the userfaultfd, so that the agent waits on."""
    taker = holding(container)
    assert ended_by_the_agent(container.start("blockpage", "shared", traces=True))
    assert ended_by_the_agent(taker)
    assert container.agent and container.agent.wait(SECONDS) == 1
    assert "all processes that asked for device memory were ended" in container.log()
    wait_for(lambda: host.used() == 0)
    container.is_bereft = True


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """A file that never comes."""
    folder = tmp_path / "silent"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-m", "tests.unit.agent.silent", folder]) as server:
        wait_for(folder.is_mount)
        yield folder / "file"
        server.kill()
    subprocess.run(["/usr/bin/fusermount3", "-u", "-z", folder], check=True)


def test_a_file_that_never_comes(container: Container, silent: Path) -> None:
    """No end of a process ends that wait: the container goes without its agent."""
    assert ended_by_the_agent(container.start("blockfile", str(silent)))
    assert container.agent and container.agent.wait(SECONDS) == 1
    assert container.log().count("\n") == 3
    container.is_bereft = True


def stop_answers(silent: Path) -> None:
    """From now on that file system says nothing at all, and what the kernel knew of the file it has forgotten."""
    subprocess.run(["/bin/sh", "-c", 'exec cat "$1" > /dev/null 2>&1 &', "sh", silent], check=True)
    time.sleep(1.5)  # a file's attributes are good for a second


def test_a_mapping_of_a_file_of_which_nothing_is_said(container: Container, silent: Path) -> None:
    """It looks like managed memory, so the agent finds out which file it is."""
    program = container.start("decoy", str(silent), "64")
    assert program.stdout and program.stdout.readline() == "ready\n"
    stop_answers(silent)
    for _ in range(3):
        assert container.run("fill", "64", seconds=SECONDS) == FILLED
        time.sleep(1)
    assert program.poll() is None
    assert container.log() == ""


def test_an_exec_that_isnt_done(container: Container, silent: Path) -> None:
    """Nobody may look at a process while that closes its files."""
    program = container.start("blockexec", str(silent))
    assert program.stdout and program.stdout.readline() == "ready\n" and program.stdin
    stop_answers(silent)
    program.stdin.close()
    assert container.agent and container.agent.wait(SECONDS) == 1
    assert container.log().count("\n") == 3
    container.is_bereft = True
