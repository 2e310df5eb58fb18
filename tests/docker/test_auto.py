"""The default: an agent where there can be one; else libvgpu alone, and why stands in the grant and in the log."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.commandline import CommandLine
from runai_runtime.configure import configure
from runai_runtime.grant import remove_grant
from runai_runtime.prepare import prepare
from tests.docker.agents import FILL, FILLED, agents, tools
from tests.docker.host import CUDASH, Container, Runai, grants_in

RUNC = "/usr/sbin/runc"
UNORDERABLE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "syscalls": [
        {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 1, "op": "SCMP_CMP_NE"}]}
    ],
}
OWN_LISTENER = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "listenerPath": "/run/theirs",
    "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}],
}

Write = Callable[..., None]


@pytest.fixture
def write(runai: Runai, folder: Path) -> Iterator[Write]:
    """Sets keys of a configuration that doesn't say what keeps a share, and of what was found on the host."""
    files = {"config": folder / "config.json", "found": runai.state / "host.json"}
    saved = {path: path.read_text() for path in files.values()}

    def write(name: str = "config", **values: Any) -> None:
        kept = json.loads(files[name].read_text())
        kept.pop("enforcement", None)
        files[name].write_text(json.dumps(kept | values))

    write()
    yield write
    for path, text in saved.items():
        path.write_text(text)
    assert grants_in(runai.state) == []


