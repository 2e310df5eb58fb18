"""The ways of tests/programs/cudaways under a real engine and the agent, with libvgpu in the program and with a copy of
the driver's library that nothing covers. tests/gpu/test_ways.py has all of them on a real GPU.
"""

from __future__ import annotations

import re

import pytest

from tests.docker.host import Runai
from tests.programs.build import program

CUDAWAYS, PRIVATE = "/cudaways", "/private/libcuda.so.1"
SHARE = 1 << 30


def taken(runai: Runai, *command: str) -> list[tuple[int, str]]:
    """Bytes and the last error, of each process."""
    brought = (f"--volume={program('cudaways')}:{CUDAWAYS}:ro", f"--volume={runai.simhost.lib}:/private:ro")
    shown = runai.run(CUDAWAYS, *command, memory="1g", options=brought).stdout
    return [(int(got), error) for got, error in re.findall(r"^\S+ got (\d+) in \d+ last (\S+)$", shown, re.MULTILINE)]


@pytest.mark.parametrize("libvgpu", ["on", "off"])
@pytest.mark.parametrize("way", ["pitched", "own-pool", "mapped-handles", "array"])
def test_a_way_to_device_memory(runai_agent: Runai, way: str, libvgpu: str) -> None:
    library = ("-l", PRIVATE) if libvgpu == "off" else ()
    ((got, error),) = taken(runai_agent, *library, "-m", str(2 * SHARE), way)
    context = 160 << 20  # of the simulated GPU
    assert 0.95 * SHARE - context <= got <= SHARE - context
    assert error == "CUDA_ERROR_OUT_OF_MEMORY"


@pytest.mark.parametrize("libvgpu", ["on", "off"])
def test_processes_that_take_at_once(runai_agent: Runai, libvgpu: str) -> None:
    library = ("-l", PRIVATE) if libvgpu == "off" else ()
    # Each holds what it has until the last one has been refused.
    results = taken(runai_agent, *library, "-n", "4", "-s", "3", "linear")
    assert len(results) == 4
    assert sum(got for got, _ in results) <= SHARE
    assert {error for _, error in results} == {"CUDA_ERROR_OUT_OF_MEMORY"}


def test_the_private_copy_goes_around_libvgpu(runai: Runai) -> None:
    """Or the above would prove nothing: without an agent it gets more than the share."""
    ((got, _),) = taken(runai, "-l", PRIVATE, "-m", str(2 * SHARE), "linear")
    assert (got == 2 * SHARE) == (runai.config["enforcement"] == "interposer")
