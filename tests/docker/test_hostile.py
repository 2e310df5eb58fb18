"""Hostile images, volumes and circumstances. What is marked OPEN gets through, as docs/limits.md says; strict, so that
the mark goes with the fix.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docker import images
from tests.docker.engine import EngineError
from tests.docker.host import Runai, grants_in, host_mounts
from tests.loader_cache import cache_text
from tests.programs.build import program

GIB = 1 << 30
CUDASH = "/usr/local/bin/cudash"
ALLOC = (CUDASH, "primary", "total", "alloc 5g")


def OPEN(why: str) -> pytest.MarkDecorator:  # noqa: N802 - reads as a mark
    return pytest.mark.xfail(strict=True, reason=why)


@pytest.fixture(autouse=True)
def leaves_nothing(runai: Runai) -> Iterator[None]:
    own = (runai.engine.place.data, runai.engine.place.state, runai.state.parent)
    before = host_mounts(*own)
    yield
    runai.engine.remove_containers()
    left = grants_in(runai.state)
    for name in left:
        subprocess.run(["/bin/rm", "-rf", runai.state / name], check=True)
    assert left == []
    assert host_mounts(*own) == before


@pytest.fixture
def drivers(runai: Runai) -> Path:
    """A driver of one's own, for a volume: the simulated one's libraries."""
    return runai.simhost.lib


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 125, (done.stdout, done.stderr)
    _, found, sentence = done.stderr.partition("runai: ")
    assert found, done.stderr
    assert "nobody expected" not in sentence
    return sentence


def is_bounded(done: subprocess.CompletedProcess[str]) -> bool:
    """Refused in a sentence, or with the share of 3 GiB."""
    if done.returncode == 125:
        return bool(refusal(done))
    lines = done.stdout.splitlines()
    return f"total -> 0 CUDA_SUCCESS {3 * GIB}" in lines and "OUT_OF_MEMORY" in lines[-1]


# The share that a person asks for


@pytest.mark.parametrize("name", ["RUNAI_GPU_MEMORY_LIMIT", "RUNAI_GPU_MEMORY_REQUEST"])
def test_an_image_can_not_raise_what_the_person_asked_for(runai: Runai, image: Callable[..., str], name: str) -> None:
    done = runai.run("cat", "/.runai/limits", memory="1g", image=image("true", f"ENV {name}=1"), check=False)
    if done.returncode != 125:
        assert int(done.stdout.split()[1]) <= GIB
        grants = done.stdout
        assert name != "RUNAI_GPU_MEMORY_REQUEST", f"guaranteed a whole GPU: {grants}"


@pytest.mark.parametrize("name", ["RUNAI_GPU_MEMROY", "RUNAI_GPU_MEM", "RUNAI_GPU_MEMORY_LIMT"])
def test_a_name_that_is_none_of_ours(runai: Runai, name: str) -> None:
    assert name in refusal(runai.run("true", memory=None, options=(f"--env={name}=1g",), check=False))


# A driver that comes with the image


@pytest.mark.parametrize(
    "path",
    [
        "/drv",
        "/tmp/none:/drv:",
        "drv",
        "/tmp/none:",
        "$ORIGIN/../../../drv",
        "/drv/$LIB",
        "/drv$x",
        "/drv/$LIBRARY",
        "/none\n/drv",
    ],
)
def test_a_driver_in_the_search_path(runai: Runai, drivers: Path, path: str) -> None:
    where = {"/tmp/none:": "/work", "/drv/$LIB": f"/drv/lib/{images.MULTIARCH}"}
    folder = where.get(path, path if "$" in path and "ORIGIN" not in path else "/drv")
    options = (
        *(f"--volume={program('cudash')}:{CUDASH}:ro", f"--volume={drivers}:{folder}:ro"),
        *(f"--env=LD_LIBRARY_PATH={path}", f"--workdir={'/work' if folder == '/work' else '/'}"),
    )
    assert is_bounded(runai.run(*ALLOC, options=options, check=False))


@pytest.mark.parametrize(
    ("place", "start"),
    [
        ("/usr/local/cuda/compat", "export LD_LIBRARY_PATH=/usr/local/cuda/compat"),
        (
            "/usr/local/cuda/compat/lib.real",
            "ln -sfn lib.real /usr/local/cuda/compat/lib; export LD_LIBRARY_PATH=/usr/local/cuda/compat/lib",
        ),
        ("/usr/local/cuda-12.4/compat", "export LD_LIBRARY_PATH=/usr/local/cuda-12.4/compat"),
        pytest.param("/opt/conda/lib", "export LD_LIBRARY_PATH=/opt/conda/lib", marks=OPEN("set by the entry point")),
        pytest.param("/drv", "echo /drv > /etc/ld.so.conf; ldconfig", marks=OPEN("ldconfig at start")),
    ],
)
def test_a_driver_that_the_entry_point_turns_to(runai: Runai, drivers: Path, place: str, start: str) -> None:
    options = (
        *(f"--volume={program('cudash')}:{CUDASH}:ro", f"--volume={drivers}:{place}:ro"),
        "--volume=/sbin/ldconfig:/usr/sbin/ldconfig:ro",
    )
    script = f"{start}; exec {CUDASH} primary total 'alloc 5g'"
    assert is_bounded(runai.run("sh", "-c", script, options=options, check=False))


def test_a_driver_that_is_preloaded(runai: Runai, drivers: Path, image: Callable[..., str]) -> None:
    name = image("echo /drv/libcuda.so.1 > /etc/ld.so.preload")
    options = (f"--volume={program('cudash')}:{CUDASH}:ro", f"--volume={drivers}:/drv:ro")
    assert is_bounded(runai.run(*ALLOC, image=name, options=options, check=False))


@pytest.mark.parametrize("path", ["/drv/other.so", "drv/libcuda.so.1"])
def test_a_driver_in_a_cache_made_by_hand(runai: Runai, drivers: Path, tmp_path: Path, path: str) -> None:
    cache = tmp_path / "ld.so.cache"
    cache.write_bytes(cache_text([(b"libcuda.so.1", path.encode())], "newer"))
    options = (
        *(f"--volume={program('cudash')}:{CUDASH}:ro", f"--volume={cache}:/etc/ld.so.cache:ro"),
        f"--volume={drivers / 'libcuda.so.1'}:/{path.lstrip('/')}:ro",
    )
    assert is_bounded(runai.run(*ALLOC, options=options, check=False))


@pytest.mark.parametrize("path", ["drv/libcuda.so.1", "/drv/$PLATFORM/libcuda.so.1"])
def test_a_driver_that_is_preloaded_from_an_odd_path(
    runai: Runai, drivers: Path, image: Callable[..., str], path: str
) -> None:
    name = image(f"echo '{path}' > /etc/ld.so.preload")
    options = [f"--volume={program('cudash')}:{CUDASH}:ro"]
    folders = ["/drv"] if "$" not in path else ["/drv/haswell", "/drv/xeon_phi", f"/drv/{os.uname().machine}"]
    options += [f"--volume={drivers}:{folder}:ro" for folder in folders]
    assert is_bounded(runai.run(*ALLOC, image=name, options=tuple(options), check=False))


def test_look_ups_without_end(runai: Runai, image: Callable[..., str]) -> None:
    some = "cd /etc/ld.so.conf.d; seq 9000 | sed s:^:/: > 0.conf; for i in $(seq 600); do ln -s 0.conf $i.conf; done"
    assert "more than 2 seconds" in refusal(
        runai.run("true", image=image(f"mkdir -p /etc/ld.so.conf.d; {some}"), check=False)
    )


def test_ldconfig_in_the_container_changes_nothing(runai: Runai) -> None:
    options = (f"--volume={program('cudash')}:{CUDASH}:ro", "--volume=/sbin/ldconfig:/usr/sbin/ldconfig:ro")
    script = f"echo /lib/x86_64-linux-gnu > /etc/ld.so.conf; ldconfig; exec {CUDASH} primary total 'alloc 5g'"
    assert is_bounded(runai.run("sh", "-c", script, options=options))


# The host


def test_the_kernels_log_is_not_read(runai: Runai, image: Callable[..., str]) -> None:
    """/proc/kmsg gives each message once: who reads it takes it from the host's log."""
    libc = ctypes.CDLL(None)
    name = image("ln -sf /proc/kmsg /etc/ld.so.cache")
    Path("/dev/kmsg").write_text("runai-test: still here\n")
    unread = libc.klogctl(9, None, 0)
    assert unread > 0
    runai.run("true", image=name, check=False)
    assert libc.klogctl(9, None, 0) >= unread


