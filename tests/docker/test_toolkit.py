"""NVIDIA's toolkit in the way: as a hook of --gpus, and as the runtime that we start.

Its programs are stand-ins (tests/toolkit); the engine, the low-level runtimes and the loader are real.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.configure import configure
from tests.docker import images
from tests.docker.engine import Engine
from tests.docker.host import Runai, configuration, grants_in
from tests.programs.build import program
from tests.simgpu.host import SimHost
from tests.toolkit import cdi
from tests.toolkit.install import HOME, Toolkit

# An index of NVIDIA's is NVML's: neither the minor of a node, nor CUDA's number.
GPUS = [
    {"name": "NVIDIA A", "memory_mib": 8192, "minor": 1},
    {"name": "NVIDIA B", "memory_mib": 4096, "minor": 0, "speed": 1},
]
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
BARE = ["NVIDIA A, 8192 MiB", "NVIDIA B, 4096 MiB"]
SHARES = ["NVIDIA A, 3072 MiB", "NVIDIA B, 3072 MiB"]
PLACED = SHARES[1:]  # so that the larger one stays whole

# Only the loader's cache, which NVIDIA's hook writes, leads there.
ELSEWHERE = "/opt/driver/lib"
OWN_COMPAT = "/opt/own/compat"

VISIBLE = "--env=NVIDIA_VISIBLE_DEVICES="

# Records the spec that a runtime is given, and becomes that runtime.
RECORDER = """\
#!/bin/sh
previous=
for word; do
    if [ "$previous" = --bundle ]; then cp "$word/config.json" {copy}; fi
    previous=$word
done
exec {runtime} "$@"
"""


class Host:
    """An engine with NVIDIA's toolkit on its search path, and runai-runtime in several forms."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.simhost = SimHost(folder / "gpu-host", {"gpus": GPUS})
        self.runtimes: dict[str, Path] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.engine: Engine
        self.near: Toolkit  # brings the driver's libraries into the image's own folder
        self.far: Toolkit

    def add(self, name: str, runtime: Path | str) -> None:
        """A runtime of that name: runai-runtime over RUNTIME."""
        top = self.folder / str(len(self.configs))
        self.configs[name] = configuration(top, self.simhost, str(runtime))
        self.runtimes[name] = top / "runai-runtime"
        configure(self.configs[name], top / "config.json", self.runtimes[name])

    def runai(self, name: str = "runai", config: str = "") -> Runai:
        return Runai(self.engine, self.simhost, self.configs[config or name], self.runtimes[name], name)


def without_second_stage(program: Path, copy: Path) -> Path:
    """The registered program as it would be if NVIDIA's runtime were no special one."""
    text, found, _ = program.read_text().partition(", enter=")
    assert found
    copy.write_text(f"{text})\n")
    copy.chmod(0o755)
    return copy


def recorder(path: Path, runtime: Path | str) -> Path:
    """A program at PATH that records into PATH.json."""
    path.write_text(RECORDER.format(copy=path.with_suffix(".json"), runtime=runtime))
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[Host]:
    host = Host(folder / "t")
    with host.simhost as simhost:
        near = host.near = Toolkit(host.folder / "near", simhost)
        far = host.far = Toolkit(host.folder / "far", simhost, ELSEWHERE, OWN_COMPAT)
        host.add("runai", "/usr/sbin/runc")
        host.add("cdi", near.runtime("cdi", "cdi", "runc", "crun"))
        host.add("cdi-far", far.runtime("cdi", "cdi", "docker-runc", "runc"))
        host.add("legacy", near.runtime("legacy", "legacy", "runc"))
        host.add("legacy-far", far.runtime("legacy", "legacy", "runc"))
        host.add("crun-behind", far.runtime("crun", "cdi", "crun"))
        host.add("past-us", near.runtime("past-us", "cdi", "/usr/sbin/runc"))
        host.runtimes["one-stage"] = without_second_stage(host.runtimes["cdi-far"], host.folder / "one-stage")
        host.add("recorded", recorder(host.folder / "after", "/usr/sbin/runc"))
        host.runtimes["recorded"] = recorder(host.folder / "before", host.runtimes["recorded"])
        with Engine(host.runtimes, search=near.folder, default_runtime="recorded", crun=True) as host.engine:
            images.load(host.engine, images.BUSYBOX)
            yield host


@pytest.fixture(autouse=True)
def leaves_nothing(host: Host) -> Iterator[None]:
    yield
    host.engine.remove_containers()
    for config in host.configs.values():
        assert grants_in(Path(config["state"])) == []
    assert host.simhost.used() == 0


def shown(runai: Runai, *options: str, memory: str | None = "3g") -> list[str]:
    return runai.run(*QUERY, memory=memory, options=options).stdout.splitlines()


