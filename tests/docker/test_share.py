"""The main job, end to end: a container sees its share, gets it and no more, and its neighbours never notice."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docker import images
from tests.docker.agents import wait_for
from tests.docker.host import Container, Runai, changed, grants_in, host_mounts, mounts_in
from tests.programs.build import program
from tests.simgpu.host import SimHost

MIB = 1 << 20
GIB = 1 << 30
CUDASH = "/usr/local/bin/cudash"

Cuda = Callable[..., list[str]]


@pytest.fixture
def runai(either: Runai) -> Runai:
    return either


@pytest.fixture
def tools() -> tuple[str, ...]:
    """Docker options that put the CUDA shell into a container."""
    return (f"--volume={program('cudash')}:{CUDASH}:ro",)


@pytest.fixture
def cuda(runai: Runai, tools: tuple[str, ...]) -> Cuda:
    """Run commands of the CUDA shell in a container; their results, one a command."""

    def cuda(*commands: str, memory: str | None = "3g", options: tuple[str, ...] = ()) -> list[str]:
        done = runai.run(CUDASH, *commands, memory=memory, options=(*tools, *options))
        return [line.partition(" -> ")[2] for line in done.stdout.splitlines()]

    return cuda


def used_mib(smi: str) -> int:
    match = re.search(r"(\d+)MiB / +\d+MiB", smi)
    assert match, smi
    return int(match[1])


@pytest.mark.parametrize(
    ("memory", "shown"), [("3g", 3072), ("0.3", 3296), ("30%", 3296), ("1", 10989), ("1.5g", 1536), ("2m", 2)]
)
def test_nvidia_smi_shows_the_share(runai: Runai, memory: str, shown: int) -> None:
    assert f"0MiB / {shown:>6}MiB" in runai.run("nvidia-smi", memory=memory).stdout


def test_cuda_shows_the_share(cuda: Cuda) -> None:
    _, total, info = cuda("primary", "total", "info")
    assert total.split() == ["0", "CUDA_SUCCESS", str(3 * GIB)]
    free, whole = map(int, info.split()[2:])
    assert whole == 3 * GIB
    assert 3 * GIB - 256 * MIB < free < 3 * GIB - 100 * MIB  # the context's own memory is the container's


@pytest.mark.parametrize("call", ["fill", "fillasync", "fillcreate", "fillmanaged"])
def test_out_of_memory_at_the_share_and_not_a_byte_later(
    runai: Runai, simhost: SimHost, tools: tuple[str, ...], call: str
) -> None:
    before = simhost.used()
    container = Container(runai, CUDASH, "primary", f"{call} 2m", "sleep 100", options=tools)
    result = container.wait_for(call).partition(f"{call} 2m -> ")[2].split()
    assert result[1] == "CUDA_ERROR_OUT_OF_MEMORY"
    given = simhost.used() - before
    assert 0.97 * 3 * GIB <= given <= 3 * GIB
    # A pool grows in steps of 32 MiB and leaves one free. Everything else ends within one block of 2 MiB, and one more
    # is reserved for what a real process takes besides its context.
    assert given > 3 * GIB - (68 if call == "fillasync" else 4) * MIB
    container.runai.engine.docker("kill", container.id)


def test_one_allocation_that_is_too_large(cuda: Cuda, simhost: SimHost) -> None:
    results = cuda("primary", "alloc 3g", "pitch 1g 3", "managed 3g", "create 3g", "async 3g", "pool 3g", "alloc 2g")
    assert [result.split()[1] for result in results[1:7]] == ["CUDA_ERROR_OUT_OF_MEMORY"] * 6
    assert results[7].split()[1] == "CUDA_SUCCESS"
    assert simhost.used() == 0


def test_memory_that_is_freed_can_be_had_again(cuda: Cuda) -> None:
    results = cuda(
        *("primary", "alloc 2800m", "alloc 200m", "free 0", "alloc 2800m", "free 1", "managed 2800m", "free 2"),
        *("create 2800m", "map 3", "release 3", "alloc 200m", "unmap 3", "alloc 2800m", "free 4"),
        *("async 2700m", "freeasync 5", "sync", "alloc 2800m", "info"),
    )
    names = [result.split()[1].removeprefix("CUDA_") for result in results]
    outcome = dict(zip(range(len(names)), names, strict=True))
    assert outcome[2] == "ERROR_OUT_OF_MEMORY"
    assert outcome[11] == "ERROR_OUT_OF_MEMORY"  # released, but mapped still
    assert [n for i, n in outcome.items() if i not in (2, 11)] == ["SUCCESS"] * (len(names) - 2)


def test_a_neighbour_keeps_its_own(runai: Runai, cuda: Cuda, tools: tuple[str, ...]) -> None:
    neighbour = Container(runai, CUDASH, "primary", "alloc 1g", "hold", memory="2g", options=(*tools, "-i"))
    neighbour.wait_for("alloc")
    shown = used_mib(neighbour.execute("nvidia-smi"))
    fill = cuda("primary", "fill 64m")[1]
    assert "OUT_OF_MEMORY" in fill
    assert used_mib(neighbour.execute("nvidia-smi")) == shown
    assert "SUCCESS" in neighbour.execute(CUDASH, "primary", "alloc 512m").splitlines()[1]


def test_without_libvgpu_the_neighbour_fails(runai: Runai, simhost: SimHost, tools: tuple[str, ...]) -> None:
    """The simulated GPU knows no limit: what holds in the other tests is libvgpu's doing."""
    bare = tuple(f"--volume={node}:/dev/{node.name}" for node in simhost.dev.glob("nvidia*"))
    bare += (f"--volume={simhost.lib}:/driver:ro", "--env=LD_LIBRARY_PATH=/driver", *tools)
    hog = Container(runai, CUDASH, "primary", "fill 64m", "sleep 100", memory=None, options=bare)
    taken = int(hog.wait_for("fill").split()[-1])
    assert taken > 10 * GIB
    done = runai.run(CUDASH, "primary", "alloc 1g", memory=None, options=bare)
    assert "CUDA_SUCCESS" not in done.stdout
    runai.engine.docker("kill", hog.id)