def test_a_cache_of_slashes(runai: Runai, image: Callable[..., str]) -> None:
    """It is read within the seconds that a hook has, or the container would not start."""
    some = "x=$(head -c 4000 /dev/zero | tr '\\0' /); for i in $(seq 200); do printf '%slibcuda.so.1\\0' $x; done"
    name = image(f"{some} > /etc/ld.so.cache")
    runai.run("true", image=name)


def test_hooks_end_some_time(runai: Runai) -> None:
    arguments = runai.arguments(memory="3g")
    container = runai.engine.docker("run", "-d", *arguments, images.BUSYBOX, "sleep", "60").stdout.strip()
    bundle = next(runai.engine.place.state.rglob(f"{container}/config.json"))
    hooks = json.loads(bundle.read_text())["hooks"]
    runai.engine.remove_containers()
    ours = [hook for stage in hooks.values() for hook in stage if "runai" in hook["path"]]
    assert ours and not any("timeout" in hook for hook in ours), "crun would wait that long for a hook that has ended"


def test_our_library_on_the_host_with_sys_admin(runai: Runai) -> None:
    library = Path(json.loads((runai.state / "host.json").read_text())["ours"]["libcuda.so.1"])
    before = library.stat()
    target = f"/usr/lib/{images.MULTIARCH}/libcuda.so.1"
    script = f"mount -o remount,rw,bind {target}; touch {target}; umount {target}; mount -o remount,rw {target}; true"
    options = ("--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined")
    runai.run("sh", "-c", script, options=options, check=False)
    changed = library.stat().st_mtime_ns != before.st_mtime_ns
    os.utime(library, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not changed


def test_nothing_can_be_unmounted_with_dockers_capabilities(runai: Runai) -> None:
    target = f"/usr/lib/{images.MULTIARCH}/libcuda.so.1"
    script = (
        f"for at in {target} /.runai/limits /.runai/account/page /.runai; do mount -o remount,rw,bind $at && echo BAD; "
        f"umount -l $at && echo BAD; mv $at /tmp/x && echo BAD; rm -rf $at && echo BAD; done; "
        "unshare -Urm true && echo BAD; true"
    )
    assert "BAD" not in runai.run("sh", "-c", script).stdout


def test_a_volume_over_the_library_folder(runai: Runai, tmp_path: Path) -> None:
    for name in ("libc.so.6", "ld-linux-x86-64.so.2"):
        (tmp_path / name).write_bytes(Path("/lib", images.MULTIARCH, name).read_bytes())
    before = sorted(path.name for path in tmp_path.iterdir())
    runai.run("true", options=(f"--volume={tmp_path}:/usr/lib/{images.MULTIARCH}",), check=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def swap(volume: Path, stop: threading.Event) -> None:
    """What another process does to a volume while a container with it starts."""
    (volume / "file").write_text("x" * 100)
    new = volume / "new"
    while not stop.is_set():
        for name in ("libcuda.so.1", "libnvidia-ml.so.1", "libcuda.so"):
            for target in ("/etc/passwd", "../../../../../../../../victim/x", None):
                with contextlib.suppress(OSError):
                    if target:
                        new.symlink_to(target)
                    else:
                        new.hardlink_to(volume / "file")
                    new.rename(volume / name)
            with contextlib.suppress(OSError):
                (volume / name).unlink()


def test_links_of_a_volume_that_change_meanwhile(runai: Runai, tmp_path: Path) -> None:
    before = [Path(path).stat() for path in ("/etc/passwd", "/etc/ld.so.cache")]
    stop = threading.Event()
    thread = threading.Thread(target=swap, args=(tmp_path, stop))
    thread.start()
    try:
        for _ in range(5):
            options = (f"--volume={tmp_path}:/usr/local/nvidia/lib64", f"--volume={tmp_path}:/usr/local/cuda/lib64")
            done = runai.run("echo", "STARTED", options=options, check=False)
            assert done.stdout == "STARTED\n" or refusal(done)
    finally:
        stop.set()
        thread.join()
    after = [Path(path).stat() for path in ("/etc/passwd", "/etc/ld.so.cache")]
    assert [(one.st_ino, one.st_mtime_ns) for one in before] == [(one.st_ino, one.st_mtime_ns) for one in after]


@pytest.mark.parametrize(
    "script",
    [
        "rm -f /etc/ld.so.cache; mkfifo /etc/ld.so.cache",
        "mkdir -p /.runai/real /.runai/account; echo GPU-x 99999999999 > /.runai/limits; ln -s /etc /.runai/real/x",
        "mkdir -p /usr/local/lib/glibc-hwcaps; cd /usr/local/lib/glibc-hwcaps; for i in $(seq 2000); do mkdir $i; done",
        "rm -rf /usr/local/lib; ln -s /proc/sys /usr/local/lib",
        "mv /usr/lib/x86_64-linux-gnu /opt; ln -s ../../../../../../opt/x86_64-linux-gnu /usr/lib/x86_64-linux-gnu",
    ],
)
def test_odd_images_that_start(runai: Runai, image: Callable[..., str], script: str) -> None:
    assert runai.run("cat", "/.runai/limits", image=image(script)).stdout.split()[1] == str(3 * GIB)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("mkfifo /.runai", "/.runai"),
        ("ln -s l /usr/local/l; rm -rf /usr/local/lib; ln -s /usr/local/l /usr/local/lib", "circle"),
        ("mkdir -p /usr/local/lib; ln -s /dev/zero /usr/local/lib/libcuda.so.1", "no regular file"),
        ("mkdir -p /usr/local/lib; cd /usr/local/lib; for i in $(seq 300); do echo x > libcuda.so.$i; done", "256"),
    ],
)
def test_odd_images_that_are_refused(runai: Runai, image: Callable[..., str], script: str, why: str) -> None:
    assert why in refusal(runai.run("true", image=image(script), check=False))


