"""Hosts of GPUs that nothing else has: counted in several ways, none at all or sixteen, and some that come and go."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.host import Host
from runai_runtime.inventory import forget_cache
from tests.docker.conftest import PLACES
from tests.docker.engine import Engine
from tests.docker.host import CUDASH, Container, Runai, configuration, grants_in
from tests.programs.build import program
from tests.simgpu.host import SimHost

MIB = 1 << 20
SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
TOOLS = (f"--volume={program('cudash')}:{CUDASH}:ro",)
NODES = ("sh", "-c", "cd /dev && echo nvidia[0-9]*")

# NVML counts them B, C, A; CUDA A, C, B; the kernel side as they stand here; and each has another minor.
ODD = [
    {"name": "NVIDIA A", "memory_mib": 8192, "bus": 0x41, "minor": 1, "speed": 9},
    {"name": "NVIDIA B", "memory_mib": 4096, "bus": 0x03, "minor": 3, "speed": 1},
    {"name": "NVIDIA C", "memory_mib": 2048, "bus": 0x05, "minor": 0, "speed": 5},
]
BY_NVML, BY_CUDA = "BCA", "ACB"
INDEX = {"A": 2, "B": 0, "C": 1}
MINOR = {"A": 1, "B": 3, "C": 0}
SIZE = {"A": 8192, "B": 4096, "C": 2048}


@pytest.fixture(scope="module")
def hosts(folder: Path, engine: Engine) -> Iterator[Runai]:
    """A runtime of the shared engine over a host whose GPUs change."""
    place = folder / PLACES["runai-hosts"]
    with SimHost(place / "gpu-host") as host:
        config = configuration(place, host)
        yield Runai.configured(engine, host, config, place, "runai-hosts")


@pytest.fixture
def odd(hosts: Runai) -> Runai:
    plug(hosts, ODD)
    return hosts


@pytest.fixture(autouse=True)
def usual(hosts: Runai) -> Iterator[None]:
    yield
    hosts.engine.remove_containers()
    assert grants_in(hosts.state) == []
    hosts.program.with_name("config.json").write_text(json.dumps(hosts.config))


def plug(runai: Runai, gpus: list[dict[str, Any]]) -> None:
    """Have GPUS as after a boot."""
    runai.simhost.plug({"gpus": gpus})
    forget_cache(Host("config.json", runai.config))


def cudash(runai: Runai, *commands: str, memory: str, options: tuple[str, ...] = ()) -> list[str]:
    """What each command said, without its result's number and name."""
    done = runai.run(CUDASH, *commands, memory=memory, options=(*TOOLS, *options))
    return [line.split(" -> ")[1].split(" ", 2)[-1] for line in done.stdout.splitlines()]


def uuid_of(runai: Runai, name: str) -> str:
    return next(gpu.uuid for gpu in runai.simhost.host.gpus if gpu.name.endswith(name))


def test_the_inventory(odd: Runai) -> None:
    odd.run("true")
    found = json.loads((odd.state / "host.json").read_text())
    assert (found["driver"], found["cuda"]) == ("580.159.04", "13.0")
    assert [(gpu["name"], gpu["bus"], gpu["minor"], gpu["uuid"]) for gpu in found["gpus"]] == [
        ("NVIDIA B", "00000000:03:00.0", 3, uuid_of(odd, "B")),
        ("NVIDIA C", "00000000:05:00.0", 0, uuid_of(odd, "C")),
        ("NVIDIA A", "00000000:41:00.0", 1, uuid_of(odd, "A")),
    ]


