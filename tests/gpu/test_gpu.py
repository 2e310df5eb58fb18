"""A real GPU: what a container with a share sees, what it gets, and what the device gave, read by NVML outside."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from tests.gpu.host import CUDASH, MIB, GpuHost

pytestmark = pytest.mark.may_skip("needs an NVIDIA GPU")

GIB = 1 << 30
TORCH = Path(__file__).with_name("programs") / "torch_share.py"

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch isn't installed")


def test_nvidia_smi_shows_the_share(gpu_host: GpuHost) -> None:
    shown = gpu_host.run(gpu_host.share("3g"), "nvidia-smi").stdout
    print(shown)
    assert re.search(r"\b0MiB / +3072MiB", shown)
    part = gpu_host.run(gpu_host.share("0.3"), "nvidia-smi").stdout
    total = int(gpu_host.inventory.gpus[0].total * 3 // 10) // MIB
    assert re.search(rf"\b0MiB / +{total}MiB", part)


def test_a_context_is_measured(gpu_host: GpuHost) -> None:
    """What configure measured is what the device gives for a bare context, to within a few blocks."""
    before = gpu_host.used()
    with gpu_host.background(gpu_host.share("3g"), CUDASH, "primary", "info", "sleep 30") as container:
        info = gpu_host.wait_for(container, "info").splitlines()[1].split()
        given = gpu_host.used() - before
    known = gpu_host.inventory.gpus[0].context
    free, total = map(int, info[-2:])
    print(f"context: known {known / MIB} MiB, given {given / MIB} MiB, shown {(total - free) / MIB} MiB")
    assert abs(given - known) <= 8 * MIB
    assert abs((total - free) - given) <= 8 * MIB


@pytest.mark.parametrize("call", ["fill 2m", "fill 64m", "fillcreate 64m", "fillasync 64m"])
def test_what_the_device_gave(gpu_host: GpuHost, call: str) -> None:
    before = gpu_host.used()
    with gpu_host.background(gpu_host.share("3g"), CUDASH, "primary", call, "sleep 60") as container:
        result = gpu_host.wait_for(container, call).partition(f"{call} -> ")[2].split()
        given = gpu_host.used() - before
    print(f"{call}: got {int(result[2]) // MIB} MiB, the device gave {given / MIB} of 3072 MiB")
    assert result[1] == "CUDA_ERROR_OUT_OF_MEMORY"
    assert 0.97 * 3 * GIB <= given <= 3 * GIB


def test_two_containers_side_by_side(gpu_host: GpuHost) -> None:
    before = gpu_host.used()
    first = gpu_host.background(gpu_host.share("3g"), CUDASH, "primary", "fill 64m", "sleep 60")
    second = gpu_host.background(gpu_host.share("5g"), CUDASH, "primary", "fill 64m", "set 0", "sync", "sleep 60")
    with first as one, second as other:
        gpu_host.wait_for(one, "fill 64m ->")
        assert "sync -> 0" in gpu_host.wait_for(other, "sync ->")
        given = gpu_host.used() - before
        shown = gpu_host.engine.docker("exec", one, "nvidia-smi").stdout
    print(f"two containers: the device gave {given / MIB} of {8 * 1024} MiB")
    assert 0.97 * 8 * GIB <= given <= 8 * GIB
    assert re.search(r"\b(2[89]|30)\d\dMiB / +3072MiB", shown)


def test_a_driver_that_came_with_devices_and_mounts(gpu_host: GpuHost) -> None:
    """As CDI puts one in: the spec has the device nodes, and the driver's libraries as mounts."""
    shared = gpu_host.share("3g")
    brought = [o for o in gpu_host.native() if o not in shared and not o.startswith(("--runtime", "--network"))]
    options = [*shared, *brought]
    assert re.search(r"\b0MiB / +3072MiB", gpu_host.run(options, "nvidia-smi").stdout)
    *_, fill = gpu_host.run(options, CUDASH, "primary", "fill 64m").stdout.splitlines()
    assert fill.split()[4] == "CUDA_ERROR_OUT_OF_MEMORY"


