"""A host with a CDI specification: its edits put the GPUs in, and the share lies over them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runai_runtime.configure import configure
from tests.docker import images
from tests.docker.agents import agents, wait_for
from tests.docker.engine import Engine
from tests.docker.host import CUDASH, Container, Runai, changed, configuration, grants_in, host_mounts, mounts_in
from tests.programs.build import program
from tests.simgpu.host import SimHost
from tests.toolkit import cdi
from tests.toolkit.broken_cdi import BROKEN
from tests.toolkit.install import HOME, Toolkit

GPUS = [{"name": "NVIDIA A", "memory_mib": 8192}, {"name": "NVIDIA B", "memory_mib": 4096}]
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
SHARES = ["NVIDIA A, 3072 MiB", "NVIDIA B, 3072 MiB"]
TOOLS = (f"--volume={program('cudash')}:{CUDASH}:ro",)
NODE = "stat -c '%F %t:%T %g' /dev/from-cdi; ls /dev/dri || true; grep Groups /proc/1/status"
RUNTIMES = {"runai": "/usr/sbin/runc", "runai-crun": "/usr/bin/crun"}


class Host:
    """An engine on a host of two GPUs, and runai-runtime over runc and over crun. SPECIFICATION is what tests write
    into the folders for such, in one form or the other.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        self.simhost = SimHost(top / "gpu-host", {"gpus": GPUS})
        self.folders = [top / "etc", top / "run"]
        self.trace = top / "trace"
        self.log = top / "log"
        self.configs: dict[str, dict[str, Any]] = {}
        self.engine: Engine
        self.specification: dict[str, Any]

    def program(self, runtime: str) -> Path:
        return self.top / runtime.removeprefix("runai-")[0] / "runai-runtime"  # short, for the agents' sockets

    def configure(self) -> None:
        for name, runtime in RUNTIMES.items():
            home = self.program(name).parent
            self.configs[name] = configuration(home, self.simhost, runtime)
            self.configs[name] |= {"cdi_spec_dirs": [str(one) for one in self.folders], "log": str(self.log)}
            configure(self.configs[name], home / "config.json", self.program(name))

    def runai(self, name: str = "runai") -> Runai:
        return Runai(self.engine, self.simhost, self.configs[name], self.program(name), name)

    def write(self, name: str, specification: object, folder: int = 0) -> Path:
        path = self.folders[folder] / name
        dump: Callable[[object], str] = yaml.safe_dump if name.endswith(".yaml") else json.dumps
        path.write_text(dump(specification))
        return path

    def notes(self) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line)["msg"] for line in lines]


@pytest.fixture(scope="module")
def module_host(folder: Path) -> Iterator[Host]:
    host = Host(folder / "k")
    for one in host.folders:
        one.mkdir(parents=True)
    with host.simhost:
        host.specification = cdi.with_more(Toolkit(host.top / "toolkit", host.simhost).specification, host.top)
        host.configure()
        with Engine({name: host.program(name) for name in RUNTIMES}, crun=True) as host.engine:
            images.load(host.engine, images.BUSYBOX)
            yield host


@pytest.fixture
def host(module_host: Host) -> Iterator[Host]:
    before = host_mounts()
    yield module_host
    module_host.engine.remove_containers()
    for one in module_host.folders:
        for path in one.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    module_host.log.unlink(missing_ok=True)
    module_host.trace.unlink(missing_ok=True)
    for config in module_host.configs.values():
        assert grants_in(Path(config["state"])) == []
        wait_for(lambda config=config: agents(Path(config["state"])) == [])  # type: ignore[misc] # bound in the loop
    assert mounts_in(module_host.engine) == [] and host_mounts() == before
    assert module_host.simhost.used() == 0


def shown(runai: Runai, *options: str) -> list[str]:
    return runai.run(*QUERY, options=options).stdout.splitlines()


def injected(runai: Runai, *options: str, memory: str = "3g") -> str:
    """What put the GPU into a container, which is shown its share in any case."""
    script = f"echo ${{FROM_CDI-driver}}; {' '.join(QUERY)}"
    by, *gpus = runai.run("sh", "-c", script, memory=memory, options=options).stdout.splitlines()
    assert gpus in (SHARES, SHARES[:1], SHARES[1:])
    return by


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["nvidia.json", "nvidia.yaml"])
def test_its_edits_are_in_the_container(host: Host, name: str, runtime: str) -> None:
    host.write(name, host.specification)
    container = Container(host.runai(runtime), "sleep", "600", options=("--env=RUNAI_GPUS=device=1",))
    assert container.execute(*QUERY).splitlines() == SHARES[1:]
    grant = json.loads((container.grant / "grant.json").read_text())
    assert grant["injected"] == "cdi"
    assert "/dev/dri" in grant["enforcement"]["removed"]
    assert {"FROM_CDI=device 1", "NVIDIA_VISIBLE_DEVICES=void"} <= environment_of(container)
    node, *rest = container.execute(*f"sh -c {NODE}".split(maxsplit=2)).splitlines()
    assert node == "character special file a:e5 7"
    assert rest[-1].split()[-1] == "4242" and "card0" not in rest
    assert host.trace.read_text() == "traced\n"


def environment_of(container: Container) -> set[str]:
    """That of its first process: docker exec has docker's own."""
    return set(container.execute("cat", "/proc/1/environ").split("\0"))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_share_holds(host: Host, runtime: str) -> None:
    host.write("nvidia.yaml", host.specification)
    done = host.runai(runtime).run(CUDASH, "primary", "total", "alloc 2g", "alloc 1g", "fill 64m", options=TOOLS)
    total, alloc, beyond, fill = done.stdout.splitlines()[1:]
    assert f"CUDA_SUCCESS {3 << 30}" in total
    assert ("CUDA_SUCCESS" in alloc, "OUT_OF_MEMORY" in beyond, "OUT_OF_MEMORY" in fill) == (True, True, True)