@pytest.mark.parametrize(
    "option", ["--tmpfs=/.runai", "--volume=VOLUME:/.runai", "--volume=VOLUME/limits:/.runai/limits"]
)
def test_something_at_our_place(runai: Runai, tmp_path: Path, option: str) -> None:
    (tmp_path / "limits").write_text("GPU-x 99999999999 0\n")
    done = runai.run("cat", "/.runai/limits", options=(option.replace("VOLUME", str(tmp_path)),))
    assert done.stdout.split()[1] == str(3 * GIB)
    assert [path.name for path in tmp_path.iterdir()] == ["limits"]


# Failures


@pytest.fixture
def created(runai: Runai) -> str:
    arguments = runai.arguments(memory="3g")
    return runai.engine.docker("create", *arguments, images.BUSYBOX, "cat", "/.runai/limits").stdout.strip()


def start(runai: Runai, container: str) -> subprocess.CompletedProcess[str]:
    return runai.engine.docker("start", "-a", container, check=False)


@pytest.mark.parametrize("grant", [None, "", '{"version": 1', "{}"])
def test_a_grant_that_was_cut_off(runai: Runai, created: str, grant: str | None) -> None:
    folder = runai.state / created
    folder.mkdir()
    if grant is not None:
        (folder / "grant.json").write_text(grant)
    assert str(3 * GIB) in start(runai, created).stdout


