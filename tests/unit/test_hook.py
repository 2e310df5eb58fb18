"""runai-hook: the native program that runc and crun start as OCI hooks.

The hook is built twice: with gcc and its sanitizers, and as it ships (static, musl). The mounts of createContainer are
made in a mount namespace of their own, in which a small program then looks around; the host's side must not change.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.compat import stamp
from tests.loader_cache import cache_text

HOOK = Path(__file__).parents[2] / "hook"
TRIPLET = f"{os.uname().machine}-linux-gnu"
HOME = f"/usr/lib/{TRIPLET}"
OURS = {"libcuda.so.1": b"ours cuda", "libnvidia-ml.so.1": b"ours nvml"}
REAL = {"libcuda.so.1": b"real cuda", "libnvidia-ml.so.1": b"real nvml"}
PTX = "libnvidia-ptxjitcompiler.so.1"
LIMITS = b"GPU-1 3221225472\n"
# docker turns an error message with one of these into another exit code.
FORBIDDEN = ("no such file or directory", "executable file not found", "permission denied", "not a directory")

WARNINGS = [
    *("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion", "-Wstrict-prototypes", "-Wmissing-prototypes"),
    *("-Wold-style-definition", "-Wpointer-arith", "-Wcast-align", "-Wwrite-strings", "-Wundef", "-Wformat=2"),
    *("-Wnull-dereference", "-Wvla", "-Wswitch-enum", "-Wimplicit-fallthrough", "-Wredundant-decls"),
]
GCC_WARNINGS = ["-Wlogical-op", "-Wduplicated-cond", "-Wduplicated-branches", "-Wjump-misses-init"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g"]


# Runs in the mount namespace: set-up commands, the hook, then a look at the container's root and its mounts.
INSIDE = r"""
import json, os, stat, subprocess, sys
job = json.load(sys.stdin)
for command in job["before"]:
    subprocess.run(command, shell=True, check=True)
