"""Freed memory that something still holds is charged for as long as that may be so, whatever else comes and goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.simgpu.host import SimHost
from tests.unit.agent.bounded import SHARE, Container, wait_for
from tests.unit.agent.test_attacks import line
from tests.unit.agent.test_managed import rooted, used
from tests.unit.agent.test_rules import watched

LOOKS = 0.5
"""Seconds in which the agent looks several times."""


def test_what_the_account_says_credits_nothing_for_good(container: Container, host: SimHost) -> None:
    """It explained what the device gave, and then it said something else."""
    with rooted(container) as account, watched(host) as watch:
        program = container.start("-w", "uvmhold", "64")
        assert "times" in line(program)
        account.write([(program.pid, SHARE)])
        wait_for(lambda: used(container) >= SHARE)
        time.sleep(LOOKS)
        account.write([])
        container.run("uvmhold", "64")
        assert watch.most <= SHARE
        program.communicate()


def test_contexts_that_nobody_made_credit_nothing_for_good(container: Container, host: SimHost) -> None:
    """A client with memory is charged for a context; it has none, and ends."""
    holders = [container.start("hold", "2") for _ in range(40)]
    assert {line(one) for one in holders} == {"ready\n"}
    with watched(host) as watch:
        program = container.start("-w", "uvmhold", "64")
        assert "times" in line(program)
        for one in holders:
            one.communicate()
        time.sleep(LOOKS)
        container.run("uvmhold", "64")
        assert watch.most <= SHARE
        program.communicate()


@pytest.fixture
def kept(container_with: Callable[..., Container]) -> Iterator[tuple[Container, Container]]:
    """A container that keeps all of its share without a handle, and a neighbour."""
    container, neighbour = container_with(), container_with()
    program = container.start("-w", "uvmhold", "64")
    assert "times" in line(program)
    yield container, neighbour
    program.communicate()


@pytest.mark.parametrize("mib", [2, 8])
def test_what_a_context_gives_back_is_no_proof(container: Container, host: SimHost, mib: int) -> None:
    """It comes back with the free that leaves memory without a handle."""
    with watched(host) as watch:
        program = container.start("-w", "clienthold", str(mib), str(2048 // mib))
        assert "clients" in line(program)
        assert watch.most <= SHARE
        program.communicate()


def test_a_neighbours_processes_credit_nothing_for_good(kept: tuple[Container, Container], host: SimHost) -> None:
    container, neighbour = kept
    before = host.used()
    holders = [neighbour.start("hold", "2") for _ in range(60)]
    assert {line(one) for one in holders} == {"ready\n"}
    time.sleep(LOOKS)
    for one in holders:
        one.communicate()
    wait_for(lambda: host.used() == before)
    time.sleep(LOOKS)
    assert container.run("fill", "64").startswith("0 allocations")


def test_a_neighbour_that_allocates_and_frees_credits_nothing(kept: tuple[Container, Container], host: SimHost) -> None:
    container, neighbour = kept
    before = host.used()
    churn = neighbour.start("pairs", "1000000", "900")
    for _ in range(100):
        assert container.run("fill", "64").startswith("0 allocations")
    churn.kill()
    wait_for(lambda: host.used() == before)
