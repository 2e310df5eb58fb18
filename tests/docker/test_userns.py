"""Containers with a user namespace of their own, as dockerd's userns-remap makes them: the share is shown and held, and
the container's root, who is nobody on the host, can't undo it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runai_runtime.configure import configure
from tests.docker import images
from tests.docker.engine import REMAPPED, Engine
from tests.docker.host import CUDASH, Container, Runai, changed, configuration, grants_in, host_mounts, mounts_in
from tests.programs.build import program
from tests.simgpu.host import SimHost
from tests.toolkit import cdi

GIB = 1 << 30
SHOWN = "0MiB /   3072MiB"
ALLOC = (CUDASH, "primary", "total", "alloc 2g", "alloc 1g")
ANSWERS = ["CUDA_SUCCESS", f"CUDA_SUCCESS {3 * GIB}", "CUDA_SUCCESS 0", "CUDA_ERROR_OUT_OF_MEMORY"]
TOOLS = (f"--volume={program('cudash')}:{CUDASH}:ro",)
LIBRARY = f"/usr/lib/{images.MULTIARCH}/libcuda.so.1"


@pytest.fixture(scope="module", params=["/usr/sbin/runc", "/usr/bin/crun"], ids=["runc", "crun"])
def remapped(request: pytest.FixtureRequest, folder: Path, simhost: SimHost) -> Iterator[Runai]:
    """An engine with userns-remap, without agents (test_agent_hosts.py has those). As on Debian, programs can't be run
    from where the state is.
    """
    folder.chmod(0o711)
    home = folder / f"remapped-{Path(request.param).name}"
    registered = home / "runai-runtime"
    own = {"fitted": str(home / "fitted"), "enforcement": "interposer"}
    config = configuration(home, simhost, request.param) | own
    state = Path(config["state"])
    state.mkdir(parents=True)
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "noexec,nosuid,nodev,mode=0711", "none", state], check=True)
    try:
        with Engine({"runai": registered}, crun="crun" in request.param, remap=True) as engine:
            images.load(engine)
            configure(config, home / "config.json", registered)
            yield Runai(engine, simhost, config, registered)
    finally:
        subprocess.run(["/bin/umount", state], check=True)


@pytest.fixture(autouse=True)
def leaves_nothing(remapped: Runai) -> Iterator[None]:
    before = host_mounts()
    yield
    remapped.engine.remove_containers()
    if "crun" in remapped.config["runtime"]:
        remapped.run("true")  # crun calls no poststop for a container that was refused; the next create does it
    assert grants_in(remapped.state) == []
    assert mounts_in(remapped.engine) == []
    assert host_mounts() == before


def answers(output: str) -> list[str]:
    return [line.partition(" -> ")[2].partition(" ")[2] for line in output.splitlines()]


@pytest.mark.parametrize("options", ["", "--read-only", "--user=1000 --init --tmpfs=/run", "--userns=host"])
def test_the_share_is_shown_and_held(remapped: Runai, options: str) -> None:
    done = remapped.run(*ALLOC, options=(*TOOLS, *options.split()))
    assert answers(done.stdout) == ANSWERS
    assert remapped.simhost.used() == 0


def test_root_is_nobody_on_the_host(remapped: Runai) -> None:
    shown = remapped.run("sh", "-c", "cat /proc/self/uid_map; stat -c %u /.runai /.runai/limits").stdout.split()
    assert shown[:2] == ["0", str(REMAPPED)]
    assert shown[3:] == ["0", "65534"]


def test_exec_stop_and_start(remapped: Runai) -> None:
    container = Container(remapped, "sleep", "600", options=TOOLS)
    assert SHOWN in container.execute("nvidia-smi")
    assert answers(container.execute(*ALLOC)) == ANSWERS
    remapped.engine.docker("stop", "--time=0", container.id)
    assert not container.grant.exists()
    assert changed(remapped, container.id) == ""
    remapped.engine.docker("start", container.id)
    assert SHOWN in container.execute("nvidia-smi")


UNDO = (
    f"for at in {LIBRARY} /.runai/limits /.runai/account/page /.runai; do "
    "umount -l $at && echo BAD; mv $at /tmp/x && echo BAD; rm -rf $at && echo BAD; done; "
    f"for at in {LIBRARY} /.runai/limits /.runai; do mount -o remount,rw,bind $at && echo BAD; done; "
    "mkdir /tmp/root; mount --bind / /tmp/root && echo BAD; nvidia-smi"
)


@pytest.mark.parametrize("shell", ["sh -c", "unshare -Urm sh -c"])
def test_root_of_the_container_can_not_undo_it(remapped: Runai, shell: str) -> None:
    """Nor in a user namespace of its own, in which it may mount: what was there before is locked."""
    done = remapped.run(*shell.split(), UNDO, options=("--security-opt=seccomp=unconfined",))
    assert "BAD" not in done.stdout
    assert SHOWN in done.stdout


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 125, (done.stdout, done.stderr)
    return done.stderr


def test_sys_admin_is_refused(remapped: Runai) -> None:
    assert "CAP_SYS_ADMIN" in refusal(remapped.run("true", options=("--cap-add=SYS_ADMIN",), check=False))


@contextlib.contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    before = path.stat().st_mode & 0o7777
    path.chmod(bits)
    try:
        yield
    finally:
        path.chmod(before)


@pytest.mark.parametrize(("place", "bits"), [("fitted", 0o700), ("s", 0o700), ("lib", 0o750)])
def test_what_the_mapped_root_can_not_reach(remapped: Runai, place: str, bits: int) -> None:
    home = remapped.state.parent
    path = remapped.simhost.lib if place == "lib" else home / place
    with mode(path, bits):
        sentence = refusal(remapped.run("true", check=False))
        assert remapped.run("true", options=("--userns=host",)).returncode == 0
    assert f"the host's user {REMAPPED}, can't get at the folder \"{path}\"" in sentence


def test_our_libraries_where_nothing_may_be_run(remapped: Runai) -> None:
    config = remapped.state.parent / "config.json"
    saved = config.read_text()
    config.write_text(json.dumps(json.loads(saved) | {"fitted": str(remapped.state / "libvgpu")}))
    try:
        sentence = refusal(remapped.run("true", check=False))
        assert answers(remapped.run(*ALLOC, options=(*TOOLS, "--userns=host")).stdout) == ANSWERS
    finally:
        config.write_text(saved)
        subprocess.run(["/bin/rm", "-r", remapped.state / "libvgpu"], check=True)
        remapped.run("true")
    assert "noexec" in sentence


def test_a_cdi_specification(remapped: Runai) -> None:
    folder = Path(remapped.config["cdi_spec_dirs"][0])
    driver = {"lib": str(remapped.simhost.lib), "bin": str(remapped.simhost.bin), "dev": str(remapped.simhost.dev)}
    values = cdi.specification(driver, "/opt/driver/lib", "")
    # The simulated nodes lie on a mount with nodev, and runc would mount them without, which no user namespace may.
    files = [mount for mount in values["containerEdits"]["mounts"] if not mount["containerPath"].startswith("/dev/")]
    values["containerEdits"] = {"mounts": files}
    values["devices"] = [{"name": "0", "containerEdits": {"env": ["A=1"]}}]
    folder.mkdir()
    (folder / "nvidia.json").write_text(json.dumps(values))
    try:
        container = Container(remapped, "sleep", "600", options=TOOLS)
        assert json.loads((container.grant / "grant.json").read_text())["injected"] == "cdi"
        assert answers(container.execute(*ALLOC)) == ANSWERS
        assert "libcuda.so" in container.execute("ls", "/opt/driver/lib")
        remapped.engine.docker("stop", "--time=0", container.id)
        assert changed(remapped, container.id) == ""
    finally:
        shutil.rmtree(folder)