def refusal(runai: Runai, *options: str) -> str:
    done = runai.run("true", options=options, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    return done.stderr


def said(container: Container) -> list[str]:
    """What stands in the low-level runtime's log from us."""
    log = Path((container.grant / "log").read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["msg"] for line in lines if line["level"] == "info" and line["msg"].startswith("runai: ")]


def enforcement(container: Container) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((container.grant / "grant.json").read_text())["enforcement"]
    return found


@pytest.mark.usefixtures("write")
def test_an_agent_is_the_default(runai: Runai) -> None:
    container = Container(runai, "sleep", "600", memory="1g", options=tools())
    assert enforcement(container)["by"] == "agent"
    assert said(container) == ["runai: an agent keeps the share"]
    assert container.execute(*FILL) == FILLED
    runai.engine.docker("rm", "-f", container.id)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a runtime": ({"agent": {RUNC: "it is too old"}}, "it is too old"),
    "a kernel": ({"agent": {RUNC: "the kernel is 5.4"}}, "the kernel is 5.4"),
    "a runtime that is new": ({"agent": {}}, f"{RUNC} was not looked at, run runai-ctl configure again"),
    "a newer driver": ({"driver": "596.10"}, "the agent doesn't know the driver 596.10, it knows 535 to 595"),
    "an older driver": ({"driver": "530.41.03"}, "the agent doesn't know the driver 530.41.03, it knows 535 to 595"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_host_that_can_not(runai: Runai, write: Write, fault: str) -> None:
    """The share is kept by libvgpu alone, unless the configuration requires an agent."""
    values, why = FAULTS[fault]
    write("found", **values)
    container = Container(runai, "sleep", "600", memory="1g", options=tools())
    assert enforcement(container) == {"by": "interposer", "why": why}
    assert said(container) == [f"runai: libvgpu alone keeps the share of the GPU: {why}"]
    assert agents(runai.state) == []
    assert "CUDA_ERROR_OUT_OF_MEMORY" in container.execute(CUDASH, "primary", "fill 64m")
    runai.engine.docker("rm", "-f", container.id)
    write(enforcement="agent")
    assert f'config.json asks for: {why}; or set "enforcement" to "auto"' in refusal(runai)


def test_a_profile_that_can_not_be_split(runai: Runai, write: Write, tmp_path: Path) -> None:
    """It is a user's, who may run it; it stays as it is."""
    path = tmp_path / "profile.json"
    profile = json.loads(json.dumps(UNORDERABLE)) | {"defaultAction": "SCMP_ACT_ALLOW"}
    path.write_text(json.dumps(profile))
    option = f"--security-opt=seccomp={path}"
    container = Container(runai, "sleep", "600", memory="1g", options=(option,))
    found = enforcement(container)
    assert found["by"] == "interposer" and '"SCMP_CMP_NE"' in found["why"]
    (spec,) = runai.engine.place.state.rglob(f"{container.id}/config.json")
    assert "NOTIFY" not in spec.read_text()
    runai.engine.docker("rm", "-f", container.id)
    write(enforcement="agent")
    assert '"SCMP_CMP_NE"' in refusal(runai, option)


@pytest.mark.parametrize(("profile", "why"), [(OWN_LISTENER, "has a listener of its own"), (UNORDERABLE, "CMP_NE")])
@pytest.mark.usefixtures("write")
def test_what_becomes_of_the_specification(
    runai: Runai, folder: Path, tmp_path: Path, profile: dict[str, Any], why: str
) -> None:
    door = {"path": "/dev/dri/card0", "type": "c", "major": 226, "minor": 0}
    spec = {
        "root": {"path": "rootfs"},
        "process": {"env": ["RUNAI_GPU_MEMORY=3g"]},
        "linux": {"seccomp": profile, "devices": [door]},
    }
    text = json.dumps(spec).encode()
    config = tmp_path / "config.json"
    config.write_bytes(text)
    line = CommandLine(["create", "--bundle", str(tmp_path), "x"])
    try:
        prepare(line, str(folder / "config.json"), str(config), text, RUNC)
        found = json.loads((runai.state / "x/grant.json").read_text())["enforcement"]
        assert found["by"] == "interposer" and why in found["why"]
        assert not (runai.state / "x/agent.conf").exists()
    finally:
        remove_grant(str(runai.state / "x"))
    linux = json.loads(config.read_text())["linux"]
    assert linux["seccomp"] == profile
    assert linux["devices"][0] == door


def test_a_state_folder_too_deep_for_a_socket(runai: Runai, folder: Path, write: Write) -> None:
    deep = folder / ("deep" * 6)
    write(state=str(deep))
    container = Container(runai, "sleep", "600", memory="1g")
    found = json.loads((deep / container.id / "grant.json").read_text())["enforcement"]
    assert found["by"] == "interposer" and "and that of a socket ends at 107" in found["why"]
    runai.engine.docker("rm", "-f", container.id)


def test_an_agent_that_is_missing_is_a_damaged_installation(runai: Runai, write: Write, tmp_path: Path) -> None:
    write(agent=str(tmp_path / "none"))
    assert "none is missing on this host" in refusal(runai)


def test_what_configure_says(runai: Runai, tmp_path: Path) -> None:
    runtime = tmp_path / "stub"
    runtime.write_text("#!/bin/sh\nexit 1\n")
    runtime.chmod(0o755)
    own = {"runtime": str(runtime), "state": str(tmp_path / "s"), "fitted": str(tmp_path / "f"), "enforcement": "auto"}
    why = f"{runtime} doesn't say that it knows SCMP_ACT_NOTIFY (runc 1.1 does)"
    assert configure(runai.config | own, tmp_path / "config.json", tmp_path / "program") == [why]
    own["enforcement"] = "interposer"
    assert configure(runai.config | own, tmp_path / "config.json", tmp_path / "program") == []


# ---- MPS ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["runai", "runai_interposer"])
def test_the_folder_of_an_mps_server(request: pytest.FixtureRequest, host: str, tmp_path: Path) -> None:
    """Its server takes device memory for a client: neither an agent nor libvgpu would see it."""
    runai: Runai = request.getfixturevalue(host)
    pipes = tmp_path / "mps"
    pipes.mkdir()
    volume = f"--volume={pipes}:/mps"
    assert runai.run("echo", "fine", options=(volume,)).stdout == "fine\n"
    (pipes / "control_privileged").touch()
    assert 'runai: the volume on "/mps" leads to an MPS server of the host' in refusal(runai, volume)
    assert runai.run("echo", "fine", memory=None, options=(volume,)).stdout == "fine\n"
