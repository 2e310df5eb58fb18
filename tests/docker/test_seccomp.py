"""The seccomp edit under real runtimes: a real filter and a listener, with the profiles that containers have."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.able import WAIT_KILLABLE, agent_faults, filter_flags, kernel_fault, ptrace_fault
from runai_runtime.seccomp import HoldAtDriver
from tests.docker import images
from tests.docker.engine import Engine
from tests.docker.listener import Listener
from tests.docker.place import CGROUPS
from tests.programs.build import program

RUNTIMES = ("/usr/sbin/runc", "/usr/bin/crun")

RM_ALLOC = 0xC030462B
SIGN_EXTENDED = 0xFFFFFFFFC030462B
OTHER_TYPE = 0x0030002B
RM_CONTROL = 0xC020462A
XFER_CMD = 0xC01046D3
TCGETS = 0x5401
TIOCSTI = 0x5412
ASKED = {
    RM_ALLOC: "25",
    SIGN_EXTENDED: "25",
    OTHER_TYPE: "25",
    RM_CONTROL: "25",
    XFER_CMD: "22",
    TCGETS: "25",
}

NO_DRIVERS_PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [
        {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 1, "value": RM_ALLOC, "op": "SCMP_CMP_EQ"}]},
        {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13,
         "args": [{"index": 1, "value": TIOCSTI, "op": "SCMP_CMP_EQ"}]},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def spec(engine: Engine) -> dict[str, Any]:
    """What dockerd writes for a container, its default seccomp profile in it."""
    docker = engine.docker
    container = docker("run", "-d", "--network=none", images.BUSYBOX, "sleep", "600").stdout.strip()
    tasks = engine.place.state / "containerd/io.containerd.runtime.v2.task/moby"
    found: dict[str, Any] = json.loads((tasks / container / "config.json").read_text())
    docker("rm", "--force", container)
    return found


@pytest.fixture
def bundle(folder: Path) -> Iterator[Path]:
    """With a root of two static programs."""
    path = folder / "bundle"
    for name in ("dev", "proc", "sys"):
        (path / "rootfs" / name).mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", path / "rootfs/busybox")
    shutil.copy(program("requests", "-static"), path / "rootfs/requests")
    yield path
    shutil.rmtree(path)


def run(
    engine: Engine, runtime: str, bundle: Path, spec: dict[str, Any], *command: str
) -> subprocess.CompletedProcess[str]:
    """COMMAND in a container of SPEC under RUNTIME, in a cgroup of the engine's."""
    spec = copy.deepcopy(spec)
    spec["process"] |= {"args": list(command), "terminal": False, "cwd": "/"}
    spec["root"] = {"path": "rootfs"}
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] not in ("bind", "cgroup")]
    spec["linux"]["cgroupsPath"] = f"/{engine.place.cgroup}/seccomp"
    spec.pop("hooks", None)
    (bundle / "config.json").write_text(json.dumps(spec))
    # crun takes no host with both versions of cgroups (engine.py).
    own = f"/usr/bin/umount {CGROUPS}/unified && " if (CGROUPS / "unified").is_dir() else ""
    return subprocess.run(
        [
            *("/usr/bin/unshare", "-m", "--propagation", "slave", "/bin/sh", "-c", own + 'exec "$@"', "sh"),
            *(runtime, "--root", str(bundle / "root"), "run", "--bundle", str(bundle), "seccomp-test"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("kind", ["docker's", "none", "a user's"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_held_requests_reach_the_listener_and_no_others(
    engine: Engine, folder: Path, bundle: Path, spec: dict[str, Any], runtime: str, kind: str
) -> None:
    spec = copy.deepcopy(spec)
    if kind == "docker's":
        assert spec["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    else:
        spec["linux"]["seccomp"] = None if kind == "none" else copy.deepcopy(NO_DRIVERS_PROFILE)
    HoldAtDriver(str(folder / "agent")).apply(spec)
    with Listener.at(folder / "agent") as listener:
        done = run(engine, runtime, bundle, spec, "/busybox", "true")
        assert (done.returncode, done.stderr) == (0, "")
        asked = ASKED | ({TIOCSTI: "13"} if kind == "a user's" else {})
        done = run(engine, runtime, bundle, spec, "/requests", *map(hex, asked))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == list(asked.values())
    assert listener.requests == [RM_ALLOC, SIGN_EXTENDED, OTHER_TYPE]
    assert len(listener.messages) == 2


@pytest.mark.parametrize("killable", [True, False])
def test_a_signal_does_not_interrupt_a_call_that_was_taken(
    engine: Engine, folder: Path, bundle: Path, spec: dict[str, Any], *, killable: bool
) -> None:
    """With the flag that crun takes; runc has it since 1.5, which no Debian has yet."""
    flags = filter_flags(["/usr/bin/crun"])["/usr/bin/crun"]
    assert flags == [WAIT_KILLABLE]
    spec = copy.deepcopy(spec)
    HoldAtDriver(str(folder / "agent"), flags if killable else ()).apply(spec)
    with Listener.at(folder / "agent") as listener:
        listener.delay = 0.4
        done = run(engine, "/usr/bin/crun", bundle, spec, "/requests", "-a", hex(RM_ALLOC))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["25" if killable else "4"]


def test_both_runtimes_and_this_kernel_can() -> None:
    assert agent_faults(RUNTIMES) == dict.fromkeys(RUNTIMES, "")


@pytest.mark.parametrize("release", ["5.8.0-generic", "4.19.0", "", "?"])
def test_an_old_kernel_can_not(release: str) -> None:
    assert "5.9 or later is needed" in kernel_fault(release)


@pytest.mark.parametrize(("scope", "able"), [("0\n", True), ("1\n", True), ("2\n", True), ("3\n", False), (None, True)])
def test_yama_may_let_nobody_read_a_message(tmp_path: Path, scope: str | None, able: bool) -> None:
    path = tmp_path / "ptrace_scope"
    if scope is not None:
        path.write_text(scope)
    assert (ptrace_fault(str(path)) == "") is able


@pytest.mark.parametrize(
    ("script", "able"),
    [
        ('echo \'{"linux": {"seccomp": {"actions": ["SCMP_ACT_NOTIFY"]}}}\'', True),
        ('echo \'{"linux": {"seccomp": {"actions": ["SCMP_ACT_ALLOW"]}}}\'', False),
        ("echo '{}'", False),
        ("exit 1", False),
        ("[ $1 = --version ] && echo 'crun version 0.19' && echo '+SECCOMP +EBPF'", True),
        ("[ $1 = --version ] && echo 'crun version 0.18.2' && echo '+SECCOMP +EBPF'", False),
        ("[ $1 = --version ] && echo 'crun version 1.8' && echo '+EBPF'", False),
    ],
)
def test_what_a_runtime_says_of_itself(tmp_path: Path, script: str, able: bool) -> None:
    runtime = tmp_path / "runtime"
    runtime.write_text(f"#!/bin/sh\n{script}\n")
    runtime.chmod(0o755)
    assert (agent_faults([str(runtime)])[str(runtime)] == "") is able


@pytest.mark.parametrize(
    ("script", "release", "able"),
    [
        (f'echo \'{{"linux": {{"seccomp": {{"supportedFlags": ["{WAIT_KILLABLE}"]}}}}}}\'', "5.19.0-rc1", True),
        (f'echo \'{{"linux": {{"seccomp": {{"supportedFlags": ["{WAIT_KILLABLE}"]}}}}}}\'', "5.18.19", False),
        (f'echo \'{{"linux": {{"seccomp": {{"knownFlags": ["{WAIT_KILLABLE}"]}}}}}}\'', "6.1", False),
        ('echo \'{"linux": {"seccomp": null}}\'', "6.1", False),
        ("echo 'crun version 1.6' && echo '+SECCOMP +EBPF'", "6.1", True),
        ("echo 'crun version 1.5' && echo '+SECCOMP +EBPF'", "6.1", False),
        ("exit 1", "6.1", False),
    ],
)
def test_who_takes_that_flag(tmp_path: Path, script: str, release: str, able: bool) -> None:
    runtime = tmp_path / "runtime"
    runtime.write_text(f"#!/bin/sh\n{script}\n")
    runtime.chmod(0o755)
    assert filter_flags([str(runtime)], release) == ({str(runtime): [WAIT_KILLABLE]} if able else {})
