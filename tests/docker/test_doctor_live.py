"""runai-ctl doctor --live: what it says where a share is held, and where it isn't; and that nothing of it stays."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker.agents import wait_for
from tests.docker.conftest import bounded_by
from tests.docker.engine import Engine
from tests.docker.host import Container, Runai
from tests.simgpu.host import SimHost
from tests.toolkit.install import TOP, Toolkit

CTL = str(Path(sys.executable).with_name("runai-ctl"))

# In place of runai-runtime: runc, for a container that was edited otherwise, or not at all.
OTHER = """\
#!/usr/bin/python3 -IS
import json
import os
import sys

sys.path.append({top!r})
from tests.toolkit import cdi

if "create" in sys.argv:
    path = os.path.join(sys.argv[sys.argv.index("--bundle") + 1], "config.json")
    with open(path) as file:
        spec = json.load(file)
    {edit}
    with open(path, "w") as file:
        json.dump(spec, file)
os.execv("/usr/sbin/runc", ["runc", *sys.argv[1:]])
"""

NOTHING = "pass"
WHOLE_GPU = "cdi.apply({specification!r}, ['0'], spec)"
SLEEP = (
    "spec['mounts'].append({'type': 'bind', 'source': '/usr/bin/busybox', 'destination': '/busybox', "
    "'options': ['bind', 'ro']}); "
    "spec['process']['args'] = ['/busybox', 'sleep', '120']"
)


def command(runai: Runai, folder: Path, *options: str) -> list[str]:
    daemon = folder / "daemon.json"
    daemon.write_text(json.dumps({"runtimes": {runai.runtime: {"path": str(runai.program)}}}))
    files = [f"--config={runai.program.with_name('config.json')}", f"--daemon-json={daemon}"]
    return [CTL, "doctor", "--live", *files, f"--name={runai.runtime}", *options]


def environment(runai: Runai) -> dict[str, str]:
    return {**os.environ, "DOCKER_HOST": runai.engine.host, "RUNAI_DOCKER": str(runai.engine.program("docker"))}


def live(runai: Runai, folder: Path) -> dict[str, dict[str, Any]]:
    """What was said of containers alone."""
    done = subprocess.run(
        command(runai, folder, "--format=json"),
        env=environment(runai),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    said = json.loads(done.stdout)
    assert (done.returncode == 0) is said["ok"], done.stderr
    found = {one["check"]: one for one in said["findings"]}
    return {name: one for name, one in found.items() if name == "live" or name.startswith("share of GPU")}


def left(engine: Engine) -> tuple[list[str], list[str]]:
    containers = engine.docker("ps", "--all", "--format={{.Names}}").stdout.split()
    return [name for name in containers if name.startswith("runai-doctor")], images(engine)


def images(engine: Engine) -> list[str]:
    return sorted(engine.docker("images", "--all", "--quiet", "--no-trunc").stdout.split())


@pytest.fixture(autouse=True)
def leaves_nothing(engine: Engine) -> Iterator[None]:
    before = images(engine)
    yield
    assert left(engine) == ([], before)


@pytest.fixture
def other(folder: Path, engine: Engine, simhost: SimHost) -> Runai:
    """A runtime of the engine that is configured as ours is, and whose program a test puts another in place of."""
    return bounded_by("auto", "runai-other", folder, engine, simhost)


def put(other: Runai, edit: str) -> None:
    text = OTHER.format(top=str(TOP), edit=edit)
    other.program.write_text(text)


@pytest.mark.parametrize("kind", ["runai_agent", "runai_interposer"])
def test_a_share_that_is_held(kind: str, request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> None:
    found = live(request.getfixturevalue(kind), tmp_path)["share of GPU 0"]
    assert found["level"] == "ok", found
    words = r"a container sees 512 MiB; it took 35\d beside its context, then was refused"
    around = r"; around libvgpu it took 352, then the agent refused it" if kind == "runai_agent" else ""
    assert re.fullmatch(words + around, found["what"]), found


def test_a_share_that_is_not_held(other: Runai, tmp_path: Path) -> None:
    """A whole GPU without anything of ours: what was taken of it is little more than the share."""
    toolkit = Toolkit(tmp_path, other.simhost)
    put(other, WHOLE_GPU.format(specification=toolkit.specification))
    found = live(other, tmp_path)["share of GPU 0"]
    assert found["level"] == "fault"
    assert found["what"] == ("the share isn't held: a container with 512 MiB took 544, and cuMemAlloc wasn't refused")
    assert found["mend"].startswith("see which program docker has")


def test_a_container_without_a_driver(other: Runai, tmp_path: Path) -> None:
    put(other, NOTHING)
    found = live(other, tmp_path)["share of GPU 0"]
    assert (found["level"], "started without the driver: libcuda.so.1" in found["what"]) == ("fault", True), found


def test_no_room_is_no_fault(runai_agent: Runai, tmp_path: Path) -> None:
    holder = Container(runai_agent, "sleep", "60", memory="1")
    found = live(runai_agent, tmp_path)["share of GPU 0"]
    assert found["level"] == "warning"
    assert found["what"].startswith("a share was not tried: GPU 0 has 0 MiB free of ")
    assert holder.id[:12] in found["what"]
    assert found["mend"] == "try again when there is room (runai-ctl status)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_it_leaves_nothing(other: Runai, tmp_path: Path, number: signal.Signals) -> None:
    put(other, SLEEP)
    with subprocess.Popen(
        command(other, tmp_path), env=environment(other), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as doctor:
        try:
            wait_for(lambda: left(other.engine)[0] != [])
        finally:
            doctor.send_signal(number)
            if number == signal.SIGTERM:
                doctor.send_signal(number)  # one more doesn't stop it from clearing up
            _, errors = doctor.communicate(timeout=60)
    assert doctor.returncode != 0
    assert "Traceback" not in errors
    assert left(other.engine)[0] == []


def test_nohup_is_left_as_it_is(runai_interposer: Runai, tmp_path: Path) -> None:
    before = images(runai_interposer.engine)
    with subprocess.Popen(
        ["/usr/bin/nohup", *command(runai_interposer, tmp_path, "--format=json")],
        env=environment(runai_interposer),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as doctor:
        wait_for(lambda: images(runai_interposer.engine) != before)
        doctor.send_signal(signal.SIGHUP)
        said, _ = doctor.communicate(timeout=60)
    assert "share of GPU 0" in [one["check"] for one in json.loads(said)["findings"]]
