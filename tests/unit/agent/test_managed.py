"""Managed memory: no ioctl asks for it, so the agent goes by what the processes have mapped of nvidia-uvm."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.simgpu.host import SimHost
from tests.unit.agent.bounded import MIB, SHARE, Container, wait_for
from tests.unit.agent.test_attacks import line

GRANULE = 2 * MIB
GPUS, SLOTS = 16, 1024
SLOT = 8 * (3 + GPUS + 2 * GPUS)
PAGE_SIZE = 8 * (1 + GPUS) + SLOTS * SLOT
"""libvgpu/account_page.h"""

AROUND = {
    "a plain mapping": ("managed", "64"),
    "whose permissions were taken away": ("hidden", "64"),
    "behind 60,000 mappings of another file": ("crowded", "60000", "64"),
    "whose first thread has ended": ("leaderlessmanaged", "64"),
}


def used(container: Container) -> int:
    """Bytes, as the agent publishes it."""
    return int(struct.unpack_from("<Q", (container.folder / "page").read_bytes(), 24)[0])


class Account:
    """The account's page as a program in the container can write it: whatever it likes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True)
        self.write([])

    def write(self, slots: list[tuple[int, int]], total: int | None = None, gpu: int = 0) -> None:
        """SLOTS: a pid and its bytes on GPU; TOTAL in bytes, their sum unless given."""
        page = bytearray(PAGE_SIZE)
        total = sum(held for _, held in slots) if total is None else total
        struct.pack_into("<Q", page, 0, len(slots))
        struct.pack_into("<Q", page, 8 * (1 + gpu), total // GRANULE << 40)
        for number, (pid, held) in enumerate(slots):
            at = 8 * (1 + GPUS) + number * SLOT
            struct.pack_into("<Q", page, at, pid << 32)
            struct.pack_into("<Q", page, at + 8 * (3 + GPUS) + 16 * gpu + 8, held // GRANULE << 30)
        self.path.write_bytes(page)


@contextmanager
def rooted(container: Container) -> Iterator[Account]:
    """A first process whose root has an account's page."""
    root = container.folder / "root"
    account = Account(root / ".runai/account/page")
    shutil.copy(container.raw, root / "rawgpu")
    first = subprocess.Popen(
        ["/rawgpu", "idle"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.chroot(root),  # noqa: PLW1509 - it takes no lock
    )
    with first:
        (container.folder / "pid").write_text(f"{first.pid}\n")
        yield account
        first.kill()


def a_thief_is_ended(container: Container) -> None:
    """Then the agent has looked at all processes, more than once, and ended the one that took most around it."""
    thief = container.start("-w", "managed", "64")
    assert thief.wait(30) == -signal.SIGKILL
    wait_for(lambda: "was ended" in container.log())
    assert container.log().count("was ended") == 1
    assert f"process {thief.pid} was ended" in container.log()


@pytest.mark.parametrize("way", AROUND.values(), ids=AROUND)
def test_managed_memory_around_libvgpu_is_ended(container: Container, host: SimHost, way: tuple[str, ...]) -> None:
    program = container.start("-w", *way)
    assert program.wait(30) == -signal.SIGKILL
    wait_for(lambda: host.used() == 0)
    wait_for(lambda: "was ended" in container.log())  # said after it was done
    assert container.run("fill", "64").startswith("15 allocations")


@pytest.mark.parametrize("way", AROUND.values(), ids=AROUND)
def test_without_the_agent_it_is_not(
    container_with: Callable[..., Container], host: SimHost, way: tuple[str, ...]
) -> None:
    program = container_with(bounded=False).start("-w", *way)
    wait_for(lambda: host.used() > 2 * SHARE)
    assert program.poll() is None


def test_within_the_share_it_is_charged(container: Container) -> None:
    program = container.start("managedhold", "512")
    assert line(program) == "ready\n"
    wait_for(lambda: used(container) >= 512 * MIB)
    assert container.run("fill", "64").startswith("7 allocations")
    program.communicate()
    wait_for(lambda: used(container) == 0)


def test_what_libvgpu_has_charged_counts_once(container: Container) -> None:
    with rooted(container) as account:
        program = container.start("managedhold", "900")
        account.write([(program.pid, 900 * MIB)])
        assert line(program) == "ready\n"
        wait_for(lambda: used(container) >= 900 * MIB)
        a_thief_is_ended(container)
        assert program.poll() is None
        wait_for(lambda: used(container) < 910 * MIB)
        assert container.run("fill", "64").startswith("1 allocations")
        program.communicate()


def test_what_a_killed_process_left_in_the_account_is_credited(container: Container) -> None:
    with rooted(container) as account:
        dead, living = (container.start("managedhold", "256") for _ in range(2))
        account.write([(dead.pid, 256 * MIB), (living.pid, 256 * MIB)])
        assert line(dead) == line(living) == "ready\n"
        wait_for(lambda: used(container) >= 512 * MIB)
        dead.kill()
        dead.wait()
        wait_for(lambda: 256 * MIB <= used(container) < 300 * MIB)
        living.kill()
        living.wait()
        wait_for(lambda: used(container) == 0)


PAGES = {
    "nothing": ([], 0),
    "a total that nobody holds": ([], 1 << 44),
    "slots of the dead": ([(1, 1 << 50)] * SLOTS, 1 << 44),
    "slots that hold more than the total": ([(os.getpid(), 1 << 54)] * 3, 0),
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_the_account_can_say_what_it_likes(
    container: Container, host: SimHost, page: tuple[list[tuple[int, int]], int]
) -> None:
    """A total above the share stops its own container, and explains no more than the share."""
    with rooted(container) as account:
        account.write(*page)
        assert container.start("-w", "managed", "64").wait(30) == -signal.SIGKILL
        wait_for(lambda: host.used() == 0)


def test_an_account_that_blames_another(container: Container, host: SimHost) -> None:
    """The one that took most goes, the next after it: it doesn't end with somebody who has nothing."""
    with rooted(container) as account:
        honest = container.start("managedhold", "256")
        assert line(honest) == "ready\n"
        thief = container.start("-w", "managed", "64")
        account.write([(thief.pid, 1 << 40), (honest.pid, 0)], total=0)
        assert thief.wait(30) == -signal.SIGKILL
        wait_for(lambda: host.used() <= SHARE)


def test_a_share_that_is_lowered_ends_nobody_who_was_within_it(container: Container) -> None:
    with rooted(container) as account:
        program = container.start("managedhold", "900")
        account.write([(program.pid, 900 * MIB)])
        assert line(program) == "ready\n"
        container.ask(f"share 0 {256 * MIB}\n")
        a_thief_is_ended(container)
        assert program.poll() is None
        program.communicate()


def test_on_two_gpus_the_sum_of_the_shares_is_held(agent: Path, tmp_path: Path) -> None:
    """Whatever the account says of the other GPU, which stops that one alone."""
    gpus = [{"name": "NVIDIA A", "memory_mib": 8192}, {"name": "NVIDIA B", "memory_mib": 8192}]
    with SimHost(tmp_path / "host", {"gpus": gpus}) as host:
        (tmp_path / "c").mkdir()
        container = Container(tmp_path / "c", host, agent, [SHARE, SHARE])
        with rooted(container) as account:
            account.write([], total=1 << 44, gpu=1)
            half = container.start("managedhold", "512")
            assert line(half) == "ready\n"
            assert container.start("-w", "-g", "1", "managed", "64").wait(30) == -signal.SIGKILL
            wait_for(lambda: host.used(1) == 0)
            assert half.poll() is None
            container.end()


def test_another_file_of_that_name_doesnt_count(container: Container, tmp_path: Path) -> None:
    program = container.start("decoy", str(tmp_path / "nvidia-uvm"), "100000")
    assert line(program) == "ready\n"
    a_thief_is_ended(container)
    assert program.poll() is None
    wait_for(lambda: used(container) == 0)


def test_a_process_of_many_mappings_holds_nobody_up(container: Container) -> None:
    crowd = [container.start("-w", "crowded", "60000", "10000000") for _ in range(2)]
    assert [line(program)[:13] for program in crowd] == ["0 allocations"] * 2
    assert container.run("fill", "64").startswith("15 allocations")
    a_thief_is_ended(container)
    for program in crowd:
        program.communicate()