def test_processes_of_a_container_have_one_account(runai: Runai, tools: tuple[str, ...]) -> None:
    container = Container(runai, CUDASH, "primary", "alloc 1g", "hold", options=(*tools, "-i"))
    container.wait_for("alloc")
    other = container.execute(CUDASH, "primary", "info", "alloc 2g", "alloc 1g", "info").splitlines()
    free = int(other[1].split()[-2])
    assert free < 2 * GIB - 256 * MIB
    assert "OUT_OF_MEMORY" in other[2]
    assert "SUCCESS" in other[3]
    assert used_mib(container.execute("nvidia-smi")) < 1300  # the other one has ended: what it had is back


def test_a_killed_process_gives_back_what_it_held(runai: Runai, tools: tuple[str, ...]) -> None:
    container = Container(runai, "sleep", "100", options=tools)
    for _ in range(3):
        shown = runai.engine.docker("exec", container.id, CUDASH, "primary", "alloc 2500m", "kill", check=False)
        assert "alloc 2500m -> 0 CUDA_SUCCESS" in shown.stdout
    wait_for(lambda: used_mib(container.execute("nvidia-smi")) == 0)  # an agent looks every 100 ms


def test_exec_has_the_share_too(runai: Runai) -> None:
    container = Container(runai, "sleep", "100")
    assert "0MiB /   3072MiB" in container.execute("nvidia-smi")
    assert container.execute("cat", "/.runai/limits").split()[1] == str(3 * GIB)


def test_the_limit_is_read_only_even_for_root(runai: Runai) -> None:
    script = "echo x > /.runai/limits; mount -o remount,rw /.runai/limits; rm /.runai/limits; > /.runai/new; true"
    done = runai.run("sh", "-c", script)
    assert done.stderr.count("Read-only file system") >= 2
    assert "permission denied" in done.stderr.lower()


def test_as_an_ordinary_user(runai: Runai, tools: tuple[str, ...]) -> None:
    done = runai.run(CUDASH, "primary", "alloc 1g", "alloc 2g", options=(*tools, "--user=1000"))
    assert [line.split()[-2 if "SUCCESS" in line else -1] for line in done.stdout.splitlines()[1:]] == [
        "CUDA_SUCCESS",
        "CUDA_ERROR_OUT_OF_MEMORY",
    ]


