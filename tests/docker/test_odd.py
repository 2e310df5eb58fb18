"""Odd containers: whatever Docker can do to a container and whatever an image may lack, the share is shown and held, or
the container is refused; and nothing is left behind.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docker import images
from tests.docker.engine import Engine
from tests.docker.host import CUDASH, Container, Runai, changed, grants_in, host_mounts, mounts_in
from tests.programs.build import program

GIB = 1 << 30
SHOWN = "0MiB /   3072MiB"
ALLOC = (CUDASH, "primary", "total", "alloc 5g")
HOME = f"/usr/lib/{images.MULTIARCH}"
TOOLS = (f"--volume={program('cudash')}:{CUDASH}:ro",)
MUSL_TOOLS = (f"--volume={program('cudash', '-dynamic')}:{CUDASH}:ro",)


@pytest.fixture(autouse=True)
def leaves_nothing(runai: Runai) -> Iterator[None]:
    before = host_mounts()
    yield
    runai.engine.remove_containers()
    assert grants_in(runai.state) == []
    assert mounts_in(runai.engine) == []
    assert host_mounts() == before


def is_bounded(output: str) -> bool:
    """Whether ALLOC's output shows the share of 3 GiB, and no more was had."""
    lines = output.splitlines()
    return f"total -> 0 CUDA_SUCCESS {3 * GIB}" in lines and "OUT_OF_MEMORY" in lines[-1]


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 125, (done.stdout, done.stderr)
    _, found, sentence = done.stderr.partition("runai: ")
    assert found, done.stderr
    return sentence


# What docker run can be told


@pytest.mark.parametrize(
    "options",
    [
        "--read-only",
        "--read-only --tmpfs=/tmp --user=1000",
        "--user=1000",
        "--user=4242:4242",
        "--pid=host",
        "--ipc=host",
        "--init",
        "--tty",
        "--tmpfs=/run --tmpfs=/tmp --tmpfs=/var --tmpfs=/dev/shm",
        "--tmpfs=/etc",
        "--cap-drop=ALL --security-opt=no-new-privileges",
        "--memory=64m",
        "--ulimit=nofile=32",
        "--workdir=/not/there/yet",
        "--volume=/etc:/etc",
        "--volume=/:/host:ro",
        "--device=/dev/null:/dev/other",
        "--name=An_odd-name.1 --hostname=libcuda.so.1",
        "--env=LD_PRELOAD=/not/there.so",
        "--env=LD_LIBRARY_PATH=:::/:.:/proc/self",
    ],
)
def test_options_of_docker_run(runai: Runai, options: str) -> None:
    etc = sorted(os.listdir("/etc"))
    assert SHOWN in runai.run("sh", "-c", "nvidia-smi", options=tuple(options.split())).stdout
    assert sorted(os.listdir("/etc")) == etc


def test_an_entry_point(runai: Runai) -> None:
    assert SHOWN in runai.run(options=("--entrypoint=nvidia-smi",)).stdout


@pytest.mark.parametrize("volume", ["/usr:/usr", "/usr/lib:/usr/lib:ro", f"{HOME}:{HOME}"])
def test_the_hosts_own_libraries_as_a_volume(runai: Runai, volume: str) -> None:
    before = sorted(os.listdir(HOME))
    assert "none is made in a volume" in refusal(runai.run("true", options=(f"--volume={volume}",), check=False))
    assert sorted(os.listdir(HOME)) == before


def test_an_init_that_mounts_over_run_and_tmp(runai: Runai, folder: Path) -> None:
    """As systemd does; it needs CAP_SYS_ADMIN, with which a share is an agreement."""
    config = folder / "config.json"
    saved = config.read_text()
    config.write_text(json.dumps(json.loads(saved) | {"allow_sys_admin": True}))
    over = "for at in /run /tmp /run/lock /dev/shm; do mkdir -p $at; mount -t tmpfs none $at || exit 1; done"
    try:
        options = ("--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined", *TOOLS)
        done = runai.run("sh", "-c", f"{over}; exec {CUDASH} primary total 'alloc 5g'", options=options)
    finally:
        config.write_text(saved)
    assert is_bounded(done.stdout)


# The way of one container


