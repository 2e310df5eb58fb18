"""A host with two real GPUs: a share on each, each kept on its own, and a container that has the second one alone.

Which GPU a program took from is what NVML says outside, so a GPU that is taken for another shows.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gpu.host import CUDASH, MIB, GpuHost
from tests.gpu.watch import Watch

pytestmark = pytest.mark.may_skip("needs two NVIDIA GPUs; for ioctls alone the agent; for PyTorch PyTorch")

GIB = 1 << 30
SHARE = 3 * GIB
TORCH = Path(__file__).with_name("programs") / "torch_devices.py"
ALLREDUCE = TORCH.with_name("torch_allreduce.py")
RAWGPU = "/rawgpu"


@pytest.fixture
def two(gpu_host: GpuHost) -> GpuHost:
    if len(gpu_host.inventory.gpus) < 2:
        pytest.skip("this machine has one GPU")
    return gpu_host


@contextmanager
def watched(host: GpuHost) -> Iterator[list[Watch]]:
    watches = [Watch(host, 0), Watch(host, 1)]
    with watches[0].watching(), watches[1].watching():
        yield watches


def gpus(host: GpuHost, *which: int) -> list[str]:
    """Docker options for these of the host's GPUs, in NVML's order for CUDA as well."""
    asked = ",".join(str(host.inventory.gpus[i].index) for i in which)
    return [f"--env=RUNAI_GPUS={'device=' if len(which) == 1 else ''}{asked}", "--env=CUDA_DEVICE_ORDER=PCI_BUS_ID"]


def results(output: str) -> list[list[str]]:
    """What cudash says of each command: number, name, values."""
    print(output)
    return [line.partition(" -> ")[2].split() for line in output.splitlines()]


def within(watch: Watch) -> bool:
    """Not more than the share, and nearly all of it."""
    print(f"GPU {watch.gpu}: the device gave {watch.most / MIB} of {SHARE // MIB} MiB")
    return 0.97 * SHARE <= watch.most <= SHARE


def untouched(watch: Watch) -> bool:
    """More than this of a GPU that nobody asked for would be somebody's."""
    print(f"GPU {watch.gpu}: the device gave {watch.most / MIB} MiB unasked")
    return watch.most <= 64 * MIB


def test_one_process_fills_both(two: GpuHost) -> None:
    commands = [word for i in (0, 1) for word in (f"device {i}", "uuid", "total", "primary", "fill 64m", "fill 2m")]
    with watched(two) as watches:
        done = two.run(two.share("3g", *gpus(two, 0, 1)), CUDASH, "count", *commands, "sleep 0.6")
    count, *each = results(done.stdout)
    assert count[2] == "2"
    for gpu, (_, uuid, total, _, fill, fill_small) in zip(two.inventory.gpus[:2], (each[:6], each[6:12]), strict=True):
        assert uuid[2] == gpu.uuid
        assert total[2] == str(SHARE)
        assert fill[1] == fill_small[1] == "CUDA_ERROR_OUT_OF_MEMORY"
    assert [within(watch) for watch in watches] == [True, True]


@pytest.mark.parametrize("used", [0, 1])
def test_a_process_that_takes_from_one_of_both(two: GpuHost, used: int) -> None:
    commands = (f"device {used}", "primary", "fill 64m", "fill 2m", "sleep 0.6")
    with watched(two) as watches:
        two.run(two.share("3g", *gpus(two, 0, 1)), CUDASH, *commands)
    assert within(watches[used])
    assert untouched(watches[1 - used])


def test_a_full_gpu_is_no_limit_to_the_other(two: GpuHost) -> None:
    """Two containers, each with its own GPU."""
    with watched(two) as watches:
        first = two.background(two.share("3g", *gpus(two, 0)), CUDASH, "primary", "fill 64m", "fill 2m", "sleep 60")
        second = two.background(two.share("3g", *gpus(two, 1)), CUDASH, "primary", "fill 64m", "fill 2m", "sleep 60")
        with first as one, second as other:
            for container in (one, other):
                two.wait_for(container, "fill 2m ->")
    assert [within(watch) for watch in watches] == [True, True]


