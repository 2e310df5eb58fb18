"""Shared libraries as gcc makes them, right and wrong, for the tests of what reads libraries."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

# What is right in a library of ours. -nostdlib: it needs what it is told to need.
RIGHT = ("-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack", "-Wl,-z,nodelete", "-Wl,--build-id=sha1")


def gcc(*arguments: str | Path) -> None:
    subprocess.run(["/usr/bin/gcc", *map(str, arguments)], check=True)


def compiled(path: Path, source: str) -> Path:
    """An object file."""
    path.with_suffix(".c").write_text(source)
    gcc("-c", "-fPIC", "-w", path.with_suffix(".c"), "-o", path)
    return path


def functions(names: Iterable[str]) -> str:
    """C: functions without arguments, the n-th of which answers n."""
    return "".join(f"int {name}(void) {{ return {number}; }}\n" for number, name in enumerate(names))


def linked(path: Path, *arguments: str | Path, soname: str = "") -> Path:
    """A shared library."""
    named = [f"-Wl,-soname,{soname}"] if soname else []
    gcc("-shared", "-nostdlib", *named, *arguments, "-Wl,--no-as-needed", "-o", path)
    return path


def stub(path: Path, names: Iterable[str], soname: str, version: str = "") -> Path:
    """A library that others link with: functions, under a symbol version if there is one."""
    flags = []
    if version:
        script = path.with_suffix(".map")
        script.write_text(f"{version} {{ global: *; }};\n")
        flags = [f"-Wl,--version-script={script}"]
    return linked(path, *flags, compiled(path.with_suffix(".o"), functions(names)), soname=soname)
