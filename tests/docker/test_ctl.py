"""runai-ctl on containers of a real engine: what it shows of them, and a share that is changed by it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docker.agents import FILL, agents, tools, wait_for
from tests.docker.host import CUDASH, Container, Runai

MIB = 1 << 20
CTL = str(Path(sys.executable).with_name("runai-ctl"))


def ctl(runai: Runai, *arguments: str, code: int = 0) -> str:
    """What runai-ctl prints; for a CODE of 1 or 3 what it complains of."""
    environment = {"DOCKER_HOST": runai.engine.host, "PATH": os.environ["PATH"], "COLUMNS": "200"}
    command = [CTL, *arguments, f"--config={runai.program.parent / 'config.json'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout
    return done.stderr if code else done.stdout


def start(runai: Runai, name: str) -> Container:
    """A container that holds 256 MiB of 2 GiB."""
    command = (CUDASH, "primary", "alloc 256m", "hold")
    options = ("-i", f"--name={name}", *tools())
    container = Container(runai, *command, memory="2g", options=options)
    wait_for(lambda: "alloc 256m" in container.logs() or "SUCCESS" in container.logs())
    return container


def status_of(runai: Runai, container: Container) -> dict[str, Any]:
    (found,) = [
        each for each in json.loads(ctl(runai, "status", "--format=json"))["containers"] if each["id"] == container.id
    ]
    return dict(found)


@pytest.mark.parametrize("kind", ["runai_agent", "runai_interposer"])
def test_a_container_from_all_sides(kind: str, request: pytest.FixtureRequest, engine: object) -> None:
    runai: Runai = request.getfixturevalue(kind)
    by = kind.removeprefix("runai_")
    container = start(runai, f"seen-{by}")
    seen = status_of(runai, container)
    assert (seen["name"], seen["enforcement"]) == (f"seen-{by}", by)
    (gpu,) = seen["gpus"]
    assert gpu["share"] == 2048 * MIB
    assert 256 * MIB <= gpu["used"] < 1024 * MIB
    assert (gpu["peak"] is None) == (by == "interposer")
    table = ctl(runai, "status")
    assert container.id[:12] in table
    assert f"seen-{by}" in table
    top = ctl(runai, "top", "--once")
    assert "cudash" in top
    said = " ".join(ctl(runai, "inspect", f"seen-{by}").split())
    assert "2g of each GPU's memory" in said
    assert ("an agent outside of the container" in said) == (by == "agent")
    values = json.loads(ctl(runai, "inspect", container.id[:10], "--format=json"))
    assert values["grant"]["id"] == container.id
    assert values["plan"][0][0] == "runai-plan"
    (process,) = values["processes"]
    assert (process["command"], process["gpu"]) == ("cudash", 0)


def test_refused_requests_are_counted(runai_agent: Runai) -> None:
    container = Container(runai_agent, "sleep", "60", memory="1g", options=tools())
    container.execute(*FILL)
    (gpu,) = status_of(runai_agent, container)["gpus"]
    assert gpu["refused"] == 1
    assert 900 * MIB < gpu["peak"] <= 1024 * MIB
    text = ctl(runai_agent, "metrics")
    (line,) = [line for line in text.splitlines() if line.startswith("runai_container_refused_requests_total{")]
    assert container.id in line
    assert line.endswith(" 1.0")


def test_metrics_in_a_file(runai_agent: Runai, tmp_path: Path) -> None:
    container = Container(runai_agent, "sleep", "60", memory="1g")
    ctl(runai_agent, "metrics", f"--file={tmp_path}/runai.prom")
    assert container.id in (tmp_path / "runai.prom").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["runai.prom"]


def test_a_share_that_is_set(runai_agent: Runai) -> None:
    container = Container(runai_agent, "sleep", "60", memory="1g", options=("--name=set-me", *tools()))
    assert "1024 MiB before, 2048 MiB now" in ctl(runai_agent, "limits", "set", "set-me", "2g")
    assert status_of(runai_agent, container)["gpus"][0]["share"] == 2048 * MIB
    assert "2g of each GPU's memory" in " ".join(ctl(runai_agent, "inspect", "set-me").split())
    other = Container(runai_agent, "sleep", "60", memory="4g")
    refused = ctl(runai_agent, "limits", "set", container.id, "100%", code=1)
    assert refused.startswith("runai-ctl: ")
    assert refused.count("\n") == 1
    assert other.id[:12] in refused
    assert status_of(runai_agent, container)["gpus"][0]["share"] == 2048 * MIB


def test_without_an_agent_it_is_refused(runai_interposer: Runai) -> None:
    container = Container(runai_interposer, "sleep", "60", memory="1g")
    assert "needs an agent" in ctl(runai_interposer, "limits", "set", container.id[:8], "2g", code=1)


@pytest.mark.parametrize("command", [("inspect", "nobody"), ("limits", "set", "nobody", "1g"), ("logs", "nobody")])
def test_no_such_container(runai_agent: Runai, command: tuple[str, ...]) -> None:
    assert "nobody" in ctl(runai_agent, *command, code=3)


@pytest.mark.parametrize(
    "command", [("status", "--format=odd"), ("metrics", "--file=x", "--port=1"), ("top", "--sort=x")]
)
def test_a_wrong_option(runai_agent: Runai, command: tuple[str, ...]) -> None:
    assert ctl(runai_agent, *command, code=2)


def test_an_agent_that_was_killed(runai_agent: Runai) -> None:
    container = Container(runai_agent, "sleep", "60", memory="1g", options=("--name=bereft",))
    assert status_of(runai_agent, container)["agent"] == "there"
    (agent,) = agents(container.grant)
    os.kill(agent, signal.SIGKILL)
    wait_for(lambda: agents(container.grant) == [])
    assert status_of(runai_agent, container)["agent"] == "gone"
    shown = ctl(runai_agent, "status")
    assert "  no agent  " in shown
    assert "The agent of bereft is gone: it gets no more memory of a GPU until it is restarted." in shown
    assert "start the container anew (docker restart)" in " ".join(ctl(runai_agent, "inspect", "bereft").split())
    runai_agent.engine.docker("restart", "--time=0", container.id)
    assert status_of(runai_agent, container)["agent"] == "there"


def test_logs_of_an_agent(runai_agent: Runai) -> None:
    container = Container(runai_agent, "sleep", "60", memory="1g", options=("--name=talks",))
    with (container.grant / "agent.log").open("a") as log:
        log.write("2026-01-02T03:04:05Z something to say\n")
    assert ctl(runai_agent, "logs", "talks") == "2026-01-02T03:04:05Z talks agent: something to say\n"