def test_its_permissions_hold(host: Host) -> None:
    host.write("nvidia.yaml", host.specification)
    done = host.runai().run("sh", "-c", ": </dev/from-cdi; echo read; : >/dev/from-cdi", check=False)
    assert (done.stdout, "Operation not permitted" in done.stderr) == ("read\n", True)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_nothing_stays_in_the_image(host: Host, runtime: str) -> None:
    """The mount points that the low-level runtime made for the specification's files, too; but what the specification's
    own hooks do to the image is their business.
    """
    values = json.loads(json.dumps(host.specification))
    values["containerEdits"]["hooks"] = values["containerEdits"]["hooks"][-1:]
    for mount in values["containerEdits"]["mounts"]:
        mount["containerPath"] = mount["containerPath"].replace(HOME, "/opt/driver/of cdi")
    host.write("nvidia.json", values)
    container = Container(host.runai(runtime), "sleep", "600")
    assert container.execute("ls", "/opt/driver/of cdi") != ""
    host.engine.docker("stop", "--time=0", container.id)
    assert changed(host.runai(runtime), container.id) == ""
    host.engine.docker("start", container.id)
    assert container.execute(*QUERY).splitlines() == SHARES[1:]


# Which specification counts


def test_files_that_come_and_go_are_seen_at_once(host: Host) -> None:
    assert injected(host.runai()) == "driver"
    path = host.write("nvidia.yaml", host.specification)
    assert injected(host.runai()) == "device 1"
    path.unlink()
    assert injected(host.runai()) == "driver"


def test_a_gpu_that_the_container_has_already(host: Host) -> None:
    host.write("nvidia.yaml", host.specification)
    container = Container(host.runai(), "sleep", "600", options=(f"--volume={host.simhost.dev}/nvidia1:/dev/nvidia1",))
    assert "injected" not in json.loads((container.grant / "grant.json").read_text())
    assert not host.trace.exists()


def test_the_later_folder_wins(host: Host) -> None:
    host.write("a.json", host.specification)
    host.write("b.json", changed_devices(host, lambda name, edits: (name, edits | {"env": ["FROM_CDI=run"]})), folder=1)
    assert injected(host.runai()) == "run"


def changed_devices(host: Host, change: Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The specification with other devices."""
    changes = [change(one["name"], one["containerEdits"]) for one in host.specification["devices"]]
    return host.specification | {"devices": [{"name": name, "containerEdits": edits} for name, edits in changes]}


def test_several_gpus_and_names_by_uuid(host: Host) -> None:
    uuids = {str(number): gpu.uuid for number, gpu in enumerate(host.simhost.host.gpus)}
    host.write("nvidia.yaml", changed_devices(host, lambda name, edits: (uuids.get(name, name), edits)))
    assert injected(host.runai(), "--env=RUNAI_GPUS=2") == f"device {1}"
    assert shown(host.runai(), "--env=RUNAI_GPUS=all") == SHARES


def without_device(host: Host) -> None:
    values = host.specification
    host.write("nvidia.json", values | {"devices": [one for one in values["devices"] if one["name"] == "1"]})


def twice(host: Host) -> None:
    host.write("a.json", host.specification)
    host.write("b.yaml", host.specification)


def of_another_kind(host: Host) -> None:
    host.write("a.json", host.specification | {"kind": "example.com/gpu"})


def with_a_mount(host: Host, path: str) -> None:
    edits = host.specification["containerEdits"]
    mount = {"hostPath": path, "containerPath": "/mnt/x", "options": ["rbind"]}
    host.write("nvidia.json", host.specification | {"containerEdits": edits | {"mounts": [*edits["mounts"], mount]}})


def stale(host: Host) -> None:
    with_a_mount(host, "/nowhere/libcuda.so.570.1")


def of_the_other_gpu(host: Host) -> None:
    names = {"0": "1", "1": "0"}
    host.write("nvidia.json", changed_devices(host, lambda name, edits: (names.get(name, name), edits)))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (without_device, "it has no device for GPU 0"),
        (twice, "both "),
        (twice, "it has no device for GPU 0"),
        (stale, "libcuda.so.570.1"),
        (of_the_other_gpu, "/dev/nvidia1"),
        (of_another_kind, ""),
    ],
)
def test_one_that_can_t_be_used(host: Host, make: Callable[[Host], None], why: str) -> None:
    make(host)
    assert injected(host.runai(), "--env=RUNAI_GPUS=device=0") == "driver"
    assert any(why in note for note in host.notes())


def test_a_server_of_mps_is_left_out(host: Host, tmp_path: Path) -> None:
    """nvidia-ctk has its folder mounted where there is one."""
    (tmp_path / "control_privileged").touch()
    with_a_mount(host, str(tmp_path))
    assert injected(host.runai()) == "device 1"
    assert host.runai().run("ls", "/mnt/x", check=False).returncode == 1


# Hostile files


def test_files_that_are_no_specification(host: Host) -> None:
    """They are left out and said once, and what stands beside them counts; each alone is in tests/unit/test_cdi.py."""
    for name, make in BROKEN.items():
        make(host.folders[0] / name)
    assert injected(host.runai()) == "driver"
    assert injected(host.runai()) == "driver"
    assert sum("left out" in note for note in host.notes()) == len(BROKEN)
    host.write("nvidia.yaml", host.specification)
    assert injected(host.runai()) == "device 1"
