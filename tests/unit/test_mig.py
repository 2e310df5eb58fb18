"""Instances (MIG) without an engine: what the driver's files say, who gets which, and whose memory they have."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runai_runtime import mig
from runai_runtime import spec as specs
from runai_runtime.agent import instance_fault
from runai_runtime.errors import RefusalError
from runai_runtime.grant import Share, by_minor, by_wish, count_of, describe
from runai_runtime.host import Host
from runai_runtime.inventory import Gpu, Inventory
from runai_runtime.ledger import Ledger
from runai_runtime.placement import Choice, NoRoomError, place
from runai_runtime.plan import node_names
from runai_runtime.request import MEMORY, Request, read_request
from tests.simgpu.mig import Instance, write_proc
from tests.unit.prepared import NODES, Prepared, gpu

GIB = 1 << 30
MAJOR = 237
WHOLE = gpu(0) | {"uuid": "GPU-in-parts"}


def part(place: int, *same: int, size: int = 2 * GIB, caps: tuple[int, ...] = (), gpu: int = 0) -> dict[str, Any]:
    """An instance of GPU 0; SAME: the places of others in its memory."""
    return {
        "index": f"{gpu}:{place}",
        "minor": gpu,
        "parent": gpu,
        "uuid": f"MIG-{place}",
        "name": "G MIG 1g.2gb",
        "total": size,
        "reserved": 0,
        "context": 0,
        "capabilities": list(caps or (10 * place + 3, 10 * place + 4)),
        "same_memory": [f"MIG-{other}" for other in same],
    }


PARTS: dict[str, Any] = {"gpus": [part(0), part(1, size=4 * GIB), gpu(1)], "divided": [WHOLE], "caps_major": MAJOR}


@pytest.fixture
def inventory() -> Inventory:
    return Inventory({"driver": "580.1", "libraries": [], "programs": [], "ours": {}, **PARTS})


@pytest.fixture
def host(tmp_path: Path) -> Host:
    values = {"runtime": "/r", "hook": "/h", "libvgpu": "/l", "state": "/s", "driver": {"devices": f"{tmp_path}/dev"}}
    return Host("/c.json", values)


def asked(memory: str) -> Request:
    request = read_request({}, {MEMORY: memory})
    assert request is not None
    return request


def test_the_drivers_files(host: Host, tmp_path: Path) -> None:
    """The numbers are those of the MIG user guide."""
    made = [(0, Instance(0, 0, "1g.5gb", 1, 0)), (2, Instance(2, 0, "1g.5gb", 7, 1))]
    write_proc(tmp_path / "proc/driver", [0, 1, 2], made)
    found = mig.instances_made(host)
    assert sorted(found) == ["gpu0/gi1/ci0", "gpu2/gi7/ci1"]
    again = tmp_path / "proc/driver/nvidia/capabilities/gpu2/mig/gi7/ci1"
    again.rename(again.with_name("old"))
    again.mkdir()
    assert mig.instances_made(host) != found, "made anew, with the same ids"
    minors = mig.read_minors(host)
    known = {"gpu0/gi0": 3, "gpu0/gi0/ci0": 4, "gpu0/gi1": 12, "gpu0/gi1/ci0": 13, "gpu1/gi0": 138}
    assert known.items() <= minors.items()
    assert not {"config", "monitor"} & minors.keys()
    assert mig.node_name(minors["gpu0/gi1"]) == "nvidia-caps/nvidia-cap12"


def test_a_host_without_such_files(host: Host, tmp_path: Path) -> None:
    (tmp_path / "proc/driver").mkdir(parents=True)
    assert (mig.instances_made(host), mig.read_minors(host)) == ({}, {})
    (tmp_path / "proc/driver/nvidia-caps").mkdir()
    (tmp_path / "proc/driver/nvidia-caps/mig-minors").write_text("gpu0/gi0/access x\n\ngpu0/access 1 2\nconfig 1\n")
    assert mig.read_minors(host) == {}


def test_where_the_drivers_files_lie(host: Host, tmp_path: Path) -> None:
    assert mig.proc(host) == "/proc/driver"
    (tmp_path / "proc/driver").mkdir(parents=True)
    assert mig.proc(host) == f"{tmp_path}/proc/driver"
    host.devices = "/dev"
    assert mig.proc(host) == "/proc/driver"


def test_instances_by_name(inventory: Inventory) -> None:
    def chosen(wish: str) -> list[int | str]:
        return [gpu.index for gpu in by_wish(inventory, wish)]

    assert chosen("0:1") == chosen("device=0:1") == chosen("MIG-1") == ["0:1"]
    assert chosen("all") == ["0:0", "0:1", 1]
    assert chosen("1,0:0,MIG-0") == [1, "0:0"]
    assert count_of(inventory, "3") == 3
    for wish in ("0", "device=0", "GPU-in-parts", "1,0"):
        with pytest.raises(RefusalError, match=r"GPU 0 is in MIG mode, .*; name one, such as 0:0"):
            by_wish(inventory, wish)
    for wish in ("0:2", "1:0", "MIG-x", "0:", ":"):
        with pytest.raises(RefusalError, match="has no GPU"):
            by_wish(inventory, wish)


def test_instances_by_their_nodes(inventory: Inventory) -> None:
    def granted(minors: list[int], *caps: int) -> list[int | str]:
        return [gpu.index for gpu in by_minor(inventory, minors, set(caps))]

    assert granted([0], 3, 4) == ["0:0"]
    assert granted([0, 1], 3, 4, 13, 14) == ["0:0", "0:1", 1]
    assert granted([1], 3, 4) == [1], "without the GPU's own node they are of no use"
    for caps in ([], [3], [4], [3, 14]):
        with pytest.raises(RefusalError, match=r"/dev/nvidia0, a GPU in MIG mode, and not both capability nodes"):
            granted([0], *caps)
    with pytest.raises(RefusalError, match="nvidia7"):
        granted([0, 7], 3, 4)


def test_capability_nodes_in_a_spec() -> None:
    devices = [
        {"path": "/dev/nvidia-caps/nvidia-cap12"},
        {"path": "/dev/x", "type": "c", "major": 237, "minor": 13},
        {"path": "/dev/y", "type": "c", "major": 238, "minor": 14},
        {"path": "/dev/nvidia-caps/nvidia-cap"},
        {"path": 5, "type": "c", "major": 237, "minor": "15"},
    ]
    mounts = [{"destination": "/dev/nvidia-caps/nvidia-cap21"}, {"destination": "/dev/nvidia-caps"}]
    spec: dict[str, Any] = {"linux": {"devices": devices}, "mounts": mounts}
    assert specs.cap_minors(spec, 237) == {12, 13, 21}
    assert specs.cap_minors(spec, 0) == {12, 21}
    assert specs.device_minors(spec) == []


def test_nodes_of_a_container(inventory: Inventory) -> None:
    assert node_names(inventory.gpus)[3:] == [
        *("nvidia0", "nvidia-caps/nvidia-cap3", "nvidia-caps/nvidia-cap4"),
        *("nvidia-caps/nvidia-cap13", "nvidia-caps/nvidia-cap14", "nvidia1"),
    ]
    inventory.gpus[0].capabilities = []
    with pytest.raises(RefusalError, match="names no capability nodes"):
        node_names(inventory.gpus)


def test_compute_instances_of_one_gpu_instance() -> None:
    """What one of them has promised the other has not: NVML says of each that it has the whole memory."""
    gpus = [Gpu(part(0, 1)), Gpu(part(1, 0)), Gpu(part(2))]
    ledger = Ledger(Host("/c.json", {"runtime": "/r", "hook": "/h", "libvgpu": "/l"}))
    for name, size, expected in (("a", "1536m", "0:0"), ("b", "512m", "0:1"), ("c", "512m", "0:2")):
        shares = place(asked(size), Choice(gpus, 1), ledger, "pack")
        ledger.add(name, [describe(share) for share in shares])
        assert shares[0].gpu.index == expected or name == "b"
    assert ledger.free(gpus[0]) == ledger.free(gpus[1]) == 0
    assert ledger.held(gpus[0]) == ledger.held(gpus[1]) == {"a": 1536 << 20, "b": 512 << 20}
    with pytest.raises(RefusalError, match="GPU 0:1 has 0 MiB free of 2048 MiB"):
        place(asked("512m"), Choice(gpus[1:2], 1), ledger, "pack")


def test_two_of_one_memory_in_a_container() -> None:
    gpus = [Gpu(part(0, 1)), Gpu(part(1, 0)), Gpu(part(2))]
    ledger = Ledger(Host("/c.json", {"runtime": "/r", "hook": "/h", "libvgpu": "/l"}))
    assert [share.gpu.index for share in place(asked("1g"), Choice(gpus, 2), ledger, "pack")] == ["0:0", "0:2"]
    for named in (gpus[:2], gpus):
        with pytest.raises(RefusalError, match="0:1 lies in the same GPU instance"):
            place(asked("1g"), Choice(named, len(named)), ledger, "pack")
    ledger.add("a", [describe(Share(gpus[2], 2 * GIB, 2 * GIB))])
    with pytest.raises(NoRoomError) as refusal:
        place(asked("1g"), Choice(gpus, 2), ledger, "pack")
    assert refusal.value.may_come


def test_no_agent_for_an_instance(inventory: Inventory) -> None:
    shares = [Share(gpu, GIB, GIB) for gpu in inventory.gpus]
    assert instance_fault(shares[2:]) == ""
    assert "0:1 is an instance of one (MIG)" in instance_fault(shares[1:])


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    prepared = Prepared(tmp_path, monkeypatch, **PARTS, agent={"/usr/sbin/runc": ""})
    (tmp_path / "dev/nvidia-caps").mkdir()
    for minor in (3, 4, 13, 14):
        os.mknod(tmp_path / f"dev/nvidia-caps/nvidia-cap{minor}", stat.S_IFCHR | 0o444, os.makedev(MAJOR, minor))
    return prepared


def container(prepared: Prepared, *environment: str, **more: Any) -> dict[str, Any]:
    spec = prepared.usual | more
    return spec | {"process": spec["process"] | {"env": ["RUNAI_GPU_MEMORY=1g", *environment]}}


@pytest.mark.parametrize("name", ["0:1", "MIG-1"])
def test_what_nvidias_hook_is_going_to_show(prepared: Prepared, name: str) -> None:
    hooks = {"prestart": [{"path": "/usr/bin/nvidia-container-runtime-hook"}]}
    outcome = prepared.create(container(prepared, f"NVIDIA_VISIBLE_DEVICES={name}", hooks=hooks))
    assert (outcome.refusal, outcome.limits) == ("", {"MIG-1": GIB})
    outcome = prepared.create(container(prepared, "NVIDIA_VISIBLE_DEVICES=0", hooks=hooks))
    assert "GPU 0 is in MIG mode" in outcome.refusal


def test_enforcement_by_the_agent_refuses_an_instance(prepared: Prepared) -> None:
    prepared.configure(enforcement="agent")
    refusal = prepared.create(container(prepared, "RUNAI_GPUS=0:0")).refusal
    assert "0:0 is an instance of one (MIG)" in refusal
    assert '"enforcement" to "auto"' in refusal


def test_a_capability_node_that_is_not_there(prepared: Prepared) -> None:
    (prepared.folder / "dev/nvidia-caps/nvidia-cap4").unlink()
    refusal = prepared.create(container(prepared, "RUNAI_GPUS=0:0")).refusal
    assert "nvidia-caps/nvidia-cap4 can't be used" in refusal
    assert set(NODES) <= {path.name for path in (prepared.folder / "dev").iterdir()}


def test_what_a_container_is_given(prepared: Prepared) -> None:
    """Real nodes become devices of its specification, with their leaves; each of the GPU's and the instance's once."""
    outcome = prepared.create(container(prepared, "RUNAI_GPUS=all"))
    assert outcome.limits == {"MIG-0": GIB, "MIG-1": GIB, "GPU-1": GIB}
    assert [(node["path"], node["fileMode"]) for node in outcome.spec["linux"]["devices"]] == [
        (f"/dev/nvidia-caps/nvidia-cap{minor}", 0o444) for minor in (3, 4, 13, 14)
    ]
    leaves = outcome.spec["linux"]["resources"]["devices"]
    assert [leave["minor"] for leave in leaves if leave.get("major") == MAJOR] == [3, 4, 13, 14]


names = st.sampled_from(["0", "1", "0:0", "0:1", "0:2", "MIG-1", "GPU-1", "GPU-in-parts", "all", ":", "MIG-"])
given_nodes = st.sampled_from(
    ["nvidia0", "nvidia1", *(f"nvidia-caps/nvidia-cap{minor}" for minor in (3, 4, 13, 14, 15))]
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(names, max_size=3),
    st.lists(names, max_size=3),
    st.lists(given_nodes, max_size=5, unique=True),
    st.booleans(),
)
def test_any_wish_and_any_nodes(
    prepared: Prepared, wish: list[str], visible: list[str], nodes: list[str], hook: bool
) -> None:
    """Who gets a share of an instance gets both nodes of it, and none but what has a share or was given before."""
    environment = [f"RUNAI_GPUS={','.join(wish)}"] if wish else []
    environment += [f"NVIDIA_VISIBLE_DEVICES={','.join(visible)}"] if visible else []
    hooks = {"prestart": [{"path": "/usr/bin/nvidia-container-runtime-hook"}]} if hook else {}
    before = {f"/dev/{name}" for name in nodes}
    linux = prepared.usual["linux"] | {"devices": [{"path": path} for path in before]}
    done = prepared.create(container(prepared, *environment, hooks=hooks, linux=linux))
    assert done.refusal.isprintable()
    assert bool(done.refusal) is (done.limits is None)
    if done.limits is None:
        return
    after = {node["path"] for node in done.spec["linux"]["devices"]}
    shared = {
        f"/dev/nvidia-caps/nvidia-cap{minor}"
        for part in PARTS["gpus"]
        if part["uuid"] in done.limits
        for minor in part.get("capabilities", [])
    }
    assert after == before | shared