results = []
for _ in range(job["times"]):
    done = subprocess.run(job["hook"], input=job["state"].encode("latin-1"), capture_output=True, env={})
    results.append([done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")])
root, tree = job["root"], {}
for folder, folders, files in os.walk(root) if job["walk"] else ():
    folders[:] = [name for name in folders if folder + "/" + name != root + "/proc"]
    for name in folders + files:
        path = os.path.join(folder, name)
        facts, inside = os.lstat(path), path[len(root):]
        if stat.S_ISLNK(facts.st_mode):
            tree[inside] = "-> " + os.readlink(path)
        elif stat.S_ISREG(facts.st_mode):
            with open(path, "rb") as file:
                tree[inside] = file.read(64).decode("latin-1")
after = [subprocess.run(command, shell=True, capture_output=True, text=True).stdout for command in job["after"]]
mounts = []
for line in open("/proc/self/mountinfo"):
    fields = line.split()
    if (fields[4] + "/").startswith(root + "/"):
        mounts.append([fields[4][len(root):], fields[5], fields[6], line.split(" - ")[1].split()[0]])
json.dump({"results": results, "tree": tree, "mounts": mounts, "after": after}, sys.stdout)
"""


# Starts the hook under a seccomp filter. 38 is PR_SET_NO_NEW_PRIVS, 22 PR_SET_SECCOMP, 2 SECCOMP_MODE_FILTER.
OLD_KERNEL = r"""#!{python}
import ctypes, os, struct, sys
program = ctypes.create_string_buffer(open("{filter}", "rb").read())
header = ctypes.create_string_buffer(struct.pack("@HP", (len(program) - 1) // 8, ctypes.addressof(program)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, header, 0, 0) == 0
os.execve("{hook}", ["{hook}", *sys.argv[1:]], {{}})
"""


def build(compiler: list[str], target: Path) -> Path:
    sources = sorted(str(path) for path in HOOK.glob("*.c"))
    done = subprocess.run(
        [*compiler, "-std=gnu17", "-D_GNU_SOURCE", *WARNINGS, *sources, "-o", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="session")
def checked_hook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hook with gcc's sanitizers: any error of theirs ends it with a report and not with a sentence of ours."""
    gcc = shutil.which("gcc")
    if not gcc:
        pytest.fail("no gcc")
    return build([gcc, *SANITIZERS, *GCC_WARNINGS], tmp_path_factory.mktemp("hook") / "runai-hook")


@pytest.fixture(scope="session")
def shipped_hook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", f"{os.uname().machine}-linux-musl", "-static", "-O2"]
    zig.append("-Wl,--strip-debug")  # as the build does it: zig makes another C library where this differs
    return build(zig, tmp_path_factory.mktemp("hook") / "runai-hook")


@dataclass
class Result:
    """What a createContainer hook did and what its mount namespace looked like then."""

    code: int
    stderr: str
    tree: dict[str, str]
    mounts: dict[str, tuple[str, str, str]]  # mount point: options, optional field, type
    after: list[str]


@dataclass
class Container:
    """A container's root, its state directory and the host's files, all below one folder."""

    hook: Path
    base: Path
    ours: dict[str, Path] = field(default_factory=dict)
    real: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in (self.host, self.root, self.state):
            folder.mkdir(parents=True)
        for name, content in OURS.items():
            self.ours[name] = self.on_host(f"ours-{name}", content)
            self.real[name] = self.on_host(f"real-{name}", REAL[name])
        self.on_host("ptx", b"ptx")
        self.on_host("smi", b"smi").chmod(0o755)
        self.on_host("node", b"node")
        (self.state / "limits").write_bytes(LIMITS)
        (self.state / "grant.json").write_text("{}")
        self.write_plan()

    @property
    def host(self) -> Path:
        return self.base / "host"

    @property
    def root(self) -> Path:
        return self.base / "rootfs"

    @property
    def state(self) -> Path:
        return self.base / "state" / "c1"

    def on_host(self, name: str, content: bytes) -> Path:
        (self.host / name).write_bytes(content)
        return self.host / name

    def file(self, path: str, content: bytes = b"x") -> Path:
        """A file in the image."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return target

    def link(self, path: str, to: str) -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(to)

    def lines(self) -> list[list[str]]:
        return [
            ["runai-plan", "1"],
            ["rootfs", str(self.root)],
            *(["real", name, str(path)] for name, path in self.real.items()),
            *(["ours", name, str(path)] for name, path in self.ours.items()),
            ["library", PTX, str(self.host / "ptx")],
            ["program", "/usr/bin/nvidia-smi", str(self.host / "smi")],
            ["device", "/dev/nvidia0", str(self.host / "node")],
        ]

    def write_plan(self, *more: list[str], lines: list[list[str]] | None = None) -> None:
        text = "".join("\t".join(line) + "\n" for line in [*(lines or self.lines()), *more])
        (self.state / "plan").write_text(text)

    def stage(self, name: str, state: bytes | str = "{}") -> subprocess.CompletedProcess[str]:
        """Runs a stage as it is on the host."""
        text = state if isinstance(state, bytes) else state.encode()
        done = subprocess.run([self.hook, name, self.state], input=text, capture_output=True, env={}, check=False)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def create(
        self, before: list[str] | None = None, after: list[str] | None = None, times: int = 1, *, walk: bool = True
    ) -> Result:
        """Runs createContainer in a mount namespace, set-up commands first. Nothing may happen outside of it."""
        job = {
            "before": before or [],
            "after": after or [],
            "times": times,
            "walk": walk,
            "root": str(self.root),
            "state": "{}",
            "hook": [str(self.hook), "createContainer", str(self.state)],
        }
        host = snapshot(self.host)
        done = subprocess.run(
            ["unshare", "-m", "--propagation", "private", sys.executable, "-c", INSIDE],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert str(self.base) not in Path("/proc/self/mountinfo").read_text()
        assert snapshot(self.host) == host
        answer = json.loads(done.stdout)
        code, stdout, stderr = answer["results"][-1]
        check_output(code, stdout, stderr)
        mounted = {point: (options, optional, kind) for point, options, optional, kind in answer["mounts"]}
        return Result(code, stderr, answer["tree"], mounted, answer["after"])

    def made(self) -> list[str]:
        return (self.state / "made").read_text().splitlines()


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a folder with its mode, size and content."""
    seen = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
        seen[str(path)] = (facts.st_mode, facts.st_size if content else 0, content)
    return seen


def check_output(code: int, stdout: str, stderr: str) -> None:
    assert not stdout
    if code == 0:
        assert not stderr
        return
    assert code == 1, stderr
    assert stderr.startswith("runai: ") and stderr.endswith("\n") and stderr.count("\n") == 1, stderr
    assert ", " in stderr and "; " in stderr, stderr
    assert not [words for words in FORBIDDEN if words in stderr.lower()]


def check_refused(result: Result | subprocess.CompletedProcess[str], *words: str) -> None:
    code = result.code if isinstance(result, Result) else result.returncode
    assert code == 1
    check_output(code, "", result.stderr)
    for word in words:
        assert word in result.stderr, result.stderr


def check_complete(result: Result, home: str = HOME) -> None:
    assert result.code == 0, result.stderr
    for name, content in OURS.items():
        assert result.tree[f"{home}/{name}"] == content.decode()
        assert result.tree[f"/.runai/real/{name}"] == REAL[name].decode()
    assert result.tree[f"{home}/{PTX}"] == "ptx"
    assert result.tree["/.runai/limits"] == LIMITS.decode()


@pytest.fixture
def empty(checked_hook: Path, tmp_path: Path) -> Container:
    """An image without anything in it."""
    return Container(checked_hook, tmp_path)


@pytest.fixture
def debian(empty: Container) -> Container:
    """An image as Debian's: the C library in a folder by triplet, /lib a link."""
    empty.file(f"{HOME}/libc.so.6", b"libc")
    empty.link("/lib", "usr/lib")
    empty.file("/usr/bin/env")
    empty.file("/etc/passwd", b"root")
    return empty


# ---- the way of one container -----------------------------------------------------------------------------------


def test_plain_image(debian: Container) -> None:
    image = snapshot(debian.root)
    assert debian.stage("prestart", json.dumps({"pid": os.getpid()})).returncode == 0
    result = debian.create()
    check_complete(result)
    assert result.tree["/usr/bin/nvidia-smi"] == "smi"
    assert result.tree["/dev/nvidia0"] == "node"
    assert debian.made() == [
        "/.runai",
        *(f"{HOME}/{name}" for name in (*OURS, PTX)),
        "/usr/bin/nvidia-smi",
        "/dev",
        "/dev/nvidia0",
    ]
    assert debian.stage("poststop").returncode == 0
    assert snapshot(debian.root) == image
    assert not debian.state.exists()


def test_the_shipped_program_does_the_same(shipped_hook: Path, tmp_path: Path) -> None:
    container = Container(shipped_hook, tmp_path)
    container.file(f"{HOME}/libc.so.6", b"libc")
    container.file("/usr/local/cuda/compat/libcuda.so.535", b"theirs")
    image = snapshot(container.root)
    assert container.stage("prestart", json.dumps({"pid": os.getpid()})).returncode == 0
    result = container.create()
    check_complete(result)
    assert result.tree["/usr/local/cuda/compat/libcuda.so.535"] == "ours cuda"
    assert container.stage("poststop").returncode == 0
    assert snapshot(container.root) == image
    assert not container.state.exists()


def test_mount_attributes(debian: Container) -> None:
    mounts = debian.create().mounts
    assert mounts["/.runai"][0] == "ro,nosuid,nodev,relatime"
    assert mounts["/.runai/limits"][0] == "ro,nosuid,nodev,noexec,relatime"
    assert mounts["/.runai/real/libcuda.so.1"][0] == "ro,nosuid,nodev,relatime"
    assert mounts["/.runai/account/page"][0] == "rw,nosuid,nodev,noexec,relatime"
    assert mounts[f"{HOME}/libcuda.so.1"][0] == "ro,nosuid,nodev,relatime"
    assert mounts["/dev/nvidia0"][0] == "rw,nosuid,noexec,relatime"
    assert mounts["/.runai"][2] == mounts["/.runai/account"][2] == "tmpfs"
    assert {optional for _, optional, _ in mounts.values()} == {"-"}, "a mount of ours must be private"


def test_account_has_room_for_its_page_only(debian: Container) -> None:
    account = debian.root / ".runai/account"
    result = debian.create(
        after=[
            f"stat -c '%s %a' {account}/page",
            f"stat -f -c '%f %d' {account}",
            f"touch {account}/more 2>&1",
            f"rm {account}/page 2>&1",
            f"printf x | dd of={account}/page conv=notrunc && echo written",
            f"head -c 1000000 /dev/zero >> {account}/page && echo grown",
            f"touch {account}/../more 2>&1",
        ]
    )
    assert result.code == 0
    size, mode = result.after[0].split()
    assert mode == "666"
    assert int(size) > 0
    assert result.after[1].split() == ["0", "0"]
    assert "Read-only" in result.after[2]
    assert "Read-only" in result.after[3]
    assert result.after[4:6] == ["written\n", ""]
    assert "Read-only" in result.after[6]


def test_fedora_like_image(empty: Container) -> None:
    empty.file("/usr/lib64/libc.so.6", b"libc")
    empty.link("/lib64", "usr/lib64")
    empty.link("/lib", "usr/lib")
    check_complete(empty.create(), "/usr/lib64")


def test_empty_image(empty: Container) -> None:
    check_complete(empty.create(), "/usr/lib")
    assert empty.made()[:4] == ["/.runai", "/usr", "/usr/lib", "/usr/lib/libcuda.so.1"]
    assert empty.stage("poststop").returncode == 0
    assert list(empty.root.iterdir()) == []


def test_program_of_the_image_stays(debian: Container) -> None:
    debian.file("/usr/bin/nvidia-smi", b"theirs")
    assert debian.create().tree["/usr/bin/nvidia-smi"] == "theirs"


def test_left_over_mount_points_are_used(debian: Container) -> None:
    """An image made by docker commit has them, and so has a container that was killed."""
    for path in (f"{HOME}/libcuda.so.1", "/usr/bin/nvidia-smi", "/dev/nvidia0"):
        debian.file(path, b"")
    (debian.root / ".runai/real").mkdir(parents=True)
    result = debian.create()
    check_complete(result)
    assert result.tree["/usr/bin/nvidia-smi"] == "smi"
    assert debian.made() == [f"{HOME}/libnvidia-ml.so.1", f"{HOME}/{PTX}"]
    assert debian.stage("poststop").returncode == 0
    assert (debian.root / "usr/bin/nvidia-smi").exists()


def test_second_start_without_a_poststop_between(debian: Container) -> None:
    check_complete(debian.create())
    (debian.state / "made").unlink()
    check_complete(debian.create())
    assert debian.made() == []


def test_twice_in_one_namespace(debian: Container) -> None:
    check_complete(debian.create(times=2))


# ---- covering ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "folder",
    [
        "/usr/local/cuda/compat",
        "/usr/local/nvidia/lib64",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
        f"{HOME}/glibc-hwcaps/x86-64-v3",
        "/usr/lib/tls/x86_64",
        "/usr/local/lib/haswell/avx512_1/x86_64/tls",
    ],
)
def test_library_of_the_image_is_covered(debian: Container, folder: str) -> None:
    debian.file(f"{folder}/libcuda.so.535.1", b"theirs")
    debian.file(f"{folder}/libnvidia-ml.so.535.1", b"theirs")
    debian.file(f"{folder}/libcudart.so.13", b"cudart")
    debian.link(f"{folder}/libcuda.so", "libcuda.so.535.1")
    result = debian.create()
    check_complete(result)
    assert result.tree[f"{folder}/libcuda.so.535.1"] == "ours cuda"
    assert result.tree[f"{folder}/libnvidia-ml.so.535.1"] == "ours nvml"
    assert result.tree[f"{folder}/libcudart.so.13"] == "cudart"


def test_search_folders(debian: Container) -> None:
    debian.file("/opt/a/libcuda.so.1", b"theirs")
    debian.file("/opt/b/libcuda.so.1", b"theirs")
    debian.write_plan(["search", "/opt/a"], ["search", "$ORIGIN/lib"], ["search", ""], ["search", "/not/there"])
    result = debian.create()
    check_complete(result)
    assert result.tree["/opt/a/libcuda.so.1"] == "ours cuda"
    assert result.tree["/opt/b/libcuda.so.1"] == "theirs"


@pytest.mark.parametrize(
    "text",
    [
        b"glibc-ld.so.cache1.1\x03\x00\x00\x00\x00libcuda.so.1\0/opt/cached/libcuda.so.1\0",
        b"\0\0@/opt/cached/libcuda.so.1\0",
        b"/opt/cached/libcuda.so.1",
        b"x" * 70000 + b"/opt/cached/libcuda.so.1\0",
        b"/y" * 50000 + b"/opt/cached/libnvidia-ml.so.1\0",
    ],
    ids=["usual", "behind a byte", "no end", "long text", "many slashes"],
)
def test_loader_cache_names_a_folder(debian: Container, text: bytes) -> None:
    debian.file("/opt/cached/libcuda.so.1", b"theirs")
    debian.file("/etc/ld.so.cache", text)
    result = debian.create()
    check_complete(result)
    assert result.tree["/opt/cached/libcuda.so.1"] == "ours cuda"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("ld.so.conf", b"/opt/drv"),
        ("ld.so.conf", b"include /etc/ld.so.conf.d/*.conf\n\t /opt/drv \t# the driver\n"),
        ("ld.so.conf.d/nvidia.conf", b"# here:\r\n/opt/drv\r\n"),
        (f"ld-musl-{os.uname().machine}.path", b"/lib:/opt/drv:/usr/lib"),
        ("ld.so.preload", b"/opt/drv/libcuda.so.9"),
        ("ld.so.preload", b"# /not/there.so\n/lib/libc.so.6:/opt/drv/libcuda.so.9 /x"),
        ("ld.so.preload", b"/opt/link.so\n"),
        ("ld.so.preload", b"\0/opt/drv/libcuda.so.9\0"),
    ],
)
def test_lists_of_the_loader(debian: Container, file: str, text: bytes) -> None:
    debian.file("/opt/drv/libcuda.so.9", b"theirs")
    debian.link("/opt/link.so", "drv/../drv/libcuda.so.9")
    debian.file(f"/etc/{file}", text)
    result = debian.create()
    check_complete(result)
    assert result.tree["/opt/drv/libcuda.so.9"] == "ours cuda"


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("ld.so.preload", "opt/drv/libcuda.so.9"),
        ("ld.so.preload", "./libcuda.so.9"),
        ("ld.so.preload", "/opt/$PLATFORM/libcuda.so.9"),
        (f"ld-musl-{os.uname().machine}.path", "opt/drv"),
    ],
)
def test_list_with_a_relative_path(debian: Container, file: str, path: str) -> None:
    debian.file(f"/etc/{file}", f"/lib\n{path}\n".encode())
    check_refused(debian.create(), f"/etc/{file}", path, "write an absolute path")


