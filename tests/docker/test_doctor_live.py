"""runai-ctl doctor --live: what it says where a share is held, and where it isn't; and that nothing of it stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker.engine import Engine
from tests.docker.host import Runai

CTL = str(Path(sys.executable).with_name("runai-ctl"))

# Gives each container the whole GPU, and holds nothing.
OPEN = """\
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
    cdi.apply({specification!r}, ["0"], spec)
    with open(path, "w") as file:
        json.dump(spec, file)
os.execv("/usr/sbin/runc", ["runc", *sys.argv[1:]])
"""


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


@pytest.mark.parametrize("kind", ["runai_agent", "runai_interposer"])
def test_a_share_that_is_held(kind: str, request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> None:
    runai: Runai = request.getfixturevalue(kind)
    found = live(runai, tmp_path)
    print(found)
    assert list(found) == ["share of GPU 0"]
    assert found["share of GPU 0"]["level"] == "ok"