def test_health_checks_see_the_share(runai: Runai) -> None:
    container = Container(runai, "sleep", "60", options=("--health-cmd=nvidia-smi", "--health-interval=200ms"))
    for _ in range(100):
        shown = runai.engine.docker("inspect", "--format={{json .State.Health}}", container.id).stdout
        health = json.loads(shown)
        if health["Log"]:
            break
        time.sleep(0.1)
    assert SHOWN in health["Log"][0]["Output"]
    assert health["Status"] == "healthy"


@pytest.mark.parametrize("options", ["--user=1000", "--env=LD_LIBRARY_PATH=/usr/local/lib", "--workdir=/tmp", "--tty"])
def test_exec(runai: Runai, options: str) -> None:
    container = Container(runai, "sleep", "60", options=TOOLS)
    done = runai.engine.docker("exec", *options.split(), container.id, *ALLOC)
    assert is_bounded(done.stdout)


def test_stop_start_restart_pause(runai: Runai) -> None:
    docker = runai.engine.docker
    container = Container(runai, "sleep", "600")
    docker("stop", "--time=0", container.id)
    assert changed(runai, container.id) == ""
    assert not container.grant.exists()
    docker("start", container.id)
    assert SHOWN in container.execute("nvidia-smi")
    docker("restart", "--time=0", container.id)
    assert SHOWN in container.execute("nvidia-smi")
    docker("pause", container.id)
    docker("unpause", container.id)
    assert SHOWN in container.execute("nvidia-smi")
    docker("rm", "--force", container.id)


def test_the_first_process_is_killed_from_outside(runai: Runai) -> None:
    container = Container(runai, "sleep", "600")
    pid = int(runai.engine.docker("inspect", "--format={{.State.Pid}}", container.id).stdout)
    os.kill(pid, signal.SIGKILL)
    assert runai.engine.docker("wait", container.id).stdout == "137\n"
    assert not container.grant.exists()
    assert changed(runai, container.id) == ""


def test_a_restart_policy(runai: Runai) -> None:
    container = Container(runai, "sh", "-c", "nvidia-smi; exit 1", options=("--restart=on-failure:1",))
    for _ in range(100):
        shown = runai.engine.docker("inspect", "--format={{.RestartCount}} {{.State.Status}}", container.id).stdout
        if shown == "1 exited\n":
            break
        time.sleep(0.1)
    assert container.logs().count(SHOWN) == 2
    assert changed(runai, container.id) == ""


def test_two_containers_of_one_image(runai: Runai) -> None:
    """What one makes in its root, and takes away, is not the other's."""
    one, two = (Container(runai, "sleep", "600", options=TOOLS) for _ in range(2))
    runai.engine.docker("rm", "--force", one.id)
    assert is_bounded(two.execute(*ALLOC))