def test_list_with_other_relative_paths(debian: Container) -> None:
    debian.file("/etc/ld.so.preload", b"/usr/$LIB/snoopy.so ./other.so libcuda.so.1")
    debian.file("/etc/ld.so.conf", b"include ld.so.conf.d/*.conf\nopt/drv\n")
    check_complete(debian.create())


@pytest.mark.parametrize("file", ["ld.so.conf", "ld.so.conf.d/x", "ld.so.preload"])
def test_list_that_is_no_list(debian: Container, file: str) -> None:
    debian.file(f"/etc/{file}", b"x " * 40000)
    check_refused(debian.create(), f"/etc/{file}", "64 KiB")
    (debian.root / "etc" / file).unlink()
    os.mkfifo(debian.root / "etc" / file)
    check_complete(debian.create())


@pytest.mark.parametrize("path", ["/opt/libcuda.so.9", "/opt/link.so", "/not/there.so", "/opt"])
def test_preloaded_by_the_environment(debian: Container, path: str) -> None:
    debian.file("/opt/libcuda.so.9", b"theirs")
    debian.link("/opt/link.so", "/opt/libcuda.so.9")
    debian.write_plan(["preload", path])
    result = debian.create()
    check_complete(result)
    assert result.tree["/opt/libcuda.so.9"] == ("theirs" if path in ("/not/there.so", "/opt") else "ours cuda")


def test_preloaded_by_way_of_proc(debian: Container) -> None:
    debian.file("/proc/x")
    debian.write_plan(["preload", "/proc/self/root/x.so"])
    check_refused(debian.create(before=[f"mount -t proc proc {debian.root}/proc"]), "preloaded", "/proc/self/root/x.so")


@pytest.mark.parametrize("form", ["newer", "older", "both"])
@pytest.mark.parametrize("path", [b"/opt/other.so", b"opt/libcuda.so.1", b"libcuda.so.1", b"", b"/"])
def test_loader_cache_that_leads_to_another_name(debian: Container, form: str, path: bytes) -> None:
    """The loader takes whatever path stands there."""
    entries = [(b"libc.so.6", f"{HOME}/libc.so.6".encode()), (b"libcuda.so.01", path)]
    debian.file("/etc/ld.so.cache", cache_text(entries, form))
    check_refused(debian.create(), "/etc/ld.so.cache", "for libcuda.so.01", "run ldconfig")


@pytest.mark.parametrize("form", ["newer", "older", "both"])
def test_loader_cache_of_ldconfig(debian: Container, form: str) -> None:
    debian.file("/opt/cached/libcuda.so.1", b"theirs")
    entries = [(b"libcuda.so.1", b"/opt/cached/libcuda.so.1"), (b"libx.so", b"x.so")]
    debian.file("/etc/ld.so.cache", cache_text(entries, form))
    result = debian.create()
    check_complete(result)
    assert result.tree["/opt/cached/libcuda.so.1"] == "ours cuda"


