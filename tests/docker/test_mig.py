"""Instances of GPUs (MIG) as devices: a GPU in parts beside a whole one, on a simulated driver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from runai_runtime.configure import configure
from tests.docker import images
from tests.docker.engine import Engine
from tests.docker.host import Container, Runai, configuration, grants_in
from tests.programs.build import program
from tests.simgpu.host import SimHost
from tests.toolkit.install import Toolkit

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


@pytest.mark.parametrize(
    ("wish", "memory", "expected"),
    [
        (None, "5g", ["GPU 0: NVIDIA H100 80GB HBM3", "MIG 1g.10gb"]),
        (None, "3g", ["GPU 0: NVIDIA L40"]),
        (None, "20g", ["GPU 0: NVIDIA H100 80GB HBM3", "MIG 3g.40gb"]),
        ("0:0", "2g", ["GPU 0: NVIDIA H100 80GB HBM3", "MIG 1g.10gb"]),
        ("0:0,0:1", "2g", ["GPU 0: NVIDIA H100 80GB HBM3", "MIG 1g.10gb", "MIG 3g.40gb"]),
        ("all", "0.5", ["GPU 0: NVIDIA H100 80GB HBM3", "MIG 1g.10gb", "MIG 3g.40gb", "GPU 1: NVIDIA L40"]),
        ("3", "1g", ["GPU 0: NVIDIA H100 80GB HBM3", "MIG 1g.10gb", "MIG 3g.40gb", "GPU 1: NVIDIA L40"]),
        ("1", "30g", ["GPU 0: NVIDIA H100 80GB HBM3", "MIG 3g.40gb"]),
    ],
)
def test_which_instances(runai_mig: Runai, wish: str | None, memory: str, expected: list[str]) -> None:
    options = () if wish is None else (gpus(wish),)
    assert listed(runai_mig, *options, memory=memory) == expected


def test_an_instance_by_its_uuid(runai_mig: Runai) -> None:
    assert listed(runai_mig, gpus(uuids(runai_mig)[1]))[1:] == ["MIG 3g.40gb"]


def test_a_part_of_an_instance(runai_mig: Runai) -> None:
    """Half of each, where NVML tells the size of an instance as well as the memory that it has."""
    asks = ("init", "device 0", "instance 0", "memory", "attributes", "parent", "instance 1", "memory", "attributes")
    done = runai_mig.run("nvmlsh", *asks, memory="0.5", options=(nvmlsh(), gpus("0:0,0:1")))
    answers = [line.split(" -> ")[1].split()[:2] for line in done.stdout.splitlines()]
    assert [answers[place] for place in (3, 4, 7, 8)] == [
        *(["0", str(4992 << 20)], ["0", "4992"], ["0", str(20224 << 20)], ["0", "20224"]),
    ]


@pytest.mark.parametrize("more", [[], ["--cap-add=SYS_ADMIN"]])
def test_the_gpu_of_an_instance_tells_nothing(runai_mig: Runai, more: list[str]) -> None:
    """Whoever may not see the whole of a GPU in parts gets that answer from the driver, who may from libvgpu."""
    asks = ("init", "device 0", "memory", "memory2", "processes3", "instance 0", "memory2", "processes3")
    configure(
        runai_mig.config | {"allow_sys_admin": bool(more)}, runai_mig.program.parent / "config.json", runai_mig.program
    )
    done = runai_mig.run("nvmlsh", *asks, memory="2g", options=(nvmlsh(), gpus("0:0"), *more))
    answers = [line.split(" -> ")[1].split() for line in done.stdout.splitlines()]
    assert answers[2:5] == [["4"]] * 3  # NVML_ERROR_NO_PERMISSION
    assert answers[6:] == [["0", str(2 * GIB), str(2 * GIB), "0", "0"], ["0"]]


def test_a_process_uses_one_instance(runai_mig: Runai) -> None:
    """Each has an account of its own, and what the container doesn't use is its neighbours'."""
    first, second = uuids(runai_mig)
    script = f"""
        cudash count uuid ctx 'alloc 1500m' total 'alloc 1g'
        CUDA_VISIBLE_DEVICES={second} cudash count uuid ctx 'alloc 3g' total 'alloc 2g'
    """
    done = runai_mig.run("sh", "-c", script, memory="0.2", options=(cudash(), gpus("0:0,0:1")))
    answers = [line.split(" -> ")[1].split()[1:] for line in done.stdout.splitlines()]
    assert [answers[0], answers[6]] == [["CUDA_SUCCESS", "1"]] * 2
    assert [answer[1][-12:] for answer in (answers[1], answers[7])] == [uuid[-12:] for uuid in (first, second)]
    assert [answers[4], answers[10]] == [["CUDA_SUCCESS", str(size << 20)] for size in (1996, 8089)]
    results = [answers[place][0].removeprefix("CUDA_") for place in (3, 5, 9, 11)]
    assert results == ["SUCCESS", "ERROR_OUT_OF_MEMORY", "SUCCESS", "SUCCESS"]


def test_processes_of_an_instance(runai_mig: Runai) -> None:
    script = "cudash ctx 'alloc 1g' 'print up' 'sleep 60' > /up & until grep up /up; do :; done; nvidia-smi; kill $!"
    neighbour = Container(
        runai_mig, "cudash", "ctx", "alloc 1g", "print up", "sleep 60", options=(cudash(), gpus("0:0"))
    )
    neighbour.wait_for("up")
    done = runai_mig.run("sh", "-c", script, memory="2g", options=(cudash(), gpus("0:0")))
    assert "1186MiB /   2048MiB" in done.stdout
    assert [line.split()[1:4] for line in done.stdout.splitlines() if "cudash" in line] == [["0", "7", "0"]]


def test_instances_are_admitted_each(runai_mig: Runai) -> None:
    """What one has promised is no matter of the other's; what it hasn't is refused by its name."""
    one = Container(runai_mig, "sleep", "60", memory="6g", options=(gpus("0:0"),))
    done = runai_mig.run("true", memory="6g", options=(gpus("0:0"),), check=False)
    assert done.returncode == 125
    assert f"GPU 0:0 has 3824 MiB free of 9968 MiB ({one.id[:12]}: 6144 MiB)" in done.stderr
    assert listed(runai_mig, gpus("0:1"), memory="39g")[1:] == ["MIG 3g.40gb"]
    assert listed(runai_mig, memory="6g")[1:] == ["MIG 3g.40gb"]
    assert grants_in(runai_mig.state) == [one.id]


def node(runai: Runai, name: str) -> str:
    return f"--volume={runai.simhost.dev}/{name}:/dev/{name}"


def caps(runai: Runai, place: int) -> list[str]:
    instance = runai.simhost.host.instances[place].instance
    assert instance is not None
    return [node(runai, f"nvidia-caps/nvidia-cap{minor}") for minor in runai.simhost.host.cap_minors(instance)]


def test_instances_that_the_spec_grants(runai_mig: Runai) -> None:
    nodes = [node(runai_mig, "nvidia0"), *caps(runai_mig, 1)]
    assert listed(runai_mig, *nodes, gpus("1"))[1:] == ["MIG 3g.40gb"]
    assert listed(runai_mig, *nodes, *caps(runai_mig, 0))[1:] == ["MIG 1g.10gb", "MIG 3g.40gb"]


def test_instances_that_nvidias_hook_shows(runai_mig: Runai, folder: Path) -> None:
    """`docker run --gpus`, by NVIDIA's names."""
    toolkit = Toolkit(folder / "m/toolkit", runai_mig.simhost)
    with Engine({"runai-mig": runai_mig.program}, search=toolkit.folder) as engine:
        images.load(engine, images.BUSYBOX)
        there = Runai(engine, runai_mig.simhost, runai_mig.config, runai_mig.program, "runai-mig")
        for name in ("0:1", uuids(runai_mig)[1]):
            assert listed(there, f"--gpus=device={name}") == ["GPU 0: NVIDIA H100 80GB HBM3", "MIG 3g.40gb"]
        done = there.run("cudash", "total", "ctx", "alloc 3g", options=(cudash(), "--gpus=device=0:0"), memory="2g")
        assert (
            done.stdout
            == f"total -> 0 CUDA_SUCCESS {2 * GIB}\nctx -> 0 CUDA_SUCCESS\nalloc 3g -> 2 CUDA_ERROR_OUT_OF_MEMORY\n"
        )
        done = there.run("true", options=("--gpus=device=0",), check=False)
        assert "GPU 0 is in MIG mode" in done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([gpus("device=0")], "GPU 0 is in MIG mode, so only its instances can be used; name one, such as 0:0"),
        ([gpus("0:7")], "this host has no GPU '0:7'"),
        (["nvidia0"], "the container is given /dev/nvidia0, a GPU in MIG mode, and not both capability nodes"),
        (["nvidia0", "nvidia-caps/nvidia-cap21"], "not both capability nodes of an instance of it"),
        ([gpus("0:0"), "--env=RUNAI_GPU_MEMORY=12g"], "GPU 0:0 has 9984 MiB"),
    ],
)
def test_what_is_refused(runai_mig: Runai, options: list[str], sentence: str) -> None:
    given = [option if option.startswith("--") else node(runai_mig, option) for option in options]
    done = runai_mig.run("true", memory="2g", options=tuple(given), check=False)
    assert done.returncode == 125
    assert sentence in done.stderr.replace('\\"', "'").replace('"', "'")
    assert grants_in(runai_mig.state) == []