def is_bounded(runai: Runai, *options: str) -> bool:
    """A process that takes what it can get ends within 3 GiB."""
    cudash = f"--volume={program('cudash')}:/cudash:ro"
    done = runai.run("/cudash", "primary", "total", "fill 64m", options=(cudash, *options))
    total, fill = done.stdout.splitlines()[1:]
    return f"CUDA_SUCCESS {3 << 30}" in total and "OUT_OF_MEMORY" in fill and 2 << 30 < int(fill.split()[-1]) <= 3 << 30


# --gpus: NVIDIA's hook at prestart


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--gpus=1"], SHARES[:1]),
        (["--gpus=all"], SHARES),
        (["--gpus=device=1"], SHARES[1:]),
        (['--gpus="device=0,1"'], SHARES),
        # docker's own variable comes last in the environment, and counts
        (["--gpus=device=1", "--env=NVIDIA_VISIBLE_DEVICES=0"], SHARES[1:]),
        (["--gpus=device=1", "--env=RUNAI_GPUS=0"], SHARES[1:]),
    ],
)
def test_gpus(host: Host, options: list[str], expected: list[str]) -> None:
    assert shown(host.runai(), *options) == expected


def test_gpus_by_uuid(host: Host) -> None:
    assert shown(host.runai(), f"--gpus=device={host.simhost.host.gpus[1].uuid}") == SHARES[1:]


def test_a_node_and_a_gpu(host: Host) -> None:
    """Each of the two ways gives one GPU."""
    node = f"--volume={host.simhost.dev}/nvidia1:/dev/nvidia1"
    assert shown(host.runai(), "--gpus=device=1", node) == SHARES


@pytest.mark.parametrize("gpus", ["device=7", "device=MIG-1", "device=0:1"])
def test_gpus_that_are_not_there(host: Host, gpus: str) -> None:
    done = host.runai().run("true", options=(f"--gpus={gpus}",), check=False)
    assert done.returncode == 125
    assert "runai: NVIDIA_VISIBLE_DEVICES" in done.stderr


def test_the_share_holds_with_gpus(host: Host) -> None:
    assert is_bounded(host.runai(), "--gpus=all")


@pytest.mark.parametrize("runtime", ["runc", "runai"])
def test_gpus_without_a_share(host: Host, runtime: str) -> None:
    """NVIDIA's hook alone, as under runc."""
    command = ("run", "--rm", "--network=host", f"--runtime={runtime}", "--gpus=all", images.BUSYBOX, *QUERY)
    assert host.engine.docker(*command).stdout.splitlines() == BARE


# nvidia-container-runtime below


def test_without_the_second_stage_the_share_is_lost(host: Host) -> None:
    """What NVIDIA's runtime adds comes after ours, and shows the driver."""
    assert shown(host.runai("one-stage", "cdi-far"), f"{VISIBLE}all") == BARE


@pytest.mark.parametrize("runtime", ["cdi", "cdi-far", "legacy", "legacy-far", "crun-behind"])
def test_with_it_the_share_holds(host: Host, runtime: str) -> None:
    assert is_bounded(host.runai(runtime), f"{VISIBLE}all")


@pytest.mark.parametrize("runtime", ["cdi-far", "legacy"])
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("all", SHARES),
        ("1", SHARES[1:]),
        ("0, 1", SHARES),
        ("void", PLACED),
        (None, PLACED),
    ],
)
def test_which_gpus(host: Host, runtime: str, visible: str | None, expected: list[str]) -> None:
    options = [] if visible is None else [f"{VISIBLE}{visible}"]
    assert shown(host.runai(runtime), *options) == expected


def test_none_of_the_gpus(host: Host) -> None:
    """NVIDIA's hook puts the driver in and no GPU (its runtime in CDI mode refuses the word itself)."""
    assert shown(host.runai("legacy"), f"{VISIBLE}none") == PLACED


def test_crun_behind_it(host: Host) -> None:
    arguments = host.runai("crun-behind").arguments(f"{VISIBLE}1", memory="3g")
    container = host.engine.docker("run", "-d", *arguments, images.BUSYBOX, "sleep", "100").stdout.strip()
    assert host.engine.docker("exec", container, *QUERY).stdout.splitlines() == SHARES[1:]
    assert list(host.engine.place.state.rglob(f"{container}/status"))  # a file of crun's


@pytest.mark.parametrize("runtime", ["cdi-far", "legacy-far"])
def test_a_driver_that_the_image_brings_along(host: Host, runtime: str) -> None:
    """enable-cuda-compat: only a drop-in of ld.so.conf, and the cache made of it, lead to it."""
    options = (f"{VISIBLE}all", f"--volume={host.simhost.lib}:{OWN_COMPAT}:ro")
    assert is_bounded(host.runai(runtime), *options)
    script = f"grep -q {OWN_COMPAT}/libcuda.so.1 /etc/ld.so.cache && cmp {OWN_COMPAT}/libcuda.so.1 {HOME}/libcuda.so.1"
    host.runai(runtime).run("sh", "-c", script, options=options)