@pytest.mark.parametrize("form", ["newer", "older", "both"])
@pytest.mark.parametrize("count", [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\2\0\0\0"])
def test_loader_cache_that_is_damaged(debian: Container, form: str, count: bytes) -> None:
    text = cache_text([(b"libcuda.so.1", b"/opt/cached/libcuda.so.1")], form)
    at = 20 if form == "newer" else 12
    for cut in range(0, len(text), 5):
        debian.file("/etc/ld.so.cache", (text[:at] + count + text[at + 4 :])[:cut])
        result = debian.create(walk=False)
        if result.code:
            check_refused(result, "/etc/ld.so.cache")


def test_loader_cache_that_is_too_big(debian: Container) -> None:
    with debian.file("/etc/ld.so.cache").open("wb") as cache:
        cache.truncate((64 << 20) + 1)
    check_refused(debian.create(), "/etc/ld.so.cache", "64 MiB")


def test_loader_cache_with_too_many_folders(debian: Container) -> None:
    for number in range(4100):
        (debian.root / f"opt/{number}").mkdir(parents=True)
    debian.file("/etc/ld.so.cache", b"".join(b"/opt/%d/libcuda.so.1\0" % number for number in range(4100)))
    check_refused(debian.create(), "more than 4096")


def test_loader_cache_of_slashes_takes_no_time(debian: Container) -> None:
    """Each slash begins a path, but of slashes in a row only the last."""
    debian.file("/etc/ld.so.cache", (b"/" * 4000 + b"libcuda.so.1\0") * 500)
    check_complete(debian.create())


def test_loader_cache_of_long_paths_takes_no_time(debian: Container) -> None:
    """Thousands of paths in each text, of which none is a driver's."""
    texts = (b"a/" * 4096)[:-2] + b"\0"
    debian.file("/etc/ld.so.cache", texts * 1000 + b"/opt/cached/libcuda.so.1\0")
    debian.file("/opt/cached/libcuda.so.1", b"theirs")
    result = debian.create()
    check_complete(result)
    assert result.tree["/opt/cached/libcuda.so.1"] == "ours cuda"


@pytest.mark.parametrize("kind", ["lists", "links"])
def test_look_ups_without_end(shipped_hook: Path, tmp_path: Path, kind: str) -> None:
    """The runtime would wait for half a minute, and then say nothing of the reason."""
    container = Container(shipped_hook, tmp_path)
    if kind == "lists":
        text = container.file("/etc/ld.so.conf.d/0.conf", b"".join(b"/%d\n" % number for number in range(9000)))
        for number in range(1, 600):
            text.with_name(f"{number}.conf").symlink_to(text.name)
    else:
        for number in range(1500):
            container.file(f"/usr/local/cuda/compat/{number}")
            container.link(f"/usr/local/cuda{number}", "cuda")
    check_refused(container.create(walk=False), "can't be checked", "more than 2 seconds")


def test_loader_cache_that_is_a_link_into_proc(debian: Container) -> None:
    """Reading some files takes something away: the host's kernel log, for one."""
    (debian.root / "proc").mkdir(exist_ok=True)
    debian.link("/etc/ld.so.cache", "/proc/version")
    result = debian.create(before=[f"mount -t proc proc {debian.root}/proc"])
    check_refused(result, "a link into /proc or /sys")


@pytest.mark.parametrize("kind", ["fifo", "folder", "link to /dev"])
def test_loader_cache_that_is_no_file(debian: Container, kind: str) -> None:
    path = debian.root / "etc/ld.so.cache"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("../../../../../../../dev/zero")
    check_complete(debian.create())


def test_too_many_libraries(debian: Container) -> None:
    for number in range(300):
        debian.file(f"/usr/local/cuda/compat/libcuda.so.{number}", b"theirs")
    check_refused(debian.create(), "256 files")


def test_empty_library_elsewhere_is_covered(debian: Container) -> None:
    """A loader that meets an empty libcuda.so.1 gives up with "file too short" and looks no further."""
    debian.file("/usr/local/nvidia/lib64/libcuda.so.1", b"")
    assert debian.create().tree["/usr/local/nvidia/lib64/libcuda.so.1"] == "ours cuda"


def test_library_of_our_name_that_is_a_folder_or_dangles(debian: Container) -> None:
    (debian.root / "usr/local/cuda/compat/libcuda.so.1").mkdir(parents=True)
    debian.link("/usr/local/cuda/compat/libcuda.so", "nowhere")
    debian.link("/usr/local/cuda/compat/libcuda.so.3", "/usr/bin/env/deeper")
    check_complete(debian.create())


def test_library_of_our_name_is_a_link_in_a_circle(debian: Container) -> None:
    debian.link("/usr/local/cuda/compat/libcuda.so.1", "libcuda.so")
    debian.link("/usr/local/cuda/compat/libcuda.so", "libcuda.so.1")
    check_refused(debian.create(), "/usr/local/cuda/compat/libcuda.so", "circle")


@pytest.mark.parametrize("link", ["/usr/local/cuda/compat", "/usr/local/cuda/compat/libcuda.so.1", "/etc/ld.so.cache"])
def test_link_of_proc_leads_somewhere_only_later(debian: Container, link: str) -> None:
    """The links in /proc/self lead out of the container while the hook looks at them, and into it once it runs."""
    debian.link(link, "/proc/self/root/opt/hidden")
    (debian.root / "proc").mkdir()
    check_refused(debian.create(before=[f"mount --bind /proc {debian.root}/proc"]), link)


def test_library_of_our_name_that_is_a_fifo(debian: Container) -> None:
    (debian.root / "usr/local/cuda/compat").mkdir(parents=True)
    os.mkfifo(debian.root / "usr/local/cuda/compat/libcuda.so.1")
    check_refused(debian.create(), "/usr/local/cuda/compat/libcuda.so.1")


def test_driver_mounted_by_someone_else_is_covered(debian: Container) -> None:
    """As a CDI hook does it: the host's real library, bind-mounted under its full name."""
    target = debian.file(f"{HOME}/libcuda.so.580.1", b"")
    debian.link(f"{HOME}/libcuda.so.1", "libcuda.so.580.1")
    result = debian.create(before=[f"mount --bind {debian.real['libcuda.so.1']} {target}"])
    assert result.code == 0
    assert result.tree[f"{HOME}/libcuda.so.580.1"] == "ours cuda"
    assert result.tree["/.runai/real/libcuda.so.1"] == "real cuda"


def test_same_folder_under_two_mounts(debian: Container) -> None:
    """A file covered under one of them is not covered under the other."""
    debian.file("/usr/local/nvidia/lib/libcuda.so.1", b"theirs")
    (debian.root / "usr/local/nvidia/lib64").mkdir()
    nvidia = debian.root / "usr/local/nvidia"
    result = debian.create(before=[f"mount --bind {nvidia}/lib {nvidia}/lib64"])
    assert result.tree["/usr/local/nvidia/lib/libcuda.so.1"] == "ours cuda"
    assert result.tree["/usr/local/nvidia/lib64/libcuda.so.1"] == "ours cuda"


# ---- hostile images ---------------------------------------------------------------------------------------------


def test_library_folder_is_a_link_to_the_hosts_etc(empty: Container) -> None:
    empty.link("/usr/lib", "/etc")
    etc = sorted(os.listdir("/etc"))
    check_refused(empty.create(), "/usr/lib", "link to nowhere")
    (empty.root / "etc").mkdir()
    result = empty.create()
    assert result.code == 0
    assert result.tree["/etc/libcuda.so.1"] == "ours cuda"
    assert "/etc/libcuda.so.1" in empty.made()
    assert sorted(os.listdir("/etc")) == etc


@pytest.mark.parametrize("to", ["/tmp", "../../../../../tmp", "usr", ".runai"])
def test_own_folder_is_a_link(debian: Container, to: str) -> None:
    debian.link("/.runai", to)
    (debian.root / "tmp").mkdir()
    check_refused(debian.create(), "/.runai", "remove it from the image")
    assert list((debian.root / "tmp").iterdir()) == []


def test_own_folder_is_a_file(debian: Container) -> None:
    debian.file("/.runai")
    check_refused(debian.create(), "/.runai")


def test_library_is_a_link_out_of_the_root(debian: Container) -> None:
    debian.link(f"{HOME}/libcuda.so.1", "../../../../../../../../../etc/passwd")
    passwd = Path("/etc/passwd").read_bytes()
    result = debian.create()
    assert result.code == 0
    assert result.tree["/etc/passwd"] == "ours cuda", "the link ends at the container's own file"
    assert Path("/etc/passwd").read_bytes() == passwd


@pytest.mark.parametrize("to", ["/.runai/real/libcuda.so.1", "../../../.runai/limits", "/.runai/account/page"])
def test_library_is_a_link_into_our_folder(debian: Container, to: str) -> None:
    debian.link("/usr/local/cuda/compat/libcuda.so.1", to if to[0] == "/" else f"../{to}")
    check_refused(debian.create(), "/usr/local/cuda/compat/libcuda.so.1", "/.runai")


def test_library_is_a_link_to_the_other_library(debian: Container) -> None:
    debian.link(f"{HOME}/libnvidia-ml.so.1", "libcuda.so.1")
    check_refused(debian.create(), "is not the library that keeps the share")


def test_other_library_is_a_link_to_ours(debian: Container) -> None:
    """What it covers is covered again."""
    debian.link(f"{HOME}/{PTX}", "libcuda.so.1")
    result = debian.create()
    assert result.code == 0
    assert result.tree[f"{HOME}/libcuda.so.1"] == "ours cuda"


def test_dangling_links(debian: Container) -> None:
    debian.link(f"{HOME}/libcuda.so.1", "libcuda.so.580.1")
    debian.link(f"{HOME}/libcuda.so.580.1", f"../{TRIPLET}/libcuda.so.580.2")
    debian.link(f"{HOME}/libnvidia-ml.so.1", "/opt/nvml")
    (debian.root / "opt").mkdir()
    result = debian.create()
    assert result.code == 0, result.stderr
    assert result.tree[f"{HOME}/libcuda.so.580.2"] == "ours cuda"
    assert result.tree["/opt/nvml"] == "ours nvml"
    assert f"{HOME}/libcuda.so.580.2" in debian.made()
    assert "/opt/nvml" in debian.made()
    assert debian.stage("poststop").returncode == 0
    assert not (debian.root / "opt/nvml").exists()


@pytest.mark.parametrize("to", ["/not/there/libcuda.so", "libcuda.so.1", "nowhere/", "/", "..", "nowhere/.."])
def test_links_that_lead_nowhere(debian: Container, to: str) -> None:
    debian.link(f"{HOME}/libcuda.so.1", to)
    check_refused(debian.create(), f"{HOME}/libcuda.so.1")
    assert not (debian.root / "not").exists()


@pytest.mark.parametrize("path", [f"{HOME}/libcuda.so.1", f"{HOME}/{PTX}", "/usr/bin/nvidia-smi", "/dev/nvidia0"])
@pytest.mark.parametrize("kind", ["FIFO", "folder", "socket", "device"])
def test_target_of_another_type(debian: Container, path: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = debian.root / path.lstrip("/")
    target.parent.mkdir(exist_ok=True)
    if kind == "FIFO":
        os.mkfifo(target)
    elif kind == "folder":
        target.mkdir()
    elif kind == "socket":
        monkeypatch.chdir(target.parent)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(target.name)
    else:
        os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    check_refused(debian.create(), path, f"it is a {kind}")


def test_folder_on_the_way_is_a_file(debian: Container) -> None:
    debian.file("/dev", b"")
    check_refused(debian.create(), "/dev")


def test_path_in_the_image_with_control_characters(debian: Container) -> None:
    (debian.root / "opt/a\x1b[2J\nb").mkdir(parents=True)
    debian.link("/usr/bin/nvidia-smi", "/opt/a\x1b[2J\nb/smi")
    check_refused(debian.create(), "newline", "a?[2J?b")


# ---- volumes ----------------------------------------------------------------------------------------------------


def bind(source: Path, target: Path, options: str = "") -> list[str]:
    commands = [f"mount --bind {source} {target}"]
    if options:
        commands.append(
            f"mount -o remount,bind,{options} {target}" if options == "ro" else f"mount --make-{options} {target}"
        )
    return commands


@pytest.fixture
def volume(debian: Container) -> Path:
    """A volume with a C library of its own, for the library folder."""
    folder = debian.base / "volume"
    folder.mkdir()
    (folder / "libc.so.6").write_bytes(b"libc")
    return folder


def test_volume_on_the_library_folder(debian: Container, volume: Path) -> None:
    """Nothing is made in a volume: it would stay in the host's folder."""
    before = snapshot(volume)
    check_refused(debian.create(before=bind(volume, debian.root / HOME[1:])), f"the volume on {HOME} has no file")
    assert snapshot(volume) == before


def test_tmpfs_on_the_library_folder(debian: Container) -> None:
    """A tmpfs of the container's own goes with it: there is no host to leave anything on."""
    result = debian.create(before=[f"mount -t tmpfs tmpfs {debian.root}{HOME}"])
    assert result.code == 0, result.stderr


def test_read_only_volume_without_the_driver(debian: Container, volume: Path) -> None:
    result = debian.create(before=bind(volume, debian.root / HOME[1:], "ro"))
    check_refused(result, "libcuda.so.1", f"the volume on {HOME} has no file")


def test_read_only_volume_with_the_driver(debian: Container, volume: Path) -> None:
    for name in (*OURS, PTX):
        (volume / name).write_bytes(b"theirs")
    check_complete(debian.create(before=bind(volume, debian.root / HOME[1:], "ro")))


def test_read_only_volume_with_the_driver_elsewhere(debian: Container, volume: Path) -> None:
    for name in (*OURS, PTX):
        debian.file(f"/usr/local/nvidia/lib64/{name}", b"theirs")
    result = debian.create(before=bind(volume, debian.root / HOME[1:], "ro"))
    assert result.code == 0, result.stderr
    assert result.tree["/usr/local/nvidia/lib64/libcuda.so.1"] == "ours cuda"
    assert result.tree[f"/usr/local/nvidia/lib64/{PTX}"] == "theirs"


def test_read_only_volume_under_a_program(debian: Container, volume: Path) -> None:
    """The volume decides what is there: no limit hangs on a program."""
    result = debian.create(before=bind(volume, debian.root / "usr/bin", "ro"))
    assert result.code == 0, result.stderr
    assert "/usr/bin/nvidia-smi" not in result.tree


@pytest.mark.parametrize("point", [HOME, "/usr", "/usr/bin"])
def test_shared_volume(debian: Container, point: str) -> None:
    """What is mounted below a volume with shared propagation appears on the host and stays there."""
    copy = debian.base / "copy"
    shutil.copytree(debian.root / point[1:], copy, symlinks=True)
    before = snapshot(copy)
    result = debian.create(before=bind(copy, debian.root / point[1:], "shared"))
    check_refused(result, f"the volume on {point} is shared", "rslave or rprivate")
    assert snapshot(copy) == before


def test_shared_volume_with_the_driver(debian: Container, volume: Path) -> None:
    (volume / "libcuda.so.1").write_bytes(b"theirs")
    (debian.root / "opt/vol ume").mkdir(parents=True)
    debian.write_plan(["search", "/opt/vol ume"])
    result = debian.create(
        before=[
            f"mount --bind {volume} '{debian.root}/opt/vol ume'",
            f"mount --make-shared '{debian.root}/opt/vol ume'",
        ]
    )
    check_refused(result, "/opt/vol ume/libcuda.so.1", "the volume on /opt/vol ume is shared")


def test_slave_volume(debian: Container, volume: Path) -> None:
    for name in (*OURS, PTX):
        (volume / name).write_bytes(b"theirs")
    target = debian.root / HOME[1:]
    check_complete(debian.create(before=[*bind(volume, target, "shared"), f"mount --make-slave {target}"]))


def test_shared_root(debian: Container) -> None:
    result = debian.create(before=bind(debian.root, debian.root, "shared"))
    check_refused(result, "shared propagation", "rootfsPropagation")


def test_root_that_is_read_only_already(debian: Container) -> None:
    """As crun's is when the hook runs. What is made there goes through a mount that nobody sees, and is taken away."""
    image = snapshot(debian.root)
    root = debian.root
    read_only = [f"mount --bind {root} {root}", f"mount -o remount,bind,ro {root}"]
    result = debian.create(before=read_only, after=[f"touch {root}/usr/x 2>&1"])
    check_complete(result)
    assert result.mounts[""][0].startswith("ro")
    assert "Read-only" in result.after[0]
    assert debian.made()[0] == "/.runai"
    assert debian.stage("poststop").returncode == 0
    assert snapshot(debian.root) == image


def test_root_on_a_read_only_file_system(debian: Container) -> None:
    root = debian.root
    read_only = [f"mount -t tmpfs none {root}", f"mkdir -p {root}{HOME}", f"mount -o remount,ro {root}"]
    check_refused(debian.create(before=read_only), ".runai", "its file system is read-only")


def test_volume_on_our_folder(debian: Container, volume: Path) -> None:
    (debian.root / ".runai").mkdir()
    check_complete(debian.create(before=bind(volume, debian.root / ".runai")))
    assert [path.name for path in volume.iterdir()] == ["libc.so.6"]


# Points a link back and forth, until it is killed.
FLIP = r"""
import os, sys
link, targets = sys.argv[1], sys.argv[2:]
while True:
    for target in targets:
        os.symlink(target, link + ".new")
        os.rename(link + ".new", link)
"""


def test_volume_changes_meanwhile(debian: Container, count: Callable[[int], int]) -> None:
    """Its links point into the container now and out of it then; no mount ever lands outside of the root."""
    outside = debian.on_host("libcuda.so.1", b"outside").parent
    debian.file("/opt/real/libcuda.so.1", b"theirs")
    link = debian.root / "usr/local/cuda/compat"
    link.parent.mkdir(parents=True)
    up = "../" * len(link.parents)
    (debian.base / "flip").write_text(FLIP)
    flip = [sys.executable, str(debian.base / "flip"), str(link), "/opt/real", str(outside), f"{up}{str(outside)[1:]}"]
    flipper = subprocess.Popen(flip)
    try:
        result = debian.create(after=[f"cat {outside}/libcuda.so.1"], times=count(300), walk=False)
    finally:
        flipper.kill()
        flipper.wait()
    assert result.after == ["outside"]


# ---- the plan ---------------------------------------------------------------------------------------------------


def without(container: Container, word: str) -> list[list[str]]:
    return [line for line in container.lines() if line[0] != word]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "version 1"),
        ("runai-plan\t2\nrootfs\t/r\n", "version 1"),
        ("runai-plan\t1\n", "names no rootfs"),
        ("runai-plan\t1\nrootfs\t/r\nrootfs\t/s\n", "twice"),
        ("runai-plan\t1\nrootfs\tr\n", "no absolute path"),
        ("runai-plan\t1\nrootfs\t/r\nours\tlibcuda.so.1\n", "too few or too many fields"),
        ("runai-plan\t1\nrootfs\t/r\nours\tlibcuda.so.1\t/a\t/b\n", "too few or too many fields"),
        ("runai-plan\t1\nrootfs\t/r\nours\tlibcuda.so.1\t/a\t/b\t/c\t/d\n", "unknown kind"),
        ("runai-plan\t1\nrootfs\t/r\nours\t../libcuda.so.1\t/a\n", "wrong form"),
        ("runai-plan\t1\nrootfs\t/r\nours\t..\t/a\n", "wrong form"),
        ("runai-plan\t1\nrootfs\t/r\nlibrary\t\t/a\n", "wrong form"),
        ("runai-plan\t1\nrootfs\t/r\nprogram\tusr/bin/x\t/a\n", "wrong form"),
        ("runai-plan\t1\nrootfs\t/r\nreal\tlibcuda.so.1\ta\n", "no absolute path"),
        ("runai-plan\t1\nrootfs\t/r\nimage-real\tlibcuda.so.1\t/a\n", "too few or too many fields"),
        ("runai-plan\t1\nrootfs\t/r\nimage-real\tlibcuda.so.1\ta\t0:0:0:0:0.0\n", "no absolute path"),
        ("runai-plan\t1\nrootfs\t/r\nimage-real\t/libcuda.so.1\t/a\t0:0:0:0:0.0\n", "wrong form"),
        ("runai-plan\t1\nrootfs\t/r\nsomething\tx\n", "unknown kind"),
        ("runai-plan\t1\nrootfs\t/r\n\n", "unknown kind"),
        ("runai-plan\t1\nrootfs\t/r\nsearch\t/x", "cut off"),
        ("runai-plan\t1\nrootfs\t/r\0\n", "zero byte"),
        ("runai-plan\t1\nrootfs\t/r\n" + "search\t/x\n" * 1025, "too many lines"),
        ("runai-plan\t1\nrootfs\t/" + "r" * (1 << 20) + "\n", "too long"),
    ],
)
def test_plan_that_is_refused(debian: Container, text: str, words: str) -> None:
    (debian.state / "plan").write_text(text)
    check_refused(debian.stage("prestart", json.dumps({"pid": os.getpid()})), words)
    check_refused(debian.create(), words)