def test_a_container_with_the_second_gpu(two: GpuHost) -> None:
    options = two.share("3g", *gpus(two, 1))
    listed = two.run(options, "nvidia-smi", "-L").stdout
    assert re.findall(r"GPU-[0-9a-f-]+", listed) == [two.inventory.gpus[1].uuid]
    with watched(two) as watches:
        done = two.run(options, CUDASH, "count", "uuid", "primary", "fill 64m", "fill 2m", "sleep 0.6")
    count, uuid, *_ = results(done.stdout)
    assert (count[2], uuid[2]) == ("1", two.inventory.gpus[1].uuid)
    assert within(watches[1])
    assert untouched(watches[0])


@pytest.mark.parametrize("which", [(1,), (0, 1)])
def test_ioctls_alone_on_the_second_gpu(request: pytest.FixtureRequest, two: GpuHost, which: tuple[int, ...]) -> None:
    """The driver numbers GPUs by itself, whatever the container has of them."""
    if request.config.getoption("--enforcement") == "interposer":
        pytest.skip("without the agent nothing bounds a program that only makes ioctls")
    rawgpu = f"--volume={two.program('rawgpu')}:{RAWGPU}:ro"
    gpu = two.inventory.gpus[1]
    with watched(two) as watches:
        done = two.run(
            two.share("3g", rawgpu, *gpus(two, *which)), RAWGPU, "-g", str(gpu.minor), "-u", gpu.uuid, "fill", "2"
        )
    print(done.stdout)
    took = re.search(r"(\d+) bytes, status 0x51", done.stdout)
    assert took
    assert 0.97 * SHARE <= int(took[1]) <= SHARE
    assert watches[1].most <= SHARE
    assert untouched(watches[0])


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch isn't installed")
def test_pytorch_on_the_second_gpu(two: GpuHost) -> None:
    with watched(two) as watches:
        done = two.python("3g", TORCH, options=gpus(two, 1))
    values = json.loads(done.stdout.partition("RESULT ")[2].splitlines()[0])
    print(values)
    assert values == {"count": 1, "uuid": two.inventory.gpus[1].uuid, "total": SHARE, "sum": 1 << 28}
    assert GIB <= watches[1].most <= SHARE
    assert untouched(watches[0])


def sums(output: str) -> list[dict[str, object]]:
    print(output)
    return [json.loads(line.partition("RESULT ")[2]) for line in output.splitlines() if "RESULT " in line]


def is_right(host: GpuHost, found: list[dict[str, object]]) -> bool:
    uuids = [gpu.uuid for gpu in host.inventory.gpus[:2]]
    wanted = {"right": True, "total": SHARE, "beyond": "refused"}
    return sorted(found, key=lambda one: str(one["rank"])) == [
        {"rank": rank, "uuid": uuids[rank]} | wanted for rank in (0, 1)
    ]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch isn't installed")
def test_nccl_in_a_container_with_both(two: GpuHost) -> None:
    """Two processes, whose buffers are mapped by each other."""
    with watched(two) as watches:
        done = two.python("3g", ALLREDUCE, "0", "1", options=(*gpus(two, 0, 1), "--shm-size=1g"))
    assert is_right(two, sums(done.stdout))
    print([watch.most / MIB for watch in watches])
    assert all(watch.most <= SHARE for watch in watches)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch isn't installed")
def test_nccl_between_two_containers(two: GpuHost) -> None:
    """Each with a GPU of its own, over what containers share: a network and the shared memory of System V and POSIX."""
    apart = ("--env=NCCL_P2P_DISABLE=1", "--env=NCCL_CUMEM_ENABLE=0", "--env=NCCL_DEBUG=WARN")
    first_options = two.python_options("3g", ALLREDUCE, (*gpus(two, 0), "--ipc=shareable", "--shm-size=1g", *apart))
    with two.background(first_options, sys.executable, "/program.py", "0") as first:
        joined = (f"--network=container:{first}", f"--ipc=container:{first}")
        second_options = two.python_options("3g", ALLREDUCE, (*gpus(two, 1), *joined, *apart))
        options = [option for option in second_options if option != "--network=none"]
        done = two.run(options, sys.executable, "/program.py", "1")
        found = sums(two.wait_for(first, "RESULT ")) + sums(done.stdout)
    assert is_right(two, found)