def test_a_runtime_that_goes_past_the_second_stage(host: Host) -> None:
    """Its configuration names runc by a path."""
    done = host.runai("past-us").run("echo", "STARTED", options=(f"{VISIBLE}all",), check=False)
    assert done.returncode == 125
    assert "STARTED" not in done.stdout
    assert "runai: the container's share can't be kept" in done.stderr
    assert "config.toml" in done.stderr
    assert shown(host.runai("past-us"), f"{VISIBLE}all", memory=None) == BARE


def test_no_share_under_nvidia_runtime(host: Host) -> None:
    assert shown(host.runai("cdi-far"), f"{VISIBLE}all", memory=None) == BARE


@pytest.mark.parametrize(("option", "why"), [("--env=X=1", "GPU 1 has 4096 MiB"), ("--cap-add=ALL", "CAP_SYS_ADMIN")])
def test_refusals_come_through(host: Host, option: str, why: str) -> None:
    done = host.runai("cdi").run("true", memory="5g", options=(f"{VISIBLE}all", option), check=False)
    assert done.returncode == 125
    assert why in done.stderr
    assert done.stderr.count("runai: ") == 1


def test_stop_and_start(host: Host) -> None:
    """The engine writes the spec anew; the image has what the hooks left the last time."""
    arguments = host.runai("cdi-far").arguments(f"{VISIBLE}1", memory="3g")
    host.engine.docker("run", "--name=again", *arguments, images.BUSYBOX, *QUERY)
    assert host.engine.docker("start", "--attach", "again").stdout.splitlines() == SHARES[1:]


# A container without a share, by the default runtime


@pytest.mark.parametrize(
    "options", [(), ("--gpus=all",), ("--env=RUNAI=1", "--env=X=RUNAI_GPU_MEMORY=3g", "--env=Y=\\u00fc")]
)
def test_passed_on_byte_for_byte(host: Host, options: tuple[str, ...]) -> None:
    before, after = host.folder / "before.json", host.folder / "after.json"
    for record in (before, after):
        record.write_bytes(b"")
    host.engine.docker("run", "--rm", "--network=none", *options, images.BUSYBOX, "true")
    assert before.read_bytes() == after.read_bytes() != b""


def test_with_a_share_the_records_differ(host: Host) -> None:
    asking = "--env=RUNAI_GPU_MEMORY=3g"
    done = host.engine.docker("run", "--rm", "--network=host", asking, images.BUSYBOX, "nvidia-smi")
    assert "3072MiB" in done.stdout
    assert (host.folder / "before.json").read_bytes() != (host.folder / "after.json").read_bytes()


# A bundle that has the driver in its mounts, as CDI puts it there


def run_bundle(host: Host, folder: Path, toolkit: Toolkit, *command: str, hooks: bool = True) -> list[str]:
    """What COMMAND says in a bundle with the second GPU, and with the toolkit's hooks or without."""
    subprocess.run(["/usr/sbin/runc", "spec"], cwd=folder, check=True)
    config = folder / "config.json"
    spec = json.loads(config.read_text())
    spec["process"] |= {"terminal": False, "args": command, "env": ["PATH=/usr/bin", "RUNAI_GPU_MEMORY=3g"]}
    spec["root"] = {"path": "rootfs", "readonly": False}
    cdi.apply(toolkit.specification, ["1"], spec)
    if not hooks:
        del spec["hooks"]
    config.write_text(json.dumps(spec))
    (folder / "rootfs").mkdir()
    subprocess.run(["/bin/tar", "xf", images.archive(images.BUSYBOX)], cwd=folder / "rootfs", check=True)
    started = [str(host.runtimes["runai"]), "--root", f"{folder}/root", "run", "-b", str(folder), "by-hand"]
    done = subprocess.run(started, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("far", [False, True])
def test_a_bundle_with_the_driver_in_its_mounts(host: Host, tmp_path: Path, far: bool) -> None:
    assert run_bundle(host, tmp_path, host.far if far else host.near, *QUERY) == SHARES[1:]


def test_a_driver_where_no_loader_looks(host: Host, tmp_path: Path) -> None:
    """Its hooks are disabled, so that not even the cache leads there; a program may know the path."""
    libraries = f"{ELSEWHERE}/libcuda.so.{cdi.VERSION} {HOME}/libcuda.so.1"
    assert run_bundle(host, tmp_path, host.far, "cmp", *libraries.split(), hooks=False) == []
