"""Docker 26.1: annotations, devices of a CDI specification, and the basic line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.cdi import read_folders
from runai_runtime.cdi_edits import depth, edits_for
from runai_runtime.configure import configure
from runai_runtime.inventory import Inventory
from tests.docker import images, newer
from tests.docker.engine import Engine
from tests.docker.host import Runai, configuration, grants_in
from tests.docker.test_toolkit import recorder
from tests.programs.build import program
from tests.simgpu.host import SimHost
from tests.toolkit import cdi
from tests.toolkit.install import Toolkit

GPUS = [{"name": "NVIDIA A", "memory_mib": 8192}, {"name": "NVIDIA B", "memory_mib": 4096}]
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
SHARES = ["NVIDIA A, 3072 MiB", "NVIDIA B, 3072 MiB"]
PLACED = SHARES[1:]  # so that the larger one stays whole


@pytest.fixture(scope="module")
def docker26(folder: Path) -> Iterator[Runai]:
    """An engine of Docker 26.1 on a host of two GPUs, with their CDI specification: as nvidia.com/gpu with the driver's
    libraries where the image has its own, as far.example/gpu elsewhere.
    """
    top = folder / "e"
    with SimHost(top / "gpu-host", {"gpus": GPUS}) as simhost:
        config = configuration(top, simhost)
        registered = top / "runai-runtime"
        configure(config, top / "config.json", registered)
        near = Toolkit(top / "near", simhost).specification
        far = Toolkit(top / "far", simhost, "/opt/driver/lib").specification
        edits = near["devices"][0]["containerEdits"] | {"env": ["RUNAI_GPU_MEMORY=2g"]}
        near["devices"].append({"name": "asking", "containerEdits": edits})
        specifications = top / "specifications"
        specifications.mkdir()
        more = cdi.with_more(near, top)
        (specifications / "reference.json").write_text(json.dumps(more | {"kind": "reference.example/gpu"}))
        (top / "more.json").write_text(json.dumps(more))
        (specifications / "nvidia.json").write_text(json.dumps(near))
        (specifications / "far.json").write_text(json.dumps(far | {"kind": "far.example/gpu"}))
        settings = {"features": {"cdi": True}, "cdi-spec-dirs": [str(specifications)]}
        recorded = recorder(top / "recorded", "/usr/sbin/runc")
        with Engine(
            {"runai": registered, "recorded": recorded}, binaries=newer.binaries(), settings=settings
        ) as engine:
            images.load(engine, images.BUSYBOX)
            yield Runai(engine, simhost, config, registered)


@pytest.fixture(autouse=True)
def leaves_nothing(docker26: Runai) -> Iterator[None]:
    yield
    docker26.engine.remove_containers()
    assert grants_in(docker26.state) == []
    assert docker26.simhost.used() == 0


def shown(runai: Runai, *options: str, memory: str | None = "3g") -> list[str]:
    return runai.run(*QUERY, memory=memory, options=options).stdout.splitlines()


def test_version(docker26: Runai) -> None:
    version = docker26.engine.docker("version", "--format", "{{.Server.Version}} {{.Client.Version}}").stdout
    assert [int(word.partition(".")[0]) >= newer.CDI_SINCE for word in version.split()] == [True, True]


def test_the_share_is_shown(docker26: Runai) -> None:
    assert "0MiB /   3072MiB" in docker26.run("nvidia-smi").stdout


@pytest.mark.parametrize("device", [None, "nvidia.com/gpu=0", "far.example/gpu=0"])
def test_the_share_holds(docker26: Runai, device: str | None) -> None:
    options = [f"--volume={program('cudash')}:/cudash:ro"] + ([f"--device={device}"] if device else [])
    done = docker26.run("/cudash", "primary", "total", "fill 64m", options=tuple(options))
    total, fill = done.stdout.splitlines()[1:]
    assert f"CUDA_SUCCESS {3 << 30}" in total
    assert "OUT_OF_MEMORY" in fill
    assert 2 << 30 < int(fill.split()[-1]) <= 3 << 30


def test_the_grant_is_taken_back(docker26: Runai) -> None:
    container = docker26.engine.docker("run", "-d", *docker26.arguments(memory="3g"), images.BUSYBOX, "sleep", "100")
    grant = docker26.state / container.stdout.strip()
    assert json.loads((grant / "grant.json").read_text())["gpus"][0]["limit"] == 3 << 30
    docker26.engine.docker("rm", "--force", grant.name)
    assert not grant.exists()


def test_an_annotation(docker26: Runai) -> None:
    assert shown(docker26, "--annotation=RUNAI_GPU_MEMORY=3g", memory=None) == PLACED
    both = ("--annotation=RUNAI_GPU_MEMORY=3g", "--annotation=RUNAI_GPUS=device=0")
    assert shown(docker26, *both, memory=None) == SHARES[:1]


def test_an_annotation_beats_the_environment(docker26: Runai) -> None:
    options = ("--annotation=RUNAI_GPU_MEMORY=3g", "--env=RUNAI_GPU_MEMORY_LIMIT=4g", "--env=RUNAI_GPUS=device=0")
    assert shown(docker26, *options, memory="1g") == PLACED


def test_an_annotation_that_is_no_amount(docker26: Runai) -> None:
    done = docker26.run("true", memory=None, options=("--annotation=RUNAI_GPU_MEMORY=much",), check=False)
    assert done.returncode == 125
    assert "runai: RUNAI_GPU_MEMORY is" in done.stderr


@pytest.mark.parametrize("kind", ["nvidia.com/gpu", "far.example/gpu"])
@pytest.mark.parametrize(("gpu", "expected"), [("0", SHARES[:1]), ("1", SHARES[1:]), ("all", SHARES)])
def test_a_cdi_device(docker26: Runai, kind: str, gpu: str, expected: list[str]) -> None:
    assert shown(docker26, f"--device={kind}={gpu}") == expected


@pytest.mark.parametrize("kind", ["nvidia.com/gpu", "far.example/gpu"])
def test_a_cdi_device_without_a_share(docker26: Runai, kind: str) -> None:
    assert shown(docker26, f"--device={kind}=1", memory=None) == ["NVIDIA B, 4096 MiB"]


def test_a_cdi_device_that_asks_for_a_share(docker26: Runai) -> None:
    """An administrator's specification may hold the request."""
    assert shown(docker26, "--device=nvidia.com/gpu=asking", memory=None) == ["NVIDIA A, 2048 MiB"]