@pytest.mark.parametrize("namespace", ["", "host"])
def test_process_list(gpu_host: GpuHost, namespace: str) -> None:
    """The container's own process by the pid that it knows, with all that is used; a neighbour is not in it. nvidia-smi
    has a way of its own to the list, which libvgpu knows for some drivers (libvgpu/nvml/export_table.c).
    """
    nvmlsh = f"--volume={gpu_host.program('nvmlsh')}:/nvmlsh:ro"
    options = [nvmlsh, *([f"--pid={namespace}"] if namespace else [])]
    command = (CUDASH, "primary", "alloc 100m", "managed 50m", "sleep 60")
    with (
        gpu_host.background(gpu_host.share("3g"), *command) as neighbour,
        gpu_host.background(gpu_host.share("3g", *options), *command) as container,
    ):
        for one in (neighbour, container):
            gpu_host.wait_for(one, "managed 50m ->")
        pid = gpu_host.engine.docker("inspect", "--format={{.State.Pid}}", container).stdout.strip()
        nvml = gpu_host.engine.docker("exec", container, "/nvmlsh", "init", "device 0", "memory", "processes3").stdout
        shown = [
            gpu_host.engine.docker("exec", container, "nvidia-smi", query, "--format=csv,noheader,nounits").stdout
            for query in ("--query-compute-apps=pid,used_memory", "--query-gpu=memory.used")
        ]
        print(gpu_host.engine.docker("exec", container, "nvidia-smi").stdout)
    known = pid if namespace else "1"
    *_, memory, processes = nvml.splitlines()
    assert processes == f"processes3 -> 0 {known}:{memory.split()[-1]}"
    if gpu_host.inventory.driver in drivers_of_export_table():
        assert shown[0] == f"{known}, {shown[1]}"


def drivers_of_export_table() -> list[str]:
    source = (Path(__file__).parents[2] / "libvgpu/nvml/export_table.c").read_text()
    line = re.search(r"drivers\[\] = \{(.*)\}", source)
    assert line
    return re.findall(r'"(.*?)"', line[1])


def test_get_proc_address_never_gives_the_real_one(gpu_host: GpuHost) -> None:
    table = (Path(__file__).parents[2] / "libvgpu/cuda/functions.h").read_text()
    taken = re.findall(r"^FUNCTION\(TAKE, (\w+)\)", table, re.MULTILINE)
    bases = sorted({re.sub(r"(_v\d+)?(_ptsz)?$", "", name) for name in taken})
    commands = [f"procaddr {base} {version}" for base in bases for version in (3020, 11030, 12000, 13000)]
    shown = gpu_host.run(gpu_host.share("3g"), CUDASH, "init", *commands).stdout
    answers = [line.split() for line in shown.splitlines()[1:]]
    assert len(answers) == len(commands)
    wrong = [answer for answer in answers if answer[-1] == "elsewhere"]
    assert wrong == []


@needs_torch
def test_pytorch(gpu_host: GpuHost) -> None:
    done = gpu_host.python("3g", TORCH)
    result = json.loads(done.stdout.partition("RESULT ")[2].splitlines()[0])
    print(result)
    assert result["total"] == result["device_total"] == 3 * GIB
    assert 0 < result["free"] < 3 * GIB - 400 * MIB
    assert result["error"] == "OutOfMemoryError"
    assert result["triton"] == 1000
    assert result["product"] < 1e-2
    assert result["compiled"] < 1e-5
    assert result["again"] == 256 << 20


@needs_torch
def test_what_the_device_gave_to_pytorch(gpu_host: GpuHost) -> None:
    before = gpu_host.used()
    options = gpu_host.share("3g", *gpu_host.user_space(), f"--volume={TORCH}:/program.py:ro", "-i")
    with gpu_host.background(options, sys.executable, "/program.py", "hold") as container:
        gpu_host.wait_for(container, "HELD")
        given = gpu_host.used() - before
        shown = gpu_host.engine.docker("exec", container, *nvidia_smi(gpu_host)).stdout
    print(f"PyTorch: the device gave {given / MIB} of 3072 MiB")
    print(shown)
    assert 0.97 * 3 * GIB <= given <= 3 * GIB


def nvidia_smi(gpu_host: GpuHost) -> list[str]:
    """By full path: with the host's /usr in the container, it lies where the host has it."""
    path = next(file.path for file in gpu_host.inventory.programs if "nvidia-smi" in file.names)
    return [path, "--query-gpu=memory.used,memory.total", "--format=csv"]
