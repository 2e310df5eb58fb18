"""The share of a running container, changed: what is held, what is shown and what is written follow at once."""

from __future__ import annotations

import json
import re

import pytest

from runai_runtime.host import Host
from runai_runtime.live import set_share
from tests.docker.host import CUDASH, Container, Runai
from tests.programs.build import program

MIB = 1 << 20
GIB = 1 << 30


@pytest.fixture(scope="module")
def tools() -> tuple[str, ...]:
    return (f"--volume={program('cudash')}:{CUDASH}:ro",)


def host_of(runai: Runai) -> Host:
    return Host("config.json", runai.config)


def total_shown(container: Container) -> int:
    shown = re.search(r"MiB / +(\d+)MiB", container.execute("nvidia-smi"))
    assert shown
    return int(shown[1])


class Held:
    """A process of CONTAINER that holds 1 GiB, and goes on with COMMANDS when it is let."""

    def __init__(self, container: Container, *commands: str) -> None:
        before = ("primary", "alloc 1g", "info", "hold")
        self.process = container.runai.engine.popen("exec", "-i", container.id, CUDASH, *before, *commands)
        assert self.process.stdout
        self.before = [self.process.stdout.readline() for _ in before]

    def go_on(self) -> list[str]:
        """What the commands say."""
        return self.process.communicate()[0].splitlines()


def test_a_running_process_gets_the_larger_share(runai_agent: Runai, tools: tuple[str, ...]) -> None:
    container = Container(runai_agent, "sleep", "60", memory="2g", options=tools)
    held = Held(container, "alloc 1500m", "info")
    assert held.before[2].endswith(f" {2 * GIB}\n")
    assert total_shown(container) == 2048
    used = set_share(host_of(runai_agent), container.id, "4g")
    assert GIB <= used[0] <= GIB + 600 * MIB
    assert total_shown(container) == 4096
    alloc, info = held.go_on()
    assert "CUDA_SUCCESS" in alloc
    assert info.endswith(f" {4 * GIB}")
    assert container.execute("cat", "/.runai/limits").split()[1] == str(4 * GIB)
    grant = json.loads((container.grant / "grant.json").read_text())
    assert [gpu["limit"] for gpu in grant["gpus"]] == [4 * GIB]


def test_below_what_is_used_takes_nothing_and_lets_nothing_in(runai_agent: Runai, tools: tuple[str, ...]) -> None:
    container = Container(runai_agent, "sleep", "60", memory="4g", options=tools)
    held = Held(container, "set 0", "alloc 2m", "info", "free 0", "alloc 256m")
    (used,) = set_share(host_of(runai_agent), container.id, "1g")
    assert used > GIB
    assert total_shown(container) == 1024
    assert "OUT_OF_MEMORY" in container.execute(CUDASH, "primary")
    written, refused, info, freed, again = held.go_on()
    assert "CUDA_SUCCESS" in written
    assert "CUDA_ERROR_OUT_OF_MEMORY" in refused
    assert info.endswith(f" 0 {GIB}")
    assert "CUDA_SUCCESS" in freed
    assert "CUDA_SUCCESS" in again
    assert "was ended" not in (container.grant / "agent.log").read_text()
