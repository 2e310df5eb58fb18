"""The Debian package, on a clean Debian 12 with the engine of that: install, use, upgrade, purge. 20 s in all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker import images
from tests.docker.debian import SYSTEMCTL, Debian
from tests.docker.host import CUDASH
from tests.pages import typed
from tests.programs.build import program
from tests.simgpu.host import SimHost

TOP = Path(__file__).parents[2]
PROGRAM = "/usr/lib/runai-runtime/runai-runtime"
CONFIG = "/etc/runai-runtime/config.json"
DAEMON = "/etc/docker/daemon.json"

OF_WHEEL = (
    "./dev build",
    "python3 -m venv /opt/runai-runtime",
    "/opt/runai-runtime/bin/pip install dist/*.whl",
    "/opt/runai-runtime/bin/runai-ctl configure",
)
"""What docs/install.md has for the other way to install."""

LINKS = "ln -sf /opt/runai-runtime/bin/runai-ctl /opt/runai-runtime/bin/runai-docker /usr/local/bin/"
"""Part of that, which is typed in tests/docker/test_docs.py."""


@pytest.fixture(scope="module")
def packages(folder: Path) -> list[Path]:
    """Two versions of the package, of the wheel that is tested."""
    (wheel,) = (TOP / "dist").glob("*.whl")
    made = []
    for version in ("0.1.0", "0.2.0"):
        command: list[str | Path] = [sys.executable, TOP / "packaging/deb.py", wheel, folder / "packages", version]
        made.append(Path(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()))
    return made


@pytest.fixture(scope="module")
def shared(folder: Path, simhost: SimHost, packages: list[Path]) -> Iterator[Debian]:
    shutil.copy(program("cudash"), folder / "cudash")
    with Debian(folder) as debian:
        yield debian


@pytest.fixture
def debian(shared: Debian, simhost: SimHost) -> Iterator[Debian]:
    """One whose administrator has said where the (simulated) driver is."""
    driver = {"libraries": [str(simhost.lib)], "programs": [str(simhost.bin)], "devices": str(simhost.dev)}
    shared.write(CONFIG, json.dumps({"driver": driver, "enforcement": "agent"}))
    yield shared
    if ids := shared.docker("ps", "-aq").split():
        shared.docker("rm", "--force", *ids)
    shared.run("dpkg", "--purge", "runai-runtime")
    shared.reload()


def share(debian: Debian, *words: str, options: tuple[str, ...] = ("--rm",)) -> str:
    """What WORDS print in a container with 3 GiB of the GPU."""
    ours = ("--network=none", "--gpus=1", "--gpu-memory=3g", *options)
    return debian.run("runai-docker", "run", *ours, images.BUSYBOX, *words).strip()


def registered(debian: Debian) -> object:
    return json.loads(debian.path(DAEMON).read_text()).get("runtimes")


def versions(debian: Debian) -> list[str]:
    """Of which folders of it the host has."""
    return sorted(path.name.partition("-")[0] for path in debian.path("/usr/lib/runai-runtime").glob("[0-9]*"))


def install(debian: Debian, package: Path) -> None:
    """Over a version with which the host was set up."""
    done = debian.attempt("dpkg", "--install", package)
    assert (done.returncode, done.stderr) == (0, "")
    assert "runai-runtime:" not in done.stdout


def completed(debian: Debian, command: str, word: str) -> str:
    """What bash makes of the beginning WORD after COMMAND."""
    function = f"_{command.replace('-', '_')}_completion"
    words = f"COMP_WORDS=({command} {word}); COMP_CWORD=1; {function} {command}"
    file = f"/usr/share/bash-completion/completions/{command}"
    return debian.run("bash", "-c", f'source {file}; {words}; echo "${{COMPREPLY[*]}}"').strip()


def test_install_use_and_purge(debian: Debian, packages: list[Path]) -> None:
    debian.run("mv", CONFIG, "/root/config.json")
    debian.run("rmdir", str(Path(CONFIG).parent))
    before, daemon = debian.files(), debian.path(DAEMON).read_bytes()
    assert "set this host up with: runai-ctl configure" in debian.run("dpkg", "--install", packages[0])
    assert registered(debian) is None

    debian.run("install", "-D", "--mode=644", "/root/config.json", CONFIG)
    assert "systemctl reload docker" in debian.run("runai-ctl", "configure")
    debian.reload()
    assert registered(debian) == {"runai": {"path": PROGRAM}}
    assert "/current" not in debian.path(PROGRAM).read_text()
    assert "3072MiB" in share(debian, "nvidia-smi")
    debian.run("rm", "/run/runai/host.json")  # as after a boot: the next container looks at the host
    one = share(debian, "sleep", "600", options=("--detach",))
    for command in ("status", "top --once", f"inspect {one[:12]}"):
        assert one[:12] in debian.run("runai-ctl", *command.split()), command
    assert "4096 MiB now" in debian.run("runai-ctl", "limits", "set", one[:12], "4g")
    assert "the share on GPU 0" in debian.run("runai-ctl", "logs")
    assert "runai_gpu_memory_bytes" in debian.run("runai-ctl", "metrics")
    assert "libcuda.so.1" in debian.run("runai-ctl", "verify")
    assert "Traceback" not in debian.attempt("runai-ctl", "doctor").stderr
    assert completed(debian, "runai-ctl", "un") == "unconfigure"
    assert debian.run("runai-ctl", "--version") == "0.1.0\n"

    refused = debian.attempt("dpkg", "--purge", "runai-runtime")
    assert refused.returncode == 1
    assert f"runai-runtime: containers run on it: {one[:12]}; stop them first, with docker stop" in refused.stderr
    assert "4096MiB" in debian.docker("exec", one, "nvidia-smi")
    assert "3072MiB" in share(debian, "nvidia-smi")
    debian.docker("rm", "--force", one)
    debian.run("dpkg", "--purge", "runai-runtime")
    assert debian.files() == before
    assert debian.path(DAEMON).read_bytes() == daemon


def test_upgrade_under_a_running_container(debian: Debian, packages: list[Path]) -> None:
    debian.run("dpkg", "--install", packages[0])
    debian.run("runai-ctl", "configure")
    debian.reload()
    daemon = debian.path(DAEMON).read_bytes()
    volume = f"--volume={packages[0].parents[1]}/cudash:{CUDASH}:ro"
    one = share(debian, "sleep", "600", options=("--detach", volume))
    held = debian.popen("docker", "exec", "-i", one, CUDASH, "primary", "alloc 1g", "hold", "alloc 1g", "alloc 1g")
    assert held.stdout is not None
    assert "CUDA_SUCCESS" in [held.stdout.readline() for _ in range(2)][1]

    install(debian, packages[1])
    assert debian.path(DAEMON).read_bytes() == daemon
    assert versions(debian) == ["0.1.0", "0.2.0"]
    assert "/0.2.0-" in debian.path(PROGRAM).read_text()
    assert "/0.2.0-" in json.loads(debian.path(CONFIG).read_text())["hook"]

    assert "3072MiB" in debian.docker("exec", one, "nvidia-smi")
    assert ["CUDA_SUCCESS" in line for line in held.communicate()[0].splitlines()[-2:]] == [True, False]
    two = share(debian, "sleep", "600", options=("--detach", volume))
    assert one[:12] in debian.run("runai-ctl", "status")
    debian.docker("stop", "--time=0", one)
    assert [path.name for path in debian.path("/run/runai").iterdir() if len(path.name) == 64] == [two]
    assert "libcuda" not in debian.docker("diff", one)  # the old version's hook has cleared up
    debian.docker("start", one)
    assert "3072MiB" in debian.docker("exec", one, "nvidia-smi")
    debian.docker("rm", "--force", one, two)

    hook = debian.path(json.loads(debian.path(CONFIG).read_text())["hook"])
    hook.write_text("damaged")
    install(debian, packages[1])
    assert versions(debian) == ["0.2.0"]
    assert hook.samefile(debian.path("/usr/lib/runai-runtime/package/runai_runtime/native/runai-hook"))


def test_the_configuration_outlives_a_removal(debian: Debian, packages: list[Path]) -> None:
    debian.run("dpkg", "--install", packages[0])
    program = "/usr/local/bin/runai-runtime"  # as from a wheel, which the package takes over
    debian.run("runai-ctl", "configure", "--set-as-default", "--name=gpus", f"--program={program}")
    install(debian, packages[1])
    debian.run("runai-ctl", "configure")  # says nothing of that, and keeps it
    assert json.loads(debian.path(DAEMON).read_text())["default-runtime"] == "gpus"
    assert registered(debian) == {"gpus": {"path": program}}
    assert "/0.2.0-" in debian.path(program).read_text()
    debian.reload()
    debian.write("/usr/bin/systemctl", "#!/bin/sh\nexit 1\n")
    refused = debian.attempt("dpkg", "--remove", "runai-runtime")
    assert refused.returncode == 1
    assert "runai-runtime: docker didn't forget the runtime gpus: docker didn't reload: " in refused.stderr
    assert json.loads(debian.path(DAEMON).read_text())["default-runtime"] == "gpus"
    debian.write("/usr/bin/systemctl", SYSTEMCTL)
    debian.run("dpkg", "--remove", "runai-runtime")
    debian.docker("run", "--rm", "--network=none", images.BUSYBOX, "true")
    assert "gpus" not in debian.path(DAEMON).read_text()
    assert not debian.path(program).exists()
    assert [path.name for path in debian.path(CONFIG).parent.iterdir()] == ["config.json"]
    assert not debian.path("/usr/lib/runai-runtime").exists()
    debian.run("dpkg", "--install", packages[0])
    debian.run("runai-ctl", "configure")
    assert "/0.1.0-" in json.loads(debian.path(CONFIG).read_text())["hook"]
    debian.reload()
    assert "3072MiB" in share(debian, "nvidia-smi")


def test_the_page(debian: Debian, packages: list[Path]) -> None:
    """The commands of docs/install.md about the package, in the order that they have there."""
    commands = [found.command for found in typed(TOP / "docs/install.md") if found.command not in (*OF_WHEEL, LINKS)]
    assert commands[0] == "./dev package"
    assert commands[-1] == "apt purge runai-runtime"
    yes = "/etc/apt/apt.conf.d/yes"
    debian.write(yes, 'APT::Get::Assume-Yes "true";\n')
    for command in commands[1:]:
        if command == "systemctl reload docker":
            debian.reload()
            continue
        here = command.replace("./dist", str(packages[0].parent)).replace("IMAGE", images.BUSYBOX)
        said = debian.run("sh", "-c", here.replace(" run ", " run --network=none "))
        assert "nvidia-smi" not in command or "3296MiB" in said
    debian.run("rm", yes)
    assert registered(debian) is None
    assert not debian.path(CONFIG).parent.exists()
