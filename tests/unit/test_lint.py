"""The linters, as tests: what they find is a failure like any other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


def run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(done.stdout, pytrace=False)


def is_shell(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().startswith((b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash"))


def shell_scripts() -> list[Path]:
    places = [TOP, TOP / ".ci", TOP / "packaging", TOP / "docs", TOP / "hook", TOP / "libvgpu", TOP / "tests"]
    files = [path for place in places for path in (place.glob("*") if place == TOP else place.rglob("*"))]
    return sorted(path for path in files if path.is_file() and is_shell(path))


def test_ruff_check() -> None:
    run(sys.executable, "-m", "ruff", "check", "--quiet", ".")


def test_ruff_format() -> None:
    run(sys.executable, "-m", "ruff", "format", "--check", "--quiet", "--diff", ".")


def test_mypy() -> None:
    run(sys.executable, "-m", "mypy")


def test_shellcheck() -> None:
    scripts = shell_scripts()
    assert TOP / "dev" in scripts
    run("/usr/bin/shellcheck", *scripts)
