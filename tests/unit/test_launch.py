"""runai-launch: what it hands to the low-level runtime, and what to Python."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

from runai_runtime.commandline import GLOBAL_FLAGS, GLOBAL_VALUES, INSPECTED

LAUNCH = Path(sysconfig.get_path("platlib"), "runai_runtime/native/runai-launch")
SOURCE = Path(__file__).parents[2] / "launch/runai-launch.c"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A registered program whose Python says so, over a runtime that says so."""
    runtime = tmp_path / "runtime"
    runtime.write_text('#!/bin/sh\necho "runtime $*"\n')
    runtime.chmod(0o755)
    path = tmp_path / "program"
    code = 'import sys\nprint("python", *sys.argv[1:], sys.flags.isolated)\n'
    path.write_text(f"#!{LAUNCH}\n# About it.\n# runtime={runtime}\n{code}")
    path.chmod(0o755)
    return path


def answer(program: Path, words: str) -> str:
    done = subprocess.run([program, *words.split()], capture_output=True, text=True, check=True, env={"PATH": "/none"})
    return done.stdout.strip()


@pytest.mark.parametrize(
    "words",
    [
        "state abc",
        "--root /r --log /l --log-format json state create",
        "--root create delete --force create",
        "--root=create --debug start abc",
        "--systemd-cgroup exec --process p create",
        "--version",
        "--root",
        "-root /r kill abc",
        "--unheard-of-command-is-no-option"[2:],
        "",
    ],
)
def test_passed_on(program: Path, words: str) -> None:
    assert answer(program, words) == f"runtime {words}".strip()


@pytest.mark.parametrize(
    "words",
    [
        "create -b /b abc",
        "--root /r --log=/l create abc",
        "--root=/r run abc",
        "restore abc",
        "checkpoint abc",
        "--unheard-of state abc",
        "--unheard-of create state",
        "-- create abc",
        "--debug=true --rootless true create abc",
    ],
)
def test_looked_into(program: Path, words: str) -> None:
    assert answer(program, words) == f"python {words} 1"


def test_a_program_without_a_runtime_is_pythons(program: Path) -> None:
    program.write_text(program.read_text().replace("# runtime=", "# rumtime="))
    assert answer(program, "state abc") == "python state abc 1"


def test_a_runtime_that_is_gone_is_pythons(program: Path) -> None:
    (program.parent / "runtime").unlink()
    assert answer(program, "state abc") == "python state abc 1"


def test_both_know_the_same_words() -> None:
    source = SOURCE.read_text()

    def words(name: str) -> set[str]:
        return {word.strip(' "') for word in source.partition(f"{name}[] = {{")[2].partition("}")[0].split(",")}

    assert words("VALUES") == GLOBAL_VALUES
    assert words("FLAGS") == GLOBAL_FLAGS
    assert words("INSPECTED") == INSPECTED