def own_library(container: Container) -> list[list[str]]:
    """The plan for an image with a libcuda of its own in /opt, which LD_LIBRARY_PATH names."""
    library = container.file("/opt/libcuda.so.590", b"image's cuda")
    container.link("/opt/libcuda.so.1", "libcuda.so.590")
    line = ["image-real", "libcuda.so.1", "/opt/libcuda.so.590", stamp(library.stat())]
    lines = [line if fields[:2] == ["real", "libcuda.so.1"] else fields for fields in container.lines()]
    return [*lines, ["search", "/opt"]]


def test_library_of_the_image_behind_ours(debian: Container) -> None:
    debian.write_plan(lines=own_library(debian))
    assert debian.stage("prestart", json.dumps({"pid": os.getpid()})).returncode == 0
    result = debian.create([f"mount --bind {debian.root} {debian.root} && mount -o remount,bind,noexec {debian.root}"])
    assert result.code == 0, result.stderr
    assert result.tree["/.runai/real/libcuda.so.1"] == "image's cuda"
    assert result.tree["/.runai/real/libnvidia-ml.so.1"] == "real nvml"
    assert result.tree["/opt/libcuda.so.590"] == result.tree[f"{HOME}/libcuda.so.1"] == "ours cuda"
    options = result.mounts["/.runai/real/libcuda.so.1"][0].split(",")
    assert {"ro", "nosuid", "nodev"} <= set(options)
    assert "noexec" not in options


