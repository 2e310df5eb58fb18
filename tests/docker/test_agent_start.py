"""What a container's agent is given, and that none is left behind; a stand-in answers for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runai_runtime import prepare
from runai_runtime.commandline import CommandLine
from runai_runtime.configure import configure
from runai_runtime.errors import RefusalError
from tests.docker.agents import agents, wait_for
from tests.docker.host import CUDASH, Container, Runai, grants_in
from tests.programs.build import program

GIB = 1 << 30
STUB = Path(__file__).with_name("agent_stub.py")
TOOLS = (f"--volume={program('cudash')}:{CUDASH}:ro",)


@pytest.fixture
def agent(folder: Path, runai: Runai) -> Iterator[Path]:
    """The host requires the agent; the path of the program that is it."""
    path = folder / "runai-agent"
    path.write_text(f'#!/bin/sh\nexec /usr/bin/python3 -I {STUB} "$@"\n')
    path.chmod(0o755)
    config = folder / "config.json"
    saved = config.read_text()
    config.write_text(json.dumps(json.loads(saved) | {"enforcement": "agent", "agent": str(path)}))
    yield path
    config.write_text(saved)
    assert grants(runai) == []


def grants(runai: Runai) -> list[str]:
    return grants_in(runai.state)


def refusal(runai: Runai) -> str:
    done = runai.run("true", check=False)
    assert done.returncode == 125, (done.stdout, done.stderr)
    return done.stderr


@pytest.mark.usefixtures("agent")
def test_what_the_agent_is_given(runai: Runai) -> None:
    container = Container(runai, "sleep", "600", options=TOOLS)
    page = container.execute("sh", "-c", "wc -c /.runai/page; tr -d '\\0' < /.runai/page | wc -c; ls -l /.runai/page")
    # Nothing used yet: the magic of 8 bytes, and a share of 0xc0000000.
    assert page.split()[:4] == ["65536", "/.runai/page", "9", "-r--r--r--"]
    assert "CUDA_SUCCESS" in container.execute(CUDASH, "primary", "alloc 1g")
    grant = json.loads((container.grant / "grant.json").read_text())
    assert grant["enforcement"] == {"by": "agent", "removed": []}
    started = json.loads((container.grant / "agent.log").read_text())
    links = started.pop("descriptors")
    assert [links[fd] for fd in "012"] == ["/dev/null"] * 3
    assert all(links[fd].startswith("socket:") for fd in "34")
    assert started.pop("control").endswith("/control")
    assert set(started.pop("environment")) <= {"PWD", "LC_CTYPE"}  # those are the stand-in's shell's and Python's
    assert started == {"folder": str(container.grant), "session": True}
    conf = [line.split("\t") for line in (container.grant / "agent.conf").read_text().splitlines()]
    dev = runai.simhost.dev
    assert conf == [
        ["runai-agent", "1"],
        ["creator", str(grant["creator"]["pid"])],
        ["params", "128"],
        ["gpu", grant["gpus"][0]["uuid"], str(3 * GIB), str(64 << 20)],
        ["node", f"{dev}/nvidiactl"],
        ["node", f"{dev}/nvidia0"],
        ["uvm", f"{dev}/nvidia-uvm"],
    ]
    modes = {name: (container.grant / name).stat().st_mode & 0o777 for name in ("agent", "control", "page")}
    assert modes == {"agent": 0o600, "control": 0o600, "page": 0o444}
    runai.engine.docker("rm", "--force", container.id)
    assert grants(runai) == []


@pytest.mark.parametrize("number", ["226 0", "195 254", "195 7"])
@pytest.mark.usefixtures("agent")
def test_other_doors_to_device_memory_are_closed(runai: Runai, number: str) -> None:
    major = number.split(maxsplit=1)[0]
    script = f"mknod /door c {number} && cat /door"
    done = runai.run("sh", "-c", script, options=(f"--device-cgroup-rule=c {major}:* rwm",), check=False)
    assert "Operation not permitted" in done.stderr


@pytest.mark.usefixtures("agent")
def test_the_container_can_not_write_the_page(runai: Runai) -> None:
    done = runai.run("sh", "-c", "chmod 666 /.runai/page; echo x > /.runai/page", check=False)
    assert done.stderr.count("Read-only file system") == 2


def test_without_it_the_grant_says_why(runai_interposer: Runai) -> None:
    container = Container(runai_interposer, "sleep", "600")
    grant = json.loads((container.grant / "grant.json").read_text())
    assert grant["enforcement"] == {"by": "interposer", "why": 'the configuration has "enforcement": "interposer"'}
    assert "page" not in container.execute("ls", "/.runai")


def test_an_agent_that_is_not_there(runai: Runai, agent: Path) -> None:
    agent.unlink()
    assert f"runai: {agent} is missing on this host" in refusal(runai)


def test_an_agent_that_can_not_be_started(runai: Runai, agent: Path) -> None:
    agent.chmod(0o644)
    assert f"runai: the agent {agent} can't be started: access is denied" in refusal(runai)


@pytest.mark.usefixtures("agent")
def test_a_state_folder_too_deep_for_a_socket(runai: Runai, folder: Path) -> None:
    config = folder / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"state": str(folder / ("deep" * 4))}))
    assert "and that of a socket ends at 107" in refusal(runai)


@pytest.mark.usefixtures("agent")
def test_a_runtime_that_was_not_looked_at(runai: Runai, folder: Path) -> None:
    cache = runai.state / "host.json"
    saved = cache.read_text()
    cache.write_text(json.dumps(json.loads(saved) | {"agent": {"/usr/sbin/runc": "it is too old"}}))
    try:
        assert "the share can't be kept by the agent" in (said := refusal(runai))
        assert f"{folder}/config.json asks for: it is too old" in said
    finally:
        cache.write_text(saved)


def test_a_host_on_which_there_can_be_none_is_not_configured(runai: Runai, tmp_path: Path) -> None:
    wanted = runai.config | {"enforcement": "agent", "agent": str(tmp_path / "none"), "state": str(tmp_path / "state")}
    with pytest.raises(RefusalError, match="none is missing on this host"):
        configure(wanted, tmp_path / "config.json", tmp_path / "runai-runtime")


def test_a_create_that_fails_behind_its_start_leaves_no_agent(
    runai: Runai, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str, text: bytes) -> None:
        raise RefusalError(f"{path} can't be rewritten with {len(text)} bytes")

    monkeypatch.setattr(prepare, "replace", fail)
    spec = {"root": {"path": "rootfs"}, "process": {"env": ["RUNAI_GPU_MEMORY=3g"]}, "linux": {}}
    line = CommandLine(["create", "--bundle", str(tmp_path), "x"])
    text = json.dumps(spec).encode()
    child = os.fork()
    if child == 0:  # the agent ends with it
        try:
            prepare.prepare(line, str(folder / "config.json"), str(tmp_path / "config.json"), text, "/usr/sbin/runc")
        except RefusalError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    wait_for(lambda: agents(runai.state) == [])
    assert grants(runai) == []
