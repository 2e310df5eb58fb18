"""The command runai-docker itself: what it starts, prints and ends with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("runai-docker")

STUB = """\
#!/bin/sh
[ "$1" = --help ] || [ "$2" = --help ] || [ "$3" = --help ] && exec /usr/bin/docker "$@"
printf '[%s]' "$0" "$@"
cat
exit 42
"""


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    path = tmp_path / "docker"
    path.write_text(STUB)
    path.chmod(0o755)
    return path


def start(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *arguments],
        env=os.environ | environment,
        input=stdin,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["ps"],
        ["run", "-it", "u", "sh", "-c", "a  'b' \"c\" $d\n"],
        ["compose", "up", "-d"],
        ["--version"],
        ["exec", "x", "", "--", "ä", "\udcff"],
    ],
)
def test_the_rest_is_dockers(stub: Path, arguments: list[str]) -> None:
    """Words, input and exit status."""
    done = start(*arguments, stdin="input", RUNAI_DOCKER=str(stub))
    assert done.returncode == 42
    assert done.stdout == "".join(f"[{word}]" for word in [str(stub), *arguments]) + "input"
    assert done.stderr == ""


def test_with_a_share(stub: Path) -> None:
    done = start("run", "--gpu-memory", "3g", "u", "x y", RUNAI_DOCKER=str(stub), DOCKER_HOST="unix:///nowhere")
    assert done.returncode == 42
    assert "[--runtime=runai]" in done.stdout
    assert done.stdout.endswith("RUNAI_GPU_MEMORY=3g][u][x y]")


def test_docker_is_the_next_on_the_path(stub: Path, tmp_path: Path) -> None:
    """Not itself, should somebody have put it in docker's place."""
    (tmp_path / "first").mkdir()
    (tmp_path / "first/docker").symlink_to(PROGRAM)
    done = start("ps", PATH=f"{tmp_path}/first:{tmp_path}:/usr/bin:/bin")
    assert done.stdout.startswith(f"[{stub}]")


@pytest.mark.parametrize("first", [["--dry-run", "run"], ["run", "--dry-run"]])
def test_dry_run(first: list[str]) -> None:
    done = start(*first, "--gpu-memory", "0.3", "-e", "A=b c", "u", DOCKER_HOST="unix:///nowhere")
    assert done.returncode == 0
    assert done.stdout.startswith("docker run -e 'A=b c' --runtime=runai ")
    assert done.stdout.endswith("=RUNAI_GPU_MEMORY=0.3 u\n")


def test_dry_run_of_what_is_dockers() -> None:
    assert start("--dry-run", "ps", "-a").stdout == "docker ps -a\n"
    assert start("compose", "--dry-run", "up", RUNAI_DOCKER="/bin/echo").stdout == "compose --dry-run up\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--gpu-memory"], "flag needs an argument: --gpu-memory; see runai-docker run --help"),
        (["run", "--gpu-memory", "3g", "--name"], "flag needs an argument: --name"),
        (["run", "--gpu-memory", "3g", "-iv"], "flag needs an argument: -iv"),
        (["run", "--gpu-memory", "lots", "u"], '--gpu-memory is "lots", which is no amount of memory'),
        (["run", "--gpu-memory=", "u"], '--gpu-memory is "", which is no amount of memory'),
        (["run", "--gpu-memory", "u"], '--gpu-memory is "u"'),
        (["run", "--gpu-memory=2.5", "u"], "more than a whole GPU"),
        (["run", "--gpu-memory=1g", "--gpu-memory-limit=2g", "u"], "are both there"),
        (["run", "--gpu-memory=1g", "--runtime=nvidia", "u"], '--runtime is "nvidia", which holds no share'),
        (["run", "--gpu-memory=1g", "--gpus=x", "u"], '"x" is no count'),
        (["run", "--gpu-memory=1g", "--gpus=device=0,count=1", "u"], "a count and devices as well"),
        (["run", "--gpu-memory=1g", "--gpus=driver=amd", "u"], "of NVIDIA's"),
        (["run", "--gpu-memory=1g", "--gpus=1,1", "u"], "twice"),
        (["run", "--gpu-memory=1g", "--gpus=all,options=x", "u"], '"options" has no meaning here'),
        (["run", "--gpu-memory=1g", '--gpus="device=0', "u"], "no list of fields"),
        (["run", "--gpu-memory=1g", "--gpus=1", "--gpus=2", "u"], "more than once"),
    ],
)
def test_what_can_not_be_asked_for(arguments: list[str], said: str) -> None:
    done = start(*arguments, DOCKER_HOST="unix:///nowhere")
    assert done.returncode == 125
    assert done.stderr.startswith("runai-docker: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("docker", "status"), [("/nowhere/docker", 127), ("no-such-docker", 127), ("/etc/passwd", 127)]
)
def test_no_docker(docker: str, status: int) -> None:
    done = start("ps", RUNAI_DOCKER=docker)
    assert (done.returncode, done.stderr.count("\n")) == (127, 1)
    assert done.stderr.startswith("runai-docker: ")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"]])
def test_help(arguments: list[str]) -> None:
    """docker's, with ours."""
    own = subprocess.run(["/usr/bin/docker", "--help"], capture_output=True, text=True, check=True).stdout
    done = start(*arguments, RUNAI_DOCKER="/usr/bin/docker")
    assert done.stdout.startswith(own)
    assert "--gpu-memory" in done.stdout[len(own) :]


@pytest.mark.parametrize(
    "arguments", [["run", "--help"], ["help", "create"], ["container", "run", "-it", "--help", "u"]]
)
def test_help_of_run(arguments: list[str]) -> None:
    done = start(*arguments, RUNAI_DOCKER="/usr/bin/docker", DOCKER_HOST="unix:///nowhere")
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("      --gpus "))
    assert [line.split()[0] for line in lines[at - 3 : at]] == [
        "--gpu-memory",
        "--gpu-memory-limit",
        "--gpu-memory-request",
    ]
    column = lines[at].index("GPU")
    assert {line[column - 1] for line in lines[at - 3 : at]} == {" "}
    assert " " not in {line[column] for line in lines[at - 3 : at]}