@pytest.mark.parametrize("how", ["touch -d 2001-01-01 {0}", "echo more >>{0}", "rm {0}; echo >{0}", "rm {0}"])
def test_library_of_the_image_changes_meanwhile(debian: Container, how: str) -> None:
    debian.write_plan(lines=own_library(debian))
    check_refused(
        debian.create([how.format(debian.root / "opt/libcuda.so.590")]), "the image's own /opt/libcuda.so.590"
    )


@pytest.mark.parametrize("to", ["/etc/passwd", "/proc/self/exe", "libcuda.so.590"])
def test_library_of_the_image_becomes_a_link(debian: Container, to: str) -> None:
    debian.write_plan(lines=own_library(debian))
    library = debian.root / "opt/libcuda.so.590"
    check_refused(debian.create([f"rm {library}; ln -s {to} {library}"]), "the image's own /opt/libcuda.so.590")


def test_plan_is_missing(debian: Container) -> None:
    (debian.state / "plan").unlink()
    check_refused(debian.stage("prestart", json.dumps({"pid": os.getpid()})), "it does not exist")
    check_refused(debian.create(), "it does not exist")


def test_root_is_missing(debian: Container) -> None:
    debian.write_plan(lines=[["runai-plan", "1"], ["rootfs", str(debian.base / "gone")]])
    check_refused(debian.create(), "gone can't be opened")


@pytest.mark.parametrize(
    ("call", "number"),
    [("openat2", 437), ("open_tree", 428), ("move_mount", 429), ("fsopen", 430), ("mount_setattr", 442)],
)
def test_kernel_is_too_old(debian: Container, call: str, number: int) -> None:
    """A seccomp filter plays a kernel that doesn't know a call."""
    lines = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)]
    (debian.base / "filter").write_bytes(b"".join(struct.pack("=HBBI", *line) for line in lines))
    wrapper = debian.base / "old-kernel"
    wrapper.write_text(OLD_KERNEL.format(python=sys.executable, filter=debian.base / "filter", hook=debian.hook))
    wrapper.chmod(0o755)
    debian.hook = wrapper
    check_refused(debian.create(), f"the kernel has no {call}", "5.12")


def test_source_goes_between_the_stages(debian: Container) -> None:
    debian.ours["libnvidia-ml.so.1"].unlink()
    check_refused(debian.create(), "ours-libnvidia-ml.so.1")


@pytest.fixture
def log(debian: Container) -> Path:
    """The runtime's log, with a name that the shim notes down."""
    log = debian.base / "bundle" / "log.json"
    log.parent.mkdir()
    log.write_text("what the runtime wrote\n")
    log.chmod(0o640)
    os.chown(log, 1, 2)
    (debian.state / "log").write_text(str(log))
    debian.file(f'{HOME}/glibc-hwcaps/a"b\\c\x01/libcuda.so.1', b"x")
    os.mkfifo(debian.root / HOME[1:] / 'glibc-hwcaps/a"b\\c\x01/libcuda.so.2')
    return log