def test_a_context_on_an_instance_was_measured(runai_mig: Runai) -> None:
    """So it is charged before it is made, as on a whole GPU."""
    done = runai_mig.run("cat", "/.runai/limits", memory="1g", options=(gpus("all"),))
    assert [int(line.split()[2]) for line in done.stdout.splitlines()] == [162 << 20] * 3
    done = runai_mig.run("cudash", "ctx", memory="100m", options=(cudash(), gpus("0:1")))
    assert done.stdout == "ctx -> 2 CUDA_ERROR_OUT_OF_MEMORY\n"


def test_who_keeps_the_share_of_an_instance(runai_mig: Runai) -> None:
    """The agent has never been compared with a driver whose client has taken an instance: it is left out, and said."""
    container = Container(runai_mig, "sleep", "60", options=(gpus("0:0"),))
    enforcement = json.loads((container.grant / "grant.json").read_text())["enforcement"]
    assert enforcement["by"] == "interposer"
    assert "0:0 is an instance of one (MIG)" in enforcement["why"]
    whole = Container(runai_mig, "sleep", "60", options=(gpus("device=1"),))
    assert json.loads((whole.grant / "grant.json").read_text())["enforcement"] == {"by": "agent", "removed": []}


def test_instances_that_come_and_go(runai_mig: Runai) -> None:
    """The inventory is read anew when instances were made or destroyed, and when MIG mode was turned on or off."""
    host = runai_mig.simhost
    one = [{"profile": "7g.80gb", "memory_mib": 80000, "gpu_instance": 0}]
    listing = {"two": PARTS, "one": one, "none": [], "off": None}
    seen = {}
    host.stop()
    try:
        for name, parts in listing.items():
            first = {key: value for key, value in GPUS[0].items() if key != "mig"}
            first |= {} if parts is None else {"mig": parts}
            with SimHost(host.folder, {"gpus": [first, GPUS[1]]}):
                seen[name] = listed(runai_mig, gpus("all"), memory="1g")
    finally:
        host.start()
    whole, other = "GPU 0: NVIDIA H100 80GB HBM3", "GPU 1: NVIDIA L40"
    assert seen == {
        "two": [whole, "MIG 1g.10gb", "MIG 3g.40gb", other],
        "one": [whole, "MIG 7g.80gb", other],
        "none": ["GPU 0: NVIDIA L40"],
        "off": [whole, other],
    }
    assert listed(runai_mig, gpus("0:1"))[1:] == ["MIG 3g.40gb"]


def test_what_makes_the_inventory_stale(runai_mig: Runai) -> None:
    """The driver's list of instances, and nothing else here: its files stay as they are."""
    cache, capabilities = runai_mig.state / "host.json", runai_mig.simhost.proc / "nvidia/capabilities"

    def is_read_anew() -> bool:
        before = cache.stat().st_ino
        runai_mig.run("true", options=(gpus("0:0"),))
        return cache.stat().st_ino != before

    is_read_anew()
    assert not is_read_anew()
    made = capabilities / "gpu0/mig/gi7/ci1"
    made.mkdir()
    assert [is_read_anew(), is_read_anew()] == [True, False]
    made.rmdir()
    assert [is_read_anew(), is_read_anew()] == [True, False]
    values = json.loads(cache.read_text())
    cache.write_text(json.dumps(values | {"no_instances": [1]}))
    assert [is_read_anew(), is_read_anew()] == [True, False], "nothing tells when that GPU leaves MIG mode"
