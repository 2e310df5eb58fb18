"""Creates that are cut short at any moment: no agent outlives what it was started for, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docker.agents import FILL, FILLED, agents, tools, wait_for
from tests.docker.conftest import PLACES
from tests.docker.engine import Engine
from tests.docker.host import Runai, configuration, grants_in, host_mounts, mounts_in
from tests.simgpu.host import SimHost

RUNC = "/usr/sbin/runc"
LONGEST = 0.12
"""Seconds that a create takes, and some more."""

CUTS = {
    "runc": 'timeout --foreground -s KILL $after {runc} "$@"',
    "its init": '{runc} "$@" & created=$!; sleep $after; pkill -KILL -P $created; wait $created',
}


@pytest.fixture(params=CUTS)
def cut(request: pytest.FixtureRequest, folder: Path, engine: Engine, simhost: SimHost) -> Runai:
    """A host whose low-level runtime is killed so many seconds after a create begins as `after` says."""
    home = folder / PLACES["runai-cut"]
    stub = home / "stub"
    home.mkdir(exist_ok=True)
    create = CUTS[request.param].format(runc=RUNC)
    stub.write_text(
        f'#!/bin/sh\ncase " $* " in *" create "*) if after=$(cat {home}/after); then {create}; exit; fi ;; esac\n'
        f'exec {RUNC} "$@"\n'
    )
    stub.chmod(0o755)
    config = configuration(home, simhost, str(stub)) | {"enforcement": "agent"}
    return Runai.configured(engine, simhost, config, home, "runai-cut")


def test_a_create_that_is_killed(cut: Runai, count: Callable[[int], int]) -> None:
    after, rounds = cut.state.parent / "after", count(80)
    before = host_mounts()
    failed = 0
    for number in range(rounds):
        after.write_text(f"{LONGEST * number / rounds:.3f}")
        done = cut.run(*FILL, memory="1g", options=tools(), check=False)
        failed += done.returncode != 0
        assert done.returncode != 0 or done.stdout == FILLED
        wait_for(lambda: agents(cut.state) == [])
    assert failed
    after.unlink()
    assert cut.run(*FILL, memory="1g", options=tools()).stdout == FILLED
    wait_for(lambda: agents(cut.state) == [])
    assert grants_in(cut.state) == []
    assert mounts_in(cut.engine) == [] and host_mounts() == before
    assert cut.simhost.used() == 0