def test_log_gets_the_sentence(debian: Container, log: Path) -> None:
    with log.open("a") as opened:
        result = debian.create()
        opened.write("error executing hook\n")
    check_refused(result, "libcuda.so.2 can't be covered")
    first, line = log.read_text().splitlines()
    assert first == "what the runtime wrote"
    entry = json.loads(line)
    assert (entry["level"], entry["msg"] + "\n") == ("error", result.stderr)
    assert len(entry["time"]) == len("2000-01-01T00:00:00Z")
    facts = log.stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o777) == (1, 2, 0o640)
    assert [path.name for path in log.parent.iterdir()] == ["log.json"]


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_log_that_others_write_too(debian: Container, log: Path, size: int) -> None:
    """A person's `runc --log /var/log/runc.log`: what it holds already stays."""
    before = ("x" * 99 + "\n") * (size // 100)
    log.write_text(before)
    check_refused(debian.create(), "libcuda.so.2 can't be covered")
    text = log.read_text()
    assert text.startswith(before)
    assert len(text[len(before) :].splitlines()) == 1


@pytest.mark.parametrize("kind", ["link", "FIFO", "nothing", "folder", "relative"])
def test_log_that_is_none(debian: Container, log: Path, kind: str) -> None:
    log.unlink()
    if kind == "link":
        log.symlink_to(debian.on_host("victim", b"victim"))
    elif kind == "FIFO":
        os.mkfifo(log)
    elif kind == "folder":
        log.mkdir()
    elif kind == "relative":
        (debian.state / "log").write_text("log.json")
    check_refused(debian.create(), "libcuda.so.2 can't be covered")
    assert not log.is_file() or kind == "link"
    assert [path.name for path in log.parent.iterdir()] == (["log.json"] if kind in ("link", "FIFO", "folder") else [])


def test_poststop_leaves_the_log_alone(debian: Container, log: Path) -> None:
    (debian.state / "plan").unlink()
    (debian.state / "plan").mkdir()
    check_refused(debian.stage("poststop"), "can't be removed")
    assert log.read_text() == "what the runtime wrote\n"


@pytest.mark.parametrize("arguments", [[], ["prestart"], ["start", "/x"], ["prestart", "x"], ["prestart", "/x", "y"]])
def test_arguments(checked_hook: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [checked_hook, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, env={}, check=False
    )
    check_refused(done)


def test_state_directory_is_a_link(debian: Container) -> None:
    real = debian.base / "elsewhere"
    debian.state.rename(real)
    debian.state.symlink_to(real)
    before = snapshot(real)
    for stage in ("prestart", "createContainer", "poststop"):
        check_refused(debian.stage(stage, json.dumps({"pid": os.getpid()})), str(debian.state))
    assert snapshot(real) == before


# ---- prestart ---------------------------------------------------------------------------------------------------


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "text",
    [
        '{"pid":%d}',
        ' {\r\n\t"ociVersion" : "1.0.2", "pid" : %d , "bundle":"/b"} \n',
        '{"annotations":{"pid":"1","a":"{\\"pid\\":1}"},"pid":%d}',
        '{"annotations":{"a":{"pid":2}},"x":[{"pid":3}],"pid":%d,"y":{"pid":4}}',
        '{"a":"\\\\","b":"\\"pid\\":5,","pid":%d}',
        '{"\\u0070\\u0069d":%d}',
        '{"pid\\u0000":6,"pi":7,"pidd":8,"PID":9,"pid":%d}',
        '{"a":-1.5e+10,"b":[true,false,null,0,"\\u00e9\\ud83d\\ude00"],"":{},"c":[],"pid":%d}',
        '{"a":' + nested(60) + ',"pid":%d}',
        '{"a":"' + "x" * (3 << 20) + '","pid":%d}',
    ],
)
def test_state(debian: Container, text: str) -> None:
    done = debian.stage("prestart", text.replace("%d", str(os.getpid())))
    assert done.returncode == 0, done.stderr
    assert (debian.state / "pid").read_text() == f"{os.getpid()}\n"
    assert (debian.state / "cgroup").read_text() == Path("/proc/self/cgroup").read_text()
    assert sorted(path.name for path in debian.state.iterdir()) == ["cgroup", "grant.json", "limits", "pid", "plan"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        "{}",
        '{"pid"',
        '{"pid":',
        '{"pid":}',
        '{"pid":%d',
        '{"pid":%d,}',
        '{"pid":%d}x',
        '{"pid":%d}{"pid":%d}',
        '{"pid":0}',
        '{"pid":-1}',
        '{"pid":"1"}',
        '{"pid":1.0}',
        '{"pid":1e3}',
        '{"pid":01}',
        '{"pid":99999999999999999999}',
        '{"pid":null}',
        '{"pid":%d,"pid":1}',
        "{pid:1}",
        '{"a":tru,"pid":%d}',
        '{"a":"\\x","pid":%d}',
        '{"a":"\\u12g4","pid":%d}',
        '{"a":"\n","pid":%d}',
        '{"a":.5,"pid":%d}',
        '{"a":1.,"pid":%d}',
        '{"a":[1,],"pid":%d}',
        '{"a":{"b"},"pid":%d}',
        '{"a":' + nested(100000) + ',"pid":%d}',
        '{"a":"\\',
        '{"a":"\\u00',
        '{"a" "b","pid":%d}',
        '{"pid":%d}\0',
        '{"a":"' + "x" * (4 << 20) + '","pid":%d}',
        '{"annotations":{"pid":%d}}',
    ],
)
def test_state_that_is_refused(debian: Container, text: str) -> None:
    check_refused(debian.stage("prestart", text.replace("%d", str(os.getpid()))), "the container's state")
    assert not (debian.state / "pid").exists()


def test_state_of_random_bytes(debian: Container) -> None:
    valid = b'{"a":[1,{"b":"\\u0041"}],"pid":1}'
    for position in range(len(valid)):
        for byte in (b"\0", b'"', b"\\", b"{", b"\xff"):
            done = debian.stage("prestart", valid[:position] + byte + valid[position + 1 :])
            assert done.returncode in (0, 1)
            assert "Sanitizer" not in done.stderr


def test_process_is_gone(debian: Container) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    check_refused(debian.stage("prestart", json.dumps({"pid": process.pid})), f"process {process.pid}")


@pytest.mark.parametrize("name", ["ptx", "smi", "node", "ours-libcuda.so.1", "real-libnvidia-ml.so.1"])
def test_source_is_missing(debian: Container, name: str) -> None:
    (debian.host / name).unlink()
    check_refused(debian.stage("prestart", json.dumps({"pid": os.getpid()})), name, "it does not exist")
    (debian.host / name).mkdir()
    check_refused(debian.stage("prestart", json.dumps({"pid": os.getpid()})), name, "no regular file")


def test_share_is_missing(debian: Container) -> None:
    (debian.state / "limits").unlink()
    check_refused(debian.stage("prestart", json.dumps({"pid": os.getpid()})), "limits")


def test_interrupted_prestart(debian: Container) -> None:
    (debian.state / "pid.new").write_text("left")
    assert debian.stage("prestart", json.dumps({"pid": os.getpid()})).returncode == 0
    assert (debian.state / "pid").read_text() == f"{os.getpid()}\n"


# ---- poststop ---------------------------------------------------------------------------------------------------


def test_poststop_twice(debian: Container) -> None:
    assert debian.create().code == 0
    for _ in range(2):
        done = debian.stage("poststop")
        assert (done.returncode, done.stderr) == (0, "")


def test_poststop_without_a_root(debian: Container) -> None:
    assert debian.create().code == 0
    shutil.rmtree(debian.root)
    assert debian.stage("poststop").returncode == 0
    assert not debian.state.exists()


@pytest.mark.parametrize("gone", ["plan", "made", "limits", "grant.json"])
def test_poststop_after_half_of_it(debian: Container, gone: str) -> None:
    assert debian.create().code == 0
    (debian.state / gone).unlink()
    assert debian.stage("poststop").returncode == 0
    assert not debian.state.exists()


