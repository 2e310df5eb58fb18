"""One container for runai-hook: its root, its state directory, its plan and the host's files, all in one folder.

The mounts of createContainer are made in a mount namespace of their own, in which a small program then looks around;
the host's side must not change.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

TRIPLET = f"{os.uname().machine}-linux-gnu"
HOME = f"/usr/lib/{TRIPLET}"
OURS = {"libcuda.so.1": b"ours cuda", "libnvidia-ml.so.1": b"ours nvml"}
REAL = {"libcuda.so.1": b"real cuda", "libnvidia-ml.so.1": b"real nvml"}
PTX = "libnvidia-ptxjitcompiler.so.1"
LIMITS = b"GPU-1 3221225472\n"
# docker turns an error message with one of these into another exit code.
FORBIDDEN = ("no such file or directory", "executable file not found", "permission denied", "not a directory")

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
