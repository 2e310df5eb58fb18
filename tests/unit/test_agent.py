"""The shim's side of the agent: the edits that go with it, its figures, its start."""

from __future__ import annotations

import copy
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from runai_runtime.agent import Agent, CloseOtherDoors, params_of
from runai_runtime.errors import RefusalError
from runai_runtime.host import Host, check
from runai_runtime.inventory import Inventory

DENIED = [
    {"allow": False, "type": "c", "major": 226, "access": "rwm"},
    {"allow": False, "type": "c", "major": 195, "minor": 254, "access": "rwm"},
]


def device(path: str, major: int, minor: int) -> dict[str, Any]:
    return {"path": path, "type": "c", "major": major, "minor": minor}


def test_other_doors_are_taken_out() -> None:
    ours = device("/dev/nvidia0", 195, 0)
    everything = {"allow": True, "access": "rwm"}
    leave = {"allow": True, "type": "c", "major": 195, "minor": 0, "access": "rw"}
    everything_of_nvidia = {"allow": True, "type": "c", "major": 195, "access": "rwm"}
    others = [device("/dev/dri/card0", 226, 0), device("/dev/x", 226, 128)]
    others += [device("/m", 195, 254), device("/dev/hidden", 195, 1)]
    kept = {"destination": "/data", "source": "/dev/driver", "type": "bind"}
    spec = {
        "linux": {
            "devices": [ours, *others],
            "resources": {"devices": [everything, leave, everything_of_nvidia, {**leave, "major": 226}]},
        },
        "mounts": [kept, {"destination": "/dev/dri", "source": "/x"}, {"destination": "/y", "source": "/dev/dri"}],
    }
    doors = CloseOtherDoors([0])
    doors.apply(spec)
    once = copy.deepcopy(spec)
    assert spec["linux"] == {"devices": [ours], "resources": {"devices": [everything, leave, *DENIED]}}
    assert spec["mounts"] == [kept]
    assert doors.removed == ["/dev/dri/card0", "/dev/x", "/m", "/dev/hidden", "/dev/dri", "/y", "c 195:*", "c 226:0"]
    doors.apply(spec)
    assert spec == once


@pytest.mark.parametrize(
    ("driver", "size"), [("580.159.04", 128), ("545.23", 128), ("535.1", 120), ("525.60.13", 120), ("999", 128)]
)
def test_the_parameters_of_a_driver(driver: str, size: int) -> None:
    assert params_of(driver) == size


@pytest.mark.parametrize("driver", ["524.99", "390.157", "", "x.1", "\u0665\u0665\u0665"])
def test_a_driver_that_it_does_not_know(driver: str) -> None:
    with pytest.raises(RefusalError, match="doesn't know the driver"):
        params_of(driver)


def test_the_configuration() -> None:
    values = {"runtime": "/r", "hook": "/opt/runai-hook", "libvgpu": "/l"}
    assert "enforcement" in check(values | {"enforcement": "driver"})
    assert "agent" in check(values | {"agent": "runai-agent"})
    assert check(values | {"enforcement": "agent"}) == ""
    assert (Host("", values).enforcement, Host("", values).agent) == ("interposer", "/opt/runai-agent")


def test_start_and_end(tmp_path: Path) -> None:
    """Descriptors 3 and 4 are the sockets, whatever numbers they had before."""
    program = tmp_path / "runai-agent"
    program.write_text('#!/bin/sh\nls -l /proc/$$/fd > "$1/seen"\nkill -STOP $$\n')
    program.chmod(0o755)
    values = {"runtime": "/r", "hook": "/h", "libvgpu": "/l", "agent": str(program)}
    inventory = Inventory({"driver": "580.1", "gpus": [], "libraries": [], "programs": [], "ours": {}})
    agent = Agent(Host("", values), inventory, [], str(tmp_path))
    agent.put(str(tmp_path), None)
    names = {number: os.readlink(f"/proc/self/fd/{socket.fileno()}") for number, socket in enumerate(agent.sockets, 3)}
    pid = agent.start()
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    seen = (tmp_path / "seen").read_text()
    for number, name in names.items():
        assert f" {number} -> {name}\n" in seen
    agent.end(pid)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