def files_of(tar: bytes) -> dict[str, int]:
    """The regular files in a tar, with their sizes."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as content:
        return {member.name: member.size for member in content if member.isfile()}


def test_diff_and_export(runai: Runai) -> None:
    """Of a running container they show mount points, as empty files; of a stopped one nothing of ours."""
    container = Container(runai, "sh", "-c", "echo mine > /tmp/mine; sleep 600")
    container.execute("true")
    ours = {f"{HOME[1:]}/libcuda.so.1", f"{HOME[1:]}/libnvidia-ml.so.1", "usr/bin/nvidia-smi"}

    def export() -> dict[str, int]:
        command = runai.engine.command("export", container.id)
        return files_of(subprocess.run(command, env=runai.engine.environment(), capture_output=True, check=True).stdout)

    running = export()
    assert ours <= running.keys()
    assert {running[name] for name in running if "libcuda" in name or "nvidia" in name} == {0}
    runai.engine.docker("stop", "--time=0", container.id)
    assert changed(runai, container.id) == "A /tmp/mine"
    assert not [name for name in export() if "cuda" in name or "nvidia" in name or "runai" in name]


@pytest.mark.parametrize("stopped", [False, True])
def test_commit(runai: Runai, engine: Engine, stopped: bool) -> None:
    container = Container(runai, "sleep", "600")
    if stopped:
        engine.docker("stop", "--time=0", container.id)
    engine.docker("commit", container.id, "odd:committed")
    engine.docker("rm", "--force", container.id)
    try:
        # An empty file is no library, and nothing of the driver's or of ours has come along.
        script = "find / -xdev '(' -name '*cuda*' -o -name '*nvidia*' -o -path '*/.runai/*' ')' -size +0 -type f"
        plain = engine.docker("run", "--rm", "--network=host", "odd:committed", "sh", "-c", script)
        assert plain.stdout == ""
        assert is_bounded(runai.run(*ALLOC, image="odd:committed", options=TOOLS).stdout)
    finally:
        engine.remove_containers()
        engine.docker("rmi", "odd:committed")


@pytest.mark.parametrize("stopped", [False, True])
def test_cp(runai: Runai, engine: Engine, tmp_path: Path, stopped: bool) -> None:
    container = Container(runai, "sleep", "600")
    if stopped:
        engine.docker("stop", "--time=0", container.id)
    (tmp_path / "in").write_text("copied")
    engine.docker("cp", tmp_path / "in", f"{container.id}:/tmp/in")
    engine.docker("cp", f"{container.id}:/tmp/in", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "copied"
    if not stopped:
        assert container.execute("cat", "/tmp/in") == "copied"
        assert SHOWN in container.execute("nvidia-smi")
        engine.docker("cp", f"{container.id}:{HOME}/libcuda.so.1", tmp_path / "library")
        assert (tmp_path / "library").read_bytes() == b""  # docker cp looks at the image below, not at mounts
        engine.docker("stop", "--time=0", container.id)
    assert changed(runai, container.id) == "A /tmp/in"


def test_cp_onto_a_mount_point(runai: Runai, engine: Engine, tmp_path: Path) -> None:
    """The copy replaces the file that the mount was on; what came so stays, and is covered with the next start."""
    container = Container(runai, "sleep", "600", options=TOOLS)
    (tmp_path / "file").write_text("theirs")
    for path in (f"{HOME}/libcuda.so.1", "/usr/bin/nvidia-smi"):
        engine.docker("cp", tmp_path / "file", f"{container.id}:{path}")
    assert container.execute("cat", f"{HOME}/libcuda.so.1") == "theirs"
    engine.docker("restart", "--time=0", container.id)
    assert is_bounded(container.execute(*ALLOC))
    engine.docker("stop", "--time=0", container.id)
    assert changed(runai, container.id).splitlines() == ["A /usr/bin/nvidia-smi", f"A {HOME}/libcuda.so.1"]


# Images


@pytest.mark.parametrize(
    "script",
    [
        f"echo x > {HOME}/libcuda.so.1; echo x > /usr/lib/libcuda.so.535; ln -s libcuda.so.535 /usr/lib/libcuda.so",
        f"ln -s nowhere {HOME}/libcuda.so.1",
        f"mkdir /opt; echo x > /opt/libcuda.so.1; ln -s /opt/libcuda.so.1 {HOME}/libcuda.so.1",
        f"mkdir /opt; ln -s /opt/libcuda.so.1 {HOME}/libcuda.so.1",
        "rm -rf /tmp /run /var /home /root",
        "chmod 700 /usr /usr/lib; chown -R 1000 /usr/lib",
        "ln -s usr/lib64 /x; mv /usr/lib64 /usr/lib65; ln -s lib65 /usr/lib64",
    ],
)
def test_images(runai: Runai, image: Callable[..., str], script: str) -> None:
    assert is_bounded(runai.run(*ALLOC, image=image(script), options=TOOLS).stdout)


def test_an_image_without_etc(runai: Runai, engine: Engine) -> None:
    images.load(engine, images.NO_ETC)
    assert is_bounded(runai.run(*ALLOC, image=images.NO_ETC, options=TOOLS).stdout)


def test_an_image_of_one_static_program(runai: Runai, engine: Engine) -> None:
    """No /usr/lib and no loader: the share is shown all the same, and the image is left as it was."""
    images.load(engine, images.BARE)
    container = Container(runai, "/busybox", "cat", "/.runai/limits", image=images.BARE)
    engine.docker("wait", container.id)
    assert container.logs().split()[1] == str(3 * GIB)
    added = [line for line in changed(runai, container.id).splitlines() if line[2:].startswith(("/usr", "/.runai"))]
    assert added == []


@pytest.mark.parametrize(
    ("place", "script"),
    [
        (None, "true"),
        ("/usr/local/lib", "true"),
        ("/lib", "true"),
        ("/drv", f"echo /drv:/lib:/usr/lib > /etc/ld-musl-{images.MACHINE}.path"),
    ],
)
def test_a_musl_image(runai: Runai, engine: Engine, image: Callable[..., str], place: str | None, script: str) -> None:
    """The real musl loader, with a driver of the image's own where it looks."""
    images.load(engine, images.ALPINE)
    name = image(script, base=images.ALPINE)
    driver = runai.simhost.lib / "libcuda.so.1"
    volumes = [] if place is None else [f"--volume={driver}:{place}/libcuda.so.1:ro"]
    assert is_bounded(runai.run(*ALLOC, image=name, options=(*MUSL_TOOLS, *volumes)).stdout)