def test_an_unknown_cdi_device(docker26: Runai) -> None:
    done = docker26.run("true", options=("--device=nvidia.com/gpu=7",), check=False)
    assert done.returncode != 0
    assert "nvidia.com/gpu=7" in done.stderr


def test_our_edits_are_those_of_the_engine(docker26: Runai, tmp_path: Path) -> None:
    """Of dockerd's CDI library and of ours for the same devices, in the same container."""
    top = docker26.program.parent
    common = ("--rm", "--network=none", "--runtime=recorded", "--hostname=h", "--user=5:6", "--env=FROM_CDI=mine")

    def recorded(*options: str) -> dict[str, Any]:
        docker26.engine.docker("run", *common, *options, images.BUSYBOX, "true")
        spec: dict[str, Any] = json.loads((top / "recorded.json").read_text())
        return spec

    theirs = recorded("--device=reference.example/gpu=0", "--device=reference.example/gpu=1")
    ours = recorded()
    (tmp_path / "gpu.json").symlink_to(top / "more.json")
    gpus = json.loads((docker26.state / "host.json").read_text())["gpus"]
    values = {"driver": "", "gpus": gpus, "libraries": [], "programs": [], "ours": {}}
    inventory = Inventory(values | {"cdi": read_folders([str(tmp_path)], gpus)})
    edits_for(inventory, inventory.gpus).apply(ours)
    assert ours["hooks"]["createContainer"][-1].pop("env")  # where theirs has none, which crun replaces by the image's
    assert ours["hooks"]["createContainer"] == theirs["hooks"]["createContainer"]
    assert ours["linux"]["devices"] == theirs["linux"]["devices"]
    # Docker's own rules come twice, with and without the device, and theirs once for each GPU.
    assert ours["linux"]["resources"]["devices"][-1] in theirs["linux"]["resources"]["devices"]
    # Docker sets user and environment after its CDI edits: their groups are lost, and a variable may come twice.
    assert theirs["process"]["user"]["additionalGids"] == [6]
    assert ours["process"]["user"] == theirs["process"]["user"] | {"additionalGids": [6, 4242]}
    assert {*ours["process"]["env"], "FROM_CDI=mine"} == set(theirs["process"]["env"])
    assert len(ours["process"]["env"]) == len(set(theirs["process"]["env"])) - 1
    assert by_target(ours) == by_target(theirs)
    assert sorted(ours["mounts"], key=depth) == ours["mounts"]


def by_target(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The mounts but those of the engine's own files, which lie in a folder for each container. Theirs of CDI have no
    type, and a runtime takes them for what they are.
    """
    mounts = [{"type": "bind"} | mount for mount in spec["mounts"] if "/containers/" not in mount["source"]]
    return sorted(mounts, key=lambda mount: str(mount["destination"]))