@contextlib.contextmanager
def small_state(runai: Runai) -> Iterator[Path]:
    """The state directory on a file system of its own."""
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=2m,mode=0711", "none", runai.state], check=True)
    try:
        runai.run("true")  # the host is scanned anew
        yield runai.state
    finally:
        runai.engine.remove_containers()
        subprocess.run(["/bin/umount", runai.state], check=True)


def test_no_space_for_the_grant_and_then_space(runai: Runai, created: str) -> None:
    with small_state(runai) as state:
        with contextlib.suppress(OSError):
            (state / "fill").write_bytes(b"x" * (2 << 20))
        full = start(runai, created)
        left = [path.name for path in state.iterdir() if path.name not in ("fill", "host.json", "libvgpu", "lock")]
        (state / "fill").unlink()
        again = start(runai, created)
    assert full.returncode != 0
    assert "runai: " in full.stderr
    assert "nobody expected" not in full.stderr
    assert left == []
    assert str(3 * GIB) in again.stdout


def test_a_read_only_state_directory(runai: Runai) -> None:
    with small_state(runai) as state:
        subprocess.run(["/bin/mount", "-o", "remount,ro", state], check=True)
        done = runai.run("true", check=False)
    assert str(runai.state) in refusal(done)


ODD = {
    "hooks null": {"hooks": None},
    "hooks list": {"hooks": []},
    "stage string": {"hooks": {"prestart": "x"}},
    "root with NUL": {"root": {"path": "a\0b"}},
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_bundle(runai: Runai, tmp_path: Path, name: str) -> None:
    subprocess.run(["/usr/sbin/runc", "spec", "-b", tmp_path], check=True)
    (tmp_path / "rootfs").mkdir()
    spec = json.loads((tmp_path / "config.json").read_text())
    spec["process"]["env"].append("RUNAI_GPU_MEMORY=3g")
    (tmp_path / "config.json").write_text(json.dumps(spec | ODD[name]))
    arguments: list[str | Path] = ["--root", tmp_path / "root", "create", "--bundle", tmp_path, "odd"]
    done = subprocess.run([runai.program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "nobody expected" not in done.stderr


@contextlib.contextmanager
def other_hook(runai: Runai, folder: Path, stage: str, instead: str) -> Iterator[None]:
    """The real hook, but for one stage."""
    wrapper = folder / "hook.sh"
    wrapper.write_text(f'#!/bin/sh\nif [ "$1" = {stage} ]; then {instead}; fi\nexec {runai.config["hook"]} "$@"\n')
    wrapper.chmod(0o755)
    config = folder / "config.json"
    saved = config.read_text()
    config.write_text(json.dumps(json.loads(saved) | {"hook": str(wrapper)}))
    try:
        yield
    finally:
        config.write_text(saved)
        wrapper.unlink()


@pytest.mark.parametrize("after", ["0.001", "0.003"])
def test_a_hook_that_is_killed(runai: Runai, folder: Path, created: str, after: str) -> None:
    kill = f'timeout -s KILL {after} {runai.config["hook"]} "$@" || exit 1; exit 0'
    with other_hook(runai, folder, "createContainer", kill):
        done = start(runai, created)
    assert done.returncode != 0 or str(3 * GIB) in done.stdout
    assert str(3 * GIB) in start(runai, created).stdout
    assert [line for line in runai.engine.docker("diff", created).stdout.splitlines() if line[0] == "A"] == []


def test_a_poststop_that_never_ran(runai: Runai, folder: Path, created: str) -> None:
    with other_hook(runai, folder, "poststop", "exit 1"):
        start(runai, created)
    assert str(3 * GIB) in start(runai, created).stdout
    assert [line for line in runai.engine.docker("diff", created).stdout.splitlines() if line[0] == "A"] == []


def test_many_at_once(runai: Runai) -> None:
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        runs = [pool.submit(runai.run, "cat", "/.runai/limits", memory="100m") for _ in range(20)]
        assert [run.result().stdout.split()[1] for run in runs] == [str(100 << 20)] * 20


def test_killed_while_it_starts(runai: Runai) -> None:
    for milliseconds in (20, 80, 140, 200):
        arguments = runai.arguments(memory="3g")
        container = runai.engine.docker("create", *arguments, images.BUSYBOX, "sleep", "60").stdout.strip()
        with runai.engine.popen("start", container):
            time.sleep(milliseconds / 1000)
            runai.engine.docker("kill", container, check=False)
        runai.engine.docker("rm", "-f", container)


def test_a_committed_running_container(runai: Runai) -> None:
    container = runai.engine.docker("run", "-d", *runai.arguments(memory="3g"), images.BUSYBOX, "sleep", "60")
    name = container.stdout.strip()
    runai.engine.docker("commit", name, "committed:latest")
    try:
        assert "3072MiB" in runai.run("nvidia-smi", image="committed:latest").stdout
    finally:
        runai.engine.remove_containers()
        with contextlib.suppress(EngineError):
            runai.engine.docker("rmi", "committed:latest")
