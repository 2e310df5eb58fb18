"""The agent under a real engine: the container's own ioctls are what is bounded."""

from __future__ import annotations

import json
import re

import pytest

from tests.docker.agents import agents, wait_for
from tests.docker.host import CUDASH, Container, Runai
from tests.programs.build import program

MIB = 1 << 20
GIB = 1 << 30
RAW = "/usr/local/bin/rawgpu"


@pytest.fixture(scope="module")
def tools() -> tuple[str, ...]:
    return (f"--volume={program('rawgpu', '-static')}:{RAW}:ro", f"--volume={program('cudash')}:{CUDASH}:ro")


@pytest.mark.parametrize("profile", ["default", "none"])
@pytest.mark.parametrize("way", ["fill", "highbits", "int80", "xfer"])
def test_a_static_program_that_only_makes_ioctls(
    runai_agent: Runai, tools: tuple[str, ...], way: str, profile: str
) -> None:
    unconfined = ("--security-opt=seccomp=unconfined",) if profile == "none" else ()
    answer = runai_agent.run(RAW, way, "64", memory="1g", options=(*tools, *unconfined)).stdout
    took = re.search(r"(\d+) bytes", answer)
    assert took
    assert int(took[1]) <= GIB
    assert way in ("int80", "xfer") or int(took[1]) >= 0.9 * GIB


def test_cuda_sees_a_plain_out_of_memory(runai_agent: Runai, tools: tuple[str, ...]) -> None:
    for fill in ("fill 2m", "fill 64m", "fillcreate 64m", "fillasync 64m"):
        answer = runai_agent.run(CUDASH, "primary", fill, "info", options=tools).stdout.splitlines()
        assert answer[1].split()[-2] == "CUDA_ERROR_OUT_OF_MEMORY" or "OUT_OF_MEMORY" in answer[1]


def test_nvidia_smi_shows_what_the_agent_counts(runai_agent: Runai, tools: tuple[str, ...]) -> None:
    container = Container(runai_agent, CUDASH, "primary", "alloc 512m", "sleep 60", memory="3g", options=tools)
    container.wait_for("alloc 512m")
    shown = container.execute("nvidia-smi")
    used = re.search(r"(\d+)MiB / +3072MiB", shown)
    assert used
    assert 512 <= int(used[1]) <= 512 + 256
    grant = json.loads((container.grant / "grant.json").read_text())
    assert grant["enforcement"]["by"] == "agent"


def test_an_exec_is_bounded_too(runai_agent: Runai, tools: tuple[str, ...]) -> None:
    container = Container(runai_agent, "sleep", "60", memory="1g", options=tools)
    answers = [container.execute(RAW, "fill", "64") for _ in range(3)]
    assert answers == ["15 allocations, 1006632960 bytes, status 0x51\n"] * 3


def test_the_agent_ends_with_its_container(runai_agent: Runai, tools: tuple[str, ...]) -> None:
    container = Container(runai_agent, "sleep", "60", memory="1g", options=tools)
    assert len(agents(container.grant)) == 1
    runai_agent.engine.docker("rm", "-f", container.id)
    wait_for(lambda: agents(container.grant) == [])
    assert not container.grant.exists()
