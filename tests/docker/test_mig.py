"""Instances of GPUs (MIG) as devices: a GPU in parts beside a whole one, on a simulated driver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from runai_runtime.configure import configure
from tests.docker.engine import Engine
from tests.docker.host import Container, Runai, configuration, grants_in
from tests.programs.build import program
from tests.simgpu.host import SimHost

GIB = 1 << 30
PARTS = [{"profile": "1g.10gb", "memory_mib": 9984}, {"profile": "3g.40gb", "memory_mib": 40448, "gpu_instance": 2}]
GPUS = [
    {"name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "reserved_mib": 480, "mig": PARTS},
    {"name": "NVIDIA L40", "memory_mib": 4096},
]
INSIDE = "/usr/local/bin"


@pytest.fixture(scope="module")
def runai_mig(folder: Path, engine: Engine) -> Iterator[Runai]:
    with SimHost(folder / "m/gpu-host", {"gpus": GPUS}) as host:
        config = configuration(folder / "m", host)
        program = folder / "m/runai-runtime"
        configure(config, folder / "m/config.json", program)
        yield Runai(engine, host, config, program, "runai-mig")


def cudash() -> str:
    return f"--volume={program('cudash')}:{INSIDE}/cudash:ro"


def nvmlsh() -> str:
    return f"--volume={program('nvmlsh')}:{INSIDE}/nvmlsh:ro"


def gpus(names: str) -> str:
    return f"--env=RUNAI_GPUS={names}"


def uuids(runai: Runai) -> list[str]:
    return [part.uuid for part in runai.simhost.host.instances]


def listed(runai: Runai, *options: str, memory: str = "2g") -> list[str]:
    """The profiles and GPUs that nvidia-smi -L names in a container."""
    lines = runai.run("nvidia-smi", "-L", memory=memory, options=options).stdout.splitlines()
    return [line.split(" Device")[0].split(" (UUID")[0].strip() for line in lines]


def test_an_instance_with_a_share(runai_mig: Runai) -> None:
    """What nvidia-smi, NVML and CUDA show of an instance is the share, and more than that is not to be had."""
    uuid = uuids(runai_mig)[1]
    script = "nvidia-smi -L; nvidia-smi; cudash uuid total ctx info 'alloc 1g' 'alloc 1g' 'alloc 500m'"
    done = runai_mig.run("sh", "-c", script, memory="2g", options=(cudash(), gpus("0:1")))
    assert f"  MIG 3g.40gb     Device  0: (UUID: {uuid})" in done.stdout
    assert "0MiB /   2048MiB" in done.stdout
    assert not {"81559MiB", "40448MiB"} & set(done.stdout.split())
    results = [line.split(" -> ")[1] for line in done.stdout.splitlines() if " -> " in line]
    assert results[1] == f"0 CUDA_SUCCESS {2 * GIB}"
    assert results[4:] == ["0 CUDA_SUCCESS 0", "2 CUDA_ERROR_OUT_OF_MEMORY", "0 CUDA_SUCCESS 1"]