def test_get_proc_address_gives_ours(cuda: Cuda) -> None:
    names = {
        ("cuMemAlloc", 2000): "cuMemAlloc",
        ("cuMemAlloc", 12000): "cuMemAlloc_v2",
        ("cuMemFree", 12000): "cuMemFree_v2",
        ("cuMemGetInfo", 12000): "cuMemGetInfo_v2",
        ("cuDeviceTotalMem", 12000): "cuDeviceTotalMem_v2",
        ("cuMemAllocAsync", 12000): "cuMemAllocAsync",
        ("cuCtxCreate", 13000): "cuCtxCreate_v4",
        ("cuGetProcAddress", 11030): "cuGetProcAddress",
        ("cuGetProcAddress", 12000): "cuGetProcAddress_v2",
        ("cuLaunchKernel", 12000): "cuLaunchKernel",
    }
    results = cuda(*(f"procaddr {name} {version}" for name, version in names))
    assert [result.split()[-1] for result in results][:-1] == list(names.values())[:-1]


def test_grant(runai: Runai) -> None:
    container = Container(runai, "sleep", "100")
    pid = runai.engine.docker("inspect", "--format", "{{.State.Pid}}", container.id).stdout.strip()
    assert (container.grant / "pid").read_text() == f"{pid}\n"
    assert (container.grant / "cgroup").read_text() == Path(f"/proc/{pid}/cgroup").read_text()
    grant = json.loads((container.grant / "grant.json").read_text())
    assert grant["gpus"][0]["limit"] == 3 * GIB
    assert (container.grant.stat().st_mode & 0o777, (container.grant / "limits").stat().st_mode & 0o777) == (
        0o711,
        0o444,
    )
    runai.engine.docker("kill", container.id)
    runai.engine.docker("wait", container.id)
    assert not container.grant.exists()


def test_nothing_is_left_behind(runai: Runai, tools: tuple[str, ...]) -> None:
    before = host_mounts()
    options = runai.arguments(*tools, memory="3g")
    runai.engine.docker("run", "--name=trace", *options, images.BUSYBOX, CUDASH, "primary", "alloc 1g")
    assert host_mounts() == before
    assert mounts_in(runai.engine) == []
    assert grants_in(runai.state) == []
    assert changed(runai, "trace") == ""
    runai.engine.docker("start", "-a", "trace")  # and again, in the same container
    assert changed(runai, "trace") == ""


def test_without_a_request_the_bundle_stays_as_it_is(runai: Runai) -> None:
    container = Container(runai, "sleep", "100", memory=None)
    bundles = list(runai.engine.place.state.rglob(f"{container.id}/config.json"))
    spec = json.loads(bundles[0].read_text())
    assert "runai-hook" not in json.dumps(spec)
    assert container.execute("sh", "-c", "ls -d /.runai || true") == ""
    assert grants_in(runai.state) == []


@pytest.fixture
def real_nodes(runai: Runai, tmp_path: Path) -> Iterator[str]:
    """A configuration whose device nodes are character devices, with no driver behind them on this machine."""
    if Path("/sys/module/nvidia").exists():
        pytest.fail("this test opens device numbers that must have no driver")
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    config_path = runai.program.with_name("config.json")
    numbers = {"nvidiactl": 255, "nvidia0": 0, "nvidia-uvm": 252, "nvidia-uvm-tools": 251}  # 254: nvidia-modeset
    for name, number in numbers.items():
        subprocess.run(["/bin/mknod", nodes / name, "c", "195", str(number)], check=True)
    config = json.loads(config_path.read_text())
    text = json.dumps(config | {"driver": config["driver"] | {"devices": str(nodes)}})
    cache = (runai.state / "host.json").read_text()
    saved = config_path.read_text()
    config_path.write_text(text)
    (runai.state / "host.json").write_text(
        json.dumps(json.loads(cache) | {"for": config["driver"] | {"devices": str(nodes)}})
    )
    yield "195"
    config_path.write_text(saved)
    (runai.state / "host.json").write_text(cache)


def test_device_nodes_come_with_cgroup_rules(runai: Runai, real_nodes: str) -> None:
    """Without a driver behind the number, an open that the cgroup allows answers ENXIO, any other EPERM."""
    script = "ls -l /dev/nvidia0; cat /dev/nvidiactl; cat /dev/nvidia0; mknod /tmp/x c 195 77; cat /tmp/x"
    done = runai.run("sh", "-c", script, check=False)
    assert re.search(r"195, +0 ", done.stdout)
    assert done.stderr.count("No such device or address") == 2
    assert "/tmp/x': Operation not permitted" in done.stderr
