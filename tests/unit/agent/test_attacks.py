"""Attacks on the agent's account: each once got memory that wasn't charged, or took an honest program's."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import pytest

from tests.simgpu.host import SimHost
from tests.unit.agent.bounded import MIB, SHARE, Container, wait_for
from tests.unit.agent.test_rules import watched


def line(program: subprocess.Popen[str]) -> str:
    assert program.stdout
    return program.stdout.readline()


def test_a_context_of_the_same_name_doesnt_credit_memory(container: Container, host: SimHost) -> None:
    with watched(host) as watch:
        answer = container.run("namesake", "512")
    assert watch.most <= SHARE
    assert answer.startswith("1 allocations")


def test_contexts_in_the_32_byte_form_are_refused(container_with: Callable[..., Container], host: SimHost) -> None:
    container = container_with(200 * MIB)
    with watched(host) as watch:
        container.run("oldcontext", "40")
    assert watch.most <= 200 * MIB


def test_a_client_that_another_process_named_before(container: Container, host: SimHost) -> None:
    """It is charged to who has it, and not credited with the other's end."""
    program = container.start("foreclaim", "600")
    assert line(program) == f"{600 * MIB} bytes, then status 0x51\n"
    assert host.used() == 600 * MIB
    program.communicate()


def test_a_class_that_is_swapped_after_the_look_is_ended(container: Container, host: SimHost) -> None:
    """The agent has seen no request for device memory, so nothing but the driver tells of it."""
    assert container.run("swaplate", "2048") == "ended\n"
    wait_for(lambda: host.used() == 0)
    wait_for(lambda: "was ended" in container.log())


def test_memory_of_a_dead_taker_ends_the_container(container: Container, host: SimHost) -> None:
    """What it took around the agent is kept by a child, and no figure of a living process has it."""
    program = container.start("swaporphan", "2048")
    (container.folder / "pid").write_text(str(program.pid))  # as the hook does, before anything runs
    assert line(program) == "ready\n" and program.stdin
    program.stdin.close()
    assert line(program) == "taken\n"
    assert program.wait(10) == -signal.SIGKILL
    wait_for(lambda: host.used() == 0)
    assert "with its container" in container.log()


def test_a_message_in_the_address_space_from_before_an_exec(container: Container, host: SimHost) -> None:
    program = container.start("execswap", "2048")
    assert line(program).startswith("status ")  # the answer goes to the old address space
    assert host.used() == 0


@pytest.mark.parametrize("way", ["leaderless", "lateuse"])
def test_a_process_whose_first_thread_has_ended_keeps_its_memory(container: Container, host: SimHost, way: str) -> None:
    program = container.start(way, "512")
    assert line(program) in ("ready\n", "status 0x0\n")
    assert host.used() == 512 * MIB
    program.communicate()
    wait_for(lambda: host.used() == 0)


def test_what_was_held_without_a_handle_comes_back(container: Container, host: SimHost) -> None:
    """Mappings keep what was freed, so it stays charged; once they are gone it isn't."""
    program = container.start("uvmrelease", "64")
    assert line(program).startswith("16 times")  # with what is charged for a context that it doesn't make
    assert line(program) == "released\n"
    assert container.run("fill", "64").startswith("15 allocations")
    program.communicate()


def test_frees_beside_a_neighbour_whose_memory_nobody_explains(
    container_with: Callable[..., Container], host: SimHost
) -> None:
    """Managed memory is in no process's figure: what is freed beside it is credited by the device's own."""
    neighbour = container_with(bounded=False).start("managedhold", "600")
    assert line(neighbour) == "ready\n"
    container = container_with()
    assert container.run("pairs", "300", "64").endswith("status 0x0\n")
    assert container.run("fill", "64").startswith("15 allocations")
    with watched(host) as watch:
        assert container.run("uvmhold", "64").startswith("15 times")
    assert watch.most <= SHARE + 600 * MIB
    neighbour.communicate()