@pytest.mark.parametrize(("name", "how"), [("A", "index"), ("B", "uuid"), ("C", "node"), ("A", "node")])
def test_the_gpu_that_was_meant(odd: Runai, name: str, how: str) -> None:
    """By NVML's index, as nvidia-smi shows it on the host; by UUID; by the node that the spec grants."""
    dev = odd.simhost.dev
    options: tuple[str, ...] = {
        "index": (f"--env=RUNAI_GPUS=device={INDEX[name]}",),
        "uuid": (f"--env=RUNAI_GPUS={uuid_of(odd, name)}",),
        "node": tuple(f"--volume={dev}/{node}:/dev/{node}" for node in ("nvidiactl", f"nvidia{MINOR[name]}")),
    }[how]
    container = Container(odd, "sleep", "600", memory="1g", options=(*TOOLS, *options))
    assert container.execute(*SMI) == f"NVIDIA {name}, 1024 MiB\n"
    assert container.execute(*NODES) == f"nvidia{MINOR[name]}\n"
    said = container.execute(CUDASH, "count", "name", "uuid", "total", "primary", "alloc 1g", "fill 2m")
    assert [f" {uuid_of(odd, name)}" in said, f" {1 << 30}\n" in said] == [True, True]
    assert f"NVIDIA {name}\n" in said and "ERROR_OUT_OF_MEMORY" in said


@pytest.mark.parametrize(("memory", "name"), [("1g", "C"), ("3g", "B"), ("5g", "A")])
def test_the_gpu_that_is_placed(odd: Runai, memory: str, name: str) -> None:
    """The smallest that has room; where it takes memory is seen from outside."""
    container = Container(odd, CUDASH, "primary", "alloc 512m", "sleep 600", memory=memory, options=TOOLS)
    container.wait_for("alloc 512m")
    assert [odd.simhost.used(gpu) >= 512 * MIB for gpu in range(3)] == [name == other for other in "ABC"]