def test_poststop_with_a_damaged_plan(debian: Container) -> None:
    assert debian.create().code == 0
    (debian.state / "plan").write_bytes(b"\0\xff")
    assert debian.stage("poststop").returncode == 0
    assert not debian.state.exists()


def test_poststop_keeps_what_the_container_wrote(debian: Container) -> None:
    assert debian.create().code == 0
    (debian.root / "usr/bin/nvidia-smi").write_bytes(b"theirs")
    (debian.root / "dev/more").write_bytes(b"")
    (debian.root / ".runai/kept").write_bytes(b"")
    assert debian.stage("poststop").returncode == 0
    assert (debian.root / "usr/bin/nvidia-smi").read_bytes() == b"theirs"
    assert (debian.root / "dev/more").exists()
    assert (debian.root / ".runai/kept").exists()
    assert not (debian.root / "dev/nvidia0").exists()


def test_poststop_follows_no_link(debian: Container) -> None:
    """The container may have put links where its mount points were."""
    outside = debian.base / "outside"
    outside.mkdir()
    for name in ("nvidia-smi", "nvidia0", "libcuda.so.1"):
        (outside / name).write_bytes(b"")
    assert debian.create().code == 0
    shutil.rmtree(debian.root / "usr/bin")
    (debian.root / "usr/bin").symlink_to(outside)
    shutil.rmtree(debian.root / "dev")
    (debian.root / "dev").symlink_to(outside)
    (debian.root / HOME[1:] / "libcuda.so.1").unlink()
    (debian.root / HOME[1:] / "libcuda.so.1").symlink_to(outside / "libcuda.so.1")
    assert debian.stage("poststop").returncode == 0
    assert sorted(path.name for path in outside.iterdir()) == ["libcuda.so.1", "nvidia-smi", "nvidia0"]


@pytest.mark.parametrize(
    "line",
    [
        "/../outside/file",
        "/usr/../../outside/file",
        "outside/file",
        "/",
        "",
        "//",
        "/..",
        "/./.",
        "/" + "a" * 5000,
        "/usr/bin/env",
        "/empty/part",
    ],
)
def test_poststop_with_a_damaged_journal(debian: Container, line: str) -> None:
    (debian.base / "outside").mkdir()
    (debian.base / "outside/file").write_bytes(b"")
    (debian.root / "empty").mkdir()
    (debian.root / "empty/part").write_bytes(b"")
    # The last line was cut off while it was written.
    (debian.state / "made").write_text(f"{line}\n/empty/pa")
    assert debian.stage("poststop").returncode == 0
    assert (debian.base / "outside/file").exists()
    assert (debian.root / "usr/bin/env").exists()
    assert (debian.root / "empty/part").exists() == (line != "/empty/part")
    assert debian.root.is_dir()


def test_poststop_leaves_files_of_others(debian: Container) -> None:
    (debian.state / "something").write_text("theirs")
    assert debian.stage("poststop").returncode == 0
    assert [path.name for path in debian.state.iterdir()] == ["something"]


def test_guard_stops_every_container(debian: Container) -> None:
    """Nothing of the container is needed for it: the second stage, which makes that, never came."""
    shutil.rmtree(debian.state)
    check_refused(debian.stage("guard"), str(debian.state), "config.toml", "runai-ctl configure")


# ---- with a real runtime ----------------------------------------------------------------------------------------


BUSYBOX = Path("/bin/busybox")  # busybox-static: the image has no loader


@dataclass
class Runc:
    """A bundle that the real runc runs with our hooks; LOG gets a line when poststop hooks are run."""

    container: Container

    def config(self, arguments: list[str]) -> dict[str, Any]:
        def hook(stage: str) -> dict[str, Any]:
            return {
                "path": str(self.container.hook),
                "args": ["runai-hook", stage, str(self.container.state)],
                "env": [],
            }

        log = {"path": "/bin/sh", "args": ["sh", "-c", f"echo poststop >> {self.container.base}/log"], "env": []}
        kinds = ("pid", "mount", "ipc", "uts")
        return {
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": arguments, "env": ["PATH=/bin"], "cwd": "/"},
            "root": {"path": str(self.container.root)},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in kinds]},
            "annotations": {"pid": "1", "nested": '{"pid":1}'},
            "hooks": {
                "prestart": [hook("prestart")],
                "createContainer": [hook("createContainer")],
                "poststop": [log, hook("poststop")],
            },
        }

    def run(
        self, *arguments: str, edit: Callable[[dict[str, Any]], None] = lambda config: None
    ) -> subprocess.CompletedProcess[str]:
        config = self.config(list(arguments))
        edit(config)
        base = self.container.base
        (base / "config.json").write_text(json.dumps(config))
        done = subprocess.run(
            ["runc", "--root", base / "runc", "run", "-b", base, f"runai-test-{os.getpid()}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert str(base) not in Path("/proc/self/mountinfo").read_text()
        return done

    def poststops(self) -> int:
        log = self.container.base / "log"
        return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def runc(debian: Container) -> Runc:
    (debian.root / "bin").mkdir()
    shutil.copy(BUSYBOX, debian.root / "bin/busybox")
    for name in ("sh", "cat", "ls", "true", "mount", "touch", "rm"):
        debian.link(f"/bin/{name}", "busybox")
    for name in ("proc", "dev"):
        (debian.root / name).mkdir()
    return Runc(debian)


def test_runc(runc: Runc) -> None:
    image = snapshot(runc.container.root)
    done = runc.run(
        "/bin/sh",
        "-c",
        f"cat /.runai/limits {HOME}/libcuda.so.1 /.runai/real/libnvidia-ml.so.1 "
        "/usr/bin/nvidia-smi /dev/nvidia0; touch /.runai/x /.runai/account/y; rm -f /.runai/account/page; "
        "ls /.runai/account",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "GPU-1 3221225472\nours cudareal nvmlsminodepage\n"
    assert runc.poststops() == 1
    assert not runc.container.state.exists()
    assert snapshot(runc.container.root) == image


def test_runc_reports_a_failed_hook_and_runs_poststop(runc: Runc) -> None:
    os.mkfifo(runc.container.root / HOME[1:] / "libnvidia-ml.so.1")
    image = snapshot(runc.container.root)
    done = runc.run("/bin/true")
    assert done.returncode == 1
    assert f"runai: {HOME}/libnvidia-ml.so.1 can't be used as a mount point, it is a FIFO" in done.stderr
    assert runc.poststops() == 1
    assert not runc.container.state.exists()
    assert snapshot(runc.container.root) == image


def test_runc_stops_when_prestart_fails(runc: Runc) -> None:
    runc.container.ours["libcuda.so.1"].unlink()
    done = runc.run("/bin/true")
    assert done.returncode == 1
    assert "ours-libcuda.so.1 can't be used, it does not exist" in done.stderr
    assert not runc.container.state.exists()


def test_runc_with_a_read_only_root(runc: Runc) -> None:
    done = runc.run("/bin/cat", "/.runai/limits", edit=lambda config: config["root"].update(readonly=True))
    assert (done.returncode, done.stdout) == (0, LIMITS.decode()), done.stderr


def test_runc_with_a_volume_that_is_a_link_to_the_host(runc: Runc) -> None:
    """A volume's own links are looked up in the container."""
    volume = runc.container.base / "volume"
    volume.mkdir()
    (volume / "libcuda.so.1").symlink_to("/etc/passwd")

    def edit(config: dict[str, Any]) -> None:
        config["mounts"].append(
            {"destination": "/usr/local/cuda/compat", "type": "bind", "source": str(volume), "options": ["rbind"]}
        )

    passwd = Path("/etc/passwd").read_bytes()
    done = runc.run("/bin/cat", "/etc/passwd", edit=edit)
    assert (done.returncode, done.stdout) == (0, "ours cuda"), done.stderr
    assert Path("/etc/passwd").read_bytes() == passwd
