"""How long an agent lives: with its container, or until whoever was to make that is gone."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.programs.build import program
from tests.unit.agent.bounded import Container

FILLED = "15 allocations, 1006632960 bytes, status 0x51\n"
SECONDS = 10


def connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


def ends(container: Container) -> bool:
    assert container.agent
    container.is_bereft = True
    return container.agent.wait(SECONDS) == 0


def nobody(path: Path) -> None:
    """A runtime that was killed before it connected."""


def silent(path: Path) -> None:
    """One that was killed when it had connected."""
    connected(path).close()


def without_descriptors(path: Path) -> None:
    """One that was killed in its message, or that hands nothing over."""
    with connected(path) as connection:
        connection.sendall(b'{"ociVersion":')


def with_others(path: Path) -> None:
    """Descriptors, of which none is a listener."""
    with connected(path) as connection, open(os.devnull, "rb") as null:
        socket.send_fds(connection, [b"{}"], [null.fileno(), connection.fileno()])


@pytest.mark.parametrize("runtime", [nobody, silent, without_descriptors, with_others])
def test_it_ends_when_no_container_will_come(
    container_with: Callable[..., Container], runtime: Callable[[Path], None]
) -> None:
    assert ends(container_with(orphan=True, first=runtime))


def test_a_container_that_came_before_it(container_with: Callable[..., Container]) -> None:
    """Its runtime has handed everything over and ended by the time that the agent begins."""
    waiting: list[subprocess.Popen[str]] = []

    def run(path: Path) -> None:
        waiting.append(confined(path, host, "fill", "64"))
        time.sleep(0.1)

    host = container_with().host.dev
    container = container_with(orphan=True, first=run)
    assert waiting[0].communicate(timeout=SECONDS)[0] == FILLED
    assert ends(container)


def confined(path: Path, nodes: Path, *command: str) -> subprocess.Popen[str]:
    """A program under the filter, which hands its listener to the socket PATH."""
    words = [program("confine", "-static"), path, program("rawgpu", "-static"), "-d", nodes, *command]
    return subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE, text=True)


def test_a_listener_that_comes_long_after_its_connection(container: Container, tmp_path: Path) -> None:
    """As crun's does, where a container with no_new_privs is created and started later; others don't wait for it."""
    with connected(container.folder / "agent") as late, socket.socket(socket.AF_UNIX) as relay:
        relay.bind(str(tmp_path / "relay"))
        relay.listen()
        program = confined(tmp_path / "relay", container.host.dev, "fill", "64")
        with relay.accept()[0] as connection:
            text, descriptors, _, _ = socket.recv_fds(connection, 100, 1)
        assert container.run("fill", "64") == FILLED
        time.sleep(2.2)  # the agent once waited for 2 s
        socket.send_fds(late, [text], descriptors)
        assert program.communicate(timeout=SECONDS)[0] == FILLED
        os.close(descriptors[0])


def test_it_waits_as_long_as_a_runtime_is_connected(container_with: Callable[..., Container]) -> None:
    connections: list[socket.socket] = []
    container = container_with(orphan=True, first=lambda path: connections.append(connected(path)))
    assert container.agent
    with pytest.raises(subprocess.TimeoutExpired):
        container.agent.wait(0.5)
    connections[0].close()
    assert ends(container)


def test_a_long_message_is_read_to_its_end(container: Container) -> None:
    """A container's state has its annotations; whoever sends them can't go on while nobody reads."""
    with connected(container.folder / "agent") as connection:
        connection.settimeout(SECONDS)
        connection.sendall(bytes(1 << 20))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert container.run("fill", "64") == FILLED
