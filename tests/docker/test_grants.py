"""The life of grants: one for each container that lives, and nothing of those that are gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.agents import agents, wait_for
from tests.docker.host import Container, Runai, grants_in, host_mounts, mounts_in

SHOWN = "0MiB /   3072MiB"
COUNTED = "--format={{.RestartCount}} {{.State.Status}}"


@pytest.fixture(autouse=True)
def leaves_nothing(runai: Runai) -> Iterator[None]:
    yield
    runai.engine.remove_containers()
    assert grants(runai) == set()


def grants(runai: Runai) -> set[str]:
    return set(grants_in(runai.state))


def living(runai: Runai) -> set[str]:
    """The containers that have a process, as docker has it."""
    states = [f"--filter=status={status}" for status in ("running", "paused", "restarting")]
    ids = runai.engine.docker("ps", "--quiet", "--no-trunc", *states).stdout.split()
    stopped = "{{if .State.Pid}}{{.Id}}{{end}}"
    return set(runai.engine.docker("inspect", f"--format={stopped}", *ids).stdout.split()) if ids else set()


def left(runai: Runai) -> dict[str, object]:
    """What a container could leave behind on the host. dockerd itself leaves a file in its netns folder for each, under
    runc too, which it clears by the minute.
    """
    place = runai.engine.place
    return {
        "grants": grants(runai),
        "files in the engine's state": sorted(
            str(path) for path in place.state.rglob("*") if path.parent.name != "netns"
        ),
        "agents": agents(runai.state),
        "processes": sorted(place.processes()),
        "mounts": (host_mounts(), mounts_in(runai.engine)),
        "memory": runai.simhost.used(),
    }


def descriptors(runai: Runai) -> int:
    return sum(len(list(Path(f"/proc/{runai.engine.pid(name)}/fd").iterdir())) for name in ("dockerd", "containerd"))


@pytest.mark.timeout(1800)
def test_one_after_another(runai: Runai, soak: bool) -> None:
    """All of them with a network namespace in soak, else one of four: that costs twice as much as the rest."""
    networked = runai.with_network()
    for host in (runai, networked):
        host.run("nvidia-smi")  # what the daemons open once
    before, opened = left(runai), descriptors(runai)
    for number in range(1000 if soak else 100):
        host = networked if soak or number % 4 == 0 else runai
        assert SHOWN in host.run("nvidia-smi").stdout
    wait_for(lambda: left(runai) == before)
    wait_for(lambda: descriptors(runai) <= opened + 10)  # dockerd's connections come and go


def test_whatever_docker_does_with_a_container(runai: Runai) -> None:
    ending = ("sh", "-c", "trap exit TERM; sleep 600 & wait")
    one, two = Container(runai, *ending), Container(runai, *ending)
    for command in (
        *("pause", "unpause", "restart --time=1", "update --memory=64m --memory-swap=64m", "update --restart=always"),
        *("update --restart=no", "stop --time=1", "start", "kill", "start", "rename {} other", "rm --force"),
    ):
        verb, *options = command.format(one.id).split()
        runai.engine.docker(verb, *options, *([] if verb == "rename" else [one.id]))
        wait_for(lambda: grants(runai) == living(runai))
        assert two.id in grants(runai), command
    assert grants(runai) == {two.id}
    assert SHOWN in two.execute("nvidia-smi")


def test_a_container_that_is_started_again_and_again(runai: Runai) -> None:
    container = Container(runai, "sh", "-c", "nvidia-smi; exit 1", options=("--restart=on-failure:3",))
    wait_until(runai, container, "3 exited\n")
    assert container.logs().count(SHOWN) == 4
    wait_for(lambda: grants(runai) == set())
    assert agents(runai.state) == []


def test_a_container_that_always_comes_back(runai: Runai) -> None:
    container = Container(runai, "sleep", "600", options=("--restart=always",))
    for count in (1, 2):
        os.kill(int((container.grant / "pid").read_text()), signal.SIGKILL)
        wait_until(runai, container, f"{count} running\n")
        assert grants(runai) == {container.id}
    assert SHOWN in container.execute("nvidia-smi")


def wait_until(runai: Runai, container: Container, state: str) -> None:
    wait_for(lambda: runai.engine.docker("inspect", COUNTED, container.id).stdout == state)