@pytest.mark.parametrize("enforcement", ["agent", "interposer"])
@pytest.mark.parametrize(("order", "names"), [("", BY_CUDA), ("PCI_BUS_ID", BY_NVML)])
def test_each_gpu_its_own_share_in_either_order(odd: Runai, order: str, names: str, enforcement: str) -> None:
    """Full to the brim, one after the other: a context on the next one is charged there, not where there is no room."""
    odd.program.with_name("config.json").write_text(json.dumps(odd.config | {"enforcement": enforcement}))
    options = ("--env=RUNAI_GPUS=all", f"--env=CUDA_DEVICE_ORDER={order}")
    shown = odd.run(*SMI, memory="0.5", options=options).stdout.splitlines()
    assert shown == [f"NVIDIA {name}, {SIZE[name] // 2} MiB" for name in BY_NVML]
    commands = [f"device {i}" if each == "device" else each for i in range(3) for each in ASKED]
    said = cudash(odd, *commands, memory="0.5", options=options)
    shares = [SIZE[name] // 2 * MIB for name in names]
    assert [value for value in said if value.startswith("NVIDIA")] == [f"NVIDIA {name}" for name in names]
    assert [int(value) for value in said[2 :: len(ASKED)]] == shares
    for share, filled in zip(shares, said[4 :: len(ASKED)], strict=True):
        assert share - 256 * MIB < int(filled) < share, "what is left is the context's"


ASKED = ("device", "name", "total", "primary", "fill 2m", "free")


def test_sixteen(hosts: Runai) -> None:
    plug(hosts, [{"name": f"NVIDIA {i}", "memory_mib": 1024 + 64 * i, "context_mib": 16} for i in range(16)])
    options = ("--env=RUNAI_GPUS=all",)
    shown = hosts.run(*SMI, memory="0.5", options=options).stdout.splitlines()
    assert shown == [f"NVIDIA {i}, {512 + 32 * i} MiB" for i in range(16)]
    commands = [command for i in range(16) for command in (f"device {i}", "total", "primary", "alloc 500m", "alloc 1g")]
    done = hosts.run(CUDASH, *commands, memory="0.5", options=(*TOOLS, *options))
    said = [line.split(" -> ")[1] for line in done.stdout.splitlines()]
    assert said[1::5] == [f"0 CUDA_SUCCESS {(512 + 32 * i) * MIB}" for i in range(16)]
    assert ["OUT_OF_MEMORY" in line for line in said[4::5]] == [True] * 16
    plug(hosts, [{"memory_mib": 1024}] * 17)
    assert "17 GPUs; shares are kept on 16 at most" in refusal(hosts, *options)
    assert len(hosts.run(*SMI, memory="0.5", options=("--env=RUNAI_GPUS=16",)).stdout.splitlines()) == 16


def refusal(runai: Runai, *options: str) -> str:
    done = runai.run("true", memory="1g", options=options, check=False)
    assert done.returncode == 125 and "Traceback" not in done.stderr
    return done.stderr.partition("runai: ")[2].partition(": unknown")[0]


# What changes without a boot. The driver's files stay the same, and nothing is configured or restarted.

NO_GPU = "this host has an NVIDIA driver and no GPU; see whether nvidia-smi shows one"


def test_gpus_that_come_and_go(hosts: Runai) -> None:
    def shown(*options: str) -> list[str]:
        return hosts.run(*SMI, memory="1g", options=options).stdout.splitlines()

    plug(hosts, [{"name": "NVIDIA A"}])
    assert shown() == ["NVIDIA A, 1024 MiB"]
    steps: list[tuple[list[dict[str, Any]], str]] = [
        ([], NO_GPU),
        ([{"name": "NVIDIA A"}, {"name": "NVIDIA B"}], ""),
        ([{"name": "NVIDIA A"}], 'RUNAI_GPUS is "2"; this host has 1 GPU(s)'),
        ([{"name": "NVIDIA B", "minor": 7}, {"name": "NVIDIA C"}], ""),
    ]
    for gpus, said in steps:
        hosts.simhost.plug({"gpus": gpus})
        both = "--env=RUNAI_GPUS=2"
        if said:
            assert said in refusal(hosts, both)
            assert said in refusal(hosts, both), "the refusal doesn't wear off"
        else:
            assert shown(both) == [f"{gpu['name']}, 1024 MiB" for gpu in gpus]


@contextlib.contextmanager
def without_driver(runai: Runai, how: str) -> Iterator[None]:
    if how == "its files":
        subprocess.run(["/bin/mv", runai.simhost.lib, f"{runai.simhost.lib}.away"], check=True)
        yield
        subprocess.run(["/bin/mv", f"{runai.simhost.lib}.away", runai.simhost.lib], check=True)
    else:
        runai.simhost.stop()
        yield
        runai.simhost.plug(None)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("its files", "this host has no NVIDIA driver: libcuda.so.1 is in none of its library folders"),
        ("its module", "the NVIDIA driver doesn't answer (Driver Not Loaded); see whether nvidia-smi works"),
    ],
)
def test_a_driver_that_goes_and_comes_back(hosts: Runai, how: str, said: str) -> None:
    plug(hosts, [{}])
    hosts.run("true")
    with without_driver(hosts, how):
        assert refusal(hosts).startswith(said)
        assert hosts.run("echo", "runs", memory=None).stdout == "runs\n", "who wants no share is not concerned"
    assert "1024MiB" in hosts.run("nvidia-smi", memory="1g").stdout


def test_a_gpu_that_goes_under_a_container(hosts: Runai) -> None:
    """Its grant lives as long as the container, and is in nobody's way."""
    plug(hosts, [{"name": "NVIDIA A"}, {"name": "NVIDIA B"}])
    one = Container(hosts, "sleep", "600", memory="10g", options=("--env=RUNAI_GPUS=device=1",))
    hosts.simhost.plug({"gpus": [{"name": "NVIDIA A"}]})
    other = Container(hosts, "sleep", "600", memory="10g")
    assert grants_in(hosts.state) == sorted([one.id, other.id])
    hosts.engine.docker("rm", "--force", one.id)
    assert grants_in(hosts.state) == [other.id]
    assert "MiB free" in refusal(hosts)
