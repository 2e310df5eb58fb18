"""Containers with an agent under crun, and with user namespaces: its socket is reached, its page is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker import images
from tests.docker.engine import Engine
from tests.docker.host import CUDASH, Container, Runai, configuration
from tests.docker.test_agent_start import STUB, TOOLS, grants
from tests.simgpu.host import SimHost


@pytest.fixture(scope="module", params=["runc remapped", "crun", "crun remapped"])
def host(request: pytest.FixtureRequest, folder: Path, simhost: SimHost) -> Iterator[Runai]:
    """A host that requires the agent."""
    name, _, remapped = request.param.partition(" ")
    folder.chmod(0o711)
    home = folder / f"agent-{request.param.replace(' ', '-')}"
    home.mkdir()
    agent = home / "runai-agent"
    agent.write_text(f'#!/bin/sh\nexec /usr/bin/python3 -I {STUB} "$@"\n')
    agent.chmod(0o755)
    runtime = {"runc": "/usr/sbin/runc", "crun": "/usr/bin/crun"}[name]
    # A socket's path ends at 107 bytes, and other tests have letters.
    state = folder / {"runc remapped": "1", "crun": "2", "crun remapped": "3"}[request.param]
    own = {"enforcement": "agent", "agent": str(agent), "state": str(state), "fitted": str(home / "fitted")}
    config = configuration(home, simhost, runtime) | own
    with Engine({"runai": home / "runai-runtime"}, crun=name == "crun", remap=bool(remapped)) as engine:
        images.load(engine)
        yield Runai.configured(engine, simhost, config, home)


def test_run_and_exec(host: Runai) -> None:
    host.run("true")
    container = Container(host, "sleep", "600", options=TOOLS)
    assert container.execute("wc", "-c", "/.runai/page").split() == ["65536", "/.runai/page"]
    assert "CUDA_SUCCESS" in container.execute(CUDASH, "primary", "alloc 1g")
    host.engine.docker("rm", "--force", container.id)
    assert grants(host) == []
