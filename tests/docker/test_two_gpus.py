"""A host with two GPUs: which of them a container gets, and what on each."""

from __future__ import annotations

import pytest

from tests.docker.host import Runai, grants_in
from tests.programs.build import program

QUERY = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")


def shown(runai: Runai, memory: str, *options: str) -> list[str]:
    return runai.run(*QUERY, memory=memory, options=options).stdout.splitlines()


@pytest.mark.parametrize(
    ("memory", "gpus", "expected"),
    [
        ("5g", None, ["NVIDIA A, 5120 MiB"]),
        ("3g", None, ["NVIDIA B, 3072 MiB"]),
        ("0.5", "all", ["NVIDIA A, 4096 MiB", "NVIDIA B, 2048 MiB"]),
        ("0.5", "2", ["NVIDIA A, 4096 MiB", "NVIDIA B, 2048 MiB"]),
        ("50%", "device=1", ["NVIDIA B, 2048 MiB"]),
        ("1g", "0,1", ["NVIDIA A, 1024 MiB", "NVIDIA B, 1024 MiB"]),
    ],
)
def test_which_gpus(runai_two: Runai, memory: str, gpus: str | None, expected: list[str]) -> None:
    options = () if gpus is None else (f"--env=RUNAI_GPUS={gpus}",)
    assert shown(runai_two, memory, *options) == expected


def test_what_the_smaller_gpu_has_not(runai_two: Runai) -> None:
    done = runai_two.run(*QUERY, memory="5g", options=("--env=RUNAI_GPUS=all",), check=False)
    assert "GPU 1 has 4096 MiB" in done.stderr
    assert grants_in(runai_two.state) == []


def test_gpus_that_the_spec_grants(runai_two: Runai) -> None:
    """A node that the person gave, here a simulated one, decides; so does an NVIDIA image's `all` not."""
    nodes = [f"--volume={runai_two.simhost.dev}/{name}:/dev/{name}" for name in ("nvidiactl", "nvidia1")]
    assert shown(runai_two, "1g", *nodes, "--env=NVIDIA_VISIBLE_DEVICES=all") == ["NVIDIA B, 1024 MiB"]
    assert shown(runai_two, "5g", "--env=NVIDIA_VISIBLE_DEVICES=1") == ["NVIDIA A, 5120 MiB"]


def test_each_gpu_has_its_own_account(runai_two: Runai) -> None:
    cudash = f"--volume={program('cudash')}:/cudash:ro"
    commands = ("device 1", "ctx", "alloc 1500m", "total", "device 0", "ctx", "alloc 3g", "alloc 2g", "total")
    done = runai_two.run("/cudash", *commands, memory="0.5", options=(cudash, "--env=RUNAI_GPUS=all"))
    results = [line.split(" -> ")[1].split() for line in done.stdout.splitlines()]
    assert [result[1] for result in results] == [
        *("CUDA_SUCCESS", "CUDA_SUCCESS", "CUDA_SUCCESS", "CUDA_SUCCESS"),
        *("CUDA_SUCCESS", "CUDA_SUCCESS", "CUDA_SUCCESS", "CUDA_ERROR_OUT_OF_MEMORY", "CUDA_SUCCESS"),
    ]
    assert (results[3][2], results[8][2]) == (str(2 << 30), str(4 << 30))
