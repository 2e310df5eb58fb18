"""The frameworks that people run, each with a share: they compute, and get their own out-of-memory error at the share.

What the device gave, read by NVML outside every few milliseconds, is the share at most.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.host import MIB, GpuHost
from tests.gpu.watch import Watch

pytestmark = pytest.mark.may_skip("needs an NVIDIA GPU")

PROGRAMS = Path(__file__).with_name("programs")
SHARE = 3 << 30


def run(host: GpuHost, name: str, *environment: str) -> dict[str, Any]:
    """A program's results, with what the device gave at most."""
    package = name.partition("_")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} isn't installed")
    watch = Watch(host)
    options = [f"--env={pair}" for pair in environment]
    with watch.watching():
        done = host.python("3g", PROGRAMS / f"{name}.py", options=options, check=False)
    assert "RESULT " in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    values: dict[str, Any] = json.loads(done.stdout.partition("RESULT ")[2].splitlines()[0])
    values["given_mib"] = watch.most / MIB
    print(name, *environment, values)
    assert watch.most <= SHARE
    return values


@pytest.mark.parametrize("allocator", ["", "expandable_segments:True", "backend:cudaMallocAsync"])
def test_pytorch(gpu_host: GpuHost, allocator: str) -> None:
    values = run(gpu_host, "torch_train", f"PYTORCH_CUDA_ALLOC_CONF={allocator}")
    assert values["error"] == "OutOfMemoryError"
    assert values["learned"]
    assert values["again_mib"] >= values["got_mib"] - 300
    # The rest is the context, modules, workspaces and the network. (The device's peak may fall between two looks.)
    assert values["got_mib"] >= 2000
    assert values["backend"] == ("cudaMallocAsync" if "Async" in allocator else "native")


def test_jax(gpu_host: GpuHost) -> None:
    values = run(gpu_host, "jax_share")
    assert values["platform"] == "gpu"
    assert values["product"] == 1024
    assert "RESOURCE_EXHAUSTED" in values["error"]


def test_jax_without_preallocation(gpu_host: GpuHost) -> None:
    values = run(gpu_host, "jax_share", "XLA_PYTHON_CLIENT_PREALLOCATE=false")
    assert "RESOURCE_EXHAUSTED" in values["error"]


def test_cupy(gpu_host: GpuHost) -> None:
    values = run(gpu_host, "cupy_share")
    assert (values["total"], values["computed"], values["error"]) == (SHARE, 2000, "OutOfMemoryError")
    assert values["got_mib"] >= 2400


def test_numba(gpu_host: GpuHost) -> None:
    values = run(gpu_host, "numba_share")
    assert (values["total"], values["computed"]) == (SHARE, 1000)
    assert "OUT_OF_MEMORY" in values["error"]