def test_a_musl_image_without_a_loader(runai: Runai, engine: Engine) -> None:
    images.load(engine, images.MUSL)
    assert runai.run("cat", "/.runai/limits", image=images.MUSL).stdout.split()[1] == str(3 * GIB)


# A driver that is put into every program


@pytest.mark.parametrize(
    "value",
    ["/drv/libcuda.so.1", "/nowhere.so /drv/libcuda.so.1", "./drv/libcuda.so:", "$ORIGIN/../../../drv/libcuda.so"],
)
def test_ld_preload(runai: Runai, value: str) -> None:
    options = (*TOOLS, f"--env=LD_PRELOAD={value}", f"--volume={runai.simhost.lib}:/drv:ro")
    assert is_bounded(runai.run(*ALLOC, options=options).stdout)


def test_ld_preload_of_the_image(runai: Runai, image: Callable[..., str]) -> None:
    name = image("true", "ENV LD_PRELOAD=/drv/libcuda.so.1")
    options = (*TOOLS, f"--volume={runai.simhost.lib}:/drv:ro")
    assert is_bounded(runai.run(*ALLOC, image=name, options=options).stdout)


@pytest.mark.parametrize(
    "script",
    [
        "echo '/drv/libcuda.so.1' > /etc/ld.so.preload",
        "echo '# ours: /nowhere.so:/drv/libcuda.so.1' | tr -d '#' > /etc/ld.so.preload",
        "mkdir /opt; ln -s /drv/libcuda.so.1 /opt/other.so; printf /opt/other.so > /etc/ld.so.preload",
    ],
)
def test_ld_so_preload(runai: Runai, image: Callable[..., str], script: str) -> None:
    options = (*TOOLS, f"--volume={runai.simhost.lib}:/drv:ro")
    assert is_bounded(runai.run(*ALLOC, image=image(script), options=options).stdout)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("ln -s /proc/self/root/x /etc/ld.so.preload", "circle"),
        ("ln -s /proc/kmsg /etc/ld.so.preload", "/proc"),
        ("head -c 70000 /dev/zero > /etc/ld.so.conf", "64 KiB"),
        ("echo /proc/self/root/drv/libcuda.so.1 > /etc/ld.so.preload", "circle"),
    ],
)
def test_lists_that_are_refused(runai: Runai, image: Callable[..., str], script: str, why: str) -> None:
    assert why in refusal(runai.run("true", image=image(script), check=False))


def test_ldconfig_at_start_with_the_images_own_configuration(runai: Runai, image: Callable[..., str]) -> None:
    name = image(
        "mkdir -p /etc/ld.so.conf.d; echo 'include ld.so.conf.d/*.conf' > /etc/ld.so.conf; "
        "echo ' /drv # the driver' > /etc/ld.so.conf.d/driver.conf"
    )
    options = (*TOOLS, f"--volume={runai.simhost.lib}:/drv:ro", "--volume=/sbin/ldconfig:/usr/sbin/ldconfig:ro")
    script = f"ldconfig; exec {CUDASH} primary total 'alloc 5g'"
    assert is_bounded(runai.run("sh", "-c", script, image=name, options=options).stdout)
