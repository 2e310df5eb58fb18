"""runai-hook, the native program that runc and crun start as OCI hooks, and images for it.

It is built twice: with gcc and its sanitizers, and as it ships (static, musl).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs.build import ZIG_FOLDER
from tests.unit.hook.container import HOME, Container

HOOK = Path(__file__).parents[3] / "hook"

WARNINGS = [
    *("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion", "-Wstrict-prototypes", "-Wmissing-prototypes"),
    *("-Wold-style-definition", "-Wpointer-arith", "-Wcast-align", "-Wwrite-strings", "-Wundef", "-Wformat=2"),
    *("-Wnull-dereference", "-Wvla", "-Wswitch-enum", "-Wimplicit-fallthrough", "-Wredundant-decls"),
]
GCC_WARNINGS = ["-Wlogical-op", "-Wduplicated-cond", "-Wduplicated-branches", "-Wjump-misses-init"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g"]


def build(compiler: list[str], target: Path) -> Path:
    sources = sorted(str(path) for path in HOOK.glob("*.c"))
    done = subprocess.run(
        [*compiler, "-std=gnu17", "-D_GNU_SOURCE", *WARNINGS, *sources, "-o", str(target)],
        cwd=ZIG_FOLDER,
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
def hasty_hook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checked hook with a second, instead of half a minute."""
    return build(
        ["gcc", *SANITIZERS, *GCC_WARNINGS, "-DHOOK_SECONDS=1"], tmp_path_factory.mktemp("hook") / "runai-hook"
    )


@pytest.fixture(scope="session")
def shipped_hook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", f"{os.uname().machine}-linux-musl", "-static", "-O2"]
    zig.append("-Wl,--strip-debug")  # as the build does it: zig makes another C library where this differs
    return build(zig, tmp_path_factory.mktemp("hook") / "runai-hook")


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
