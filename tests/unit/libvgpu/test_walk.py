"""The random walk: everything at random, some killed meanwhile, and the account is right in the end."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from tests.unit.libvgpu.place import SHARES, Place, Program, wait_for


class Mortals:
    """Walkers that are killed at random moments, each with another in its place, until it is over."""

    def __init__(self, place: Place, dice: random.Random) -> None:
        self.place, self.dice = place, dice
        self.killed: set[int] = set()

    def live(self, over: threading.Event) -> None:
        while not over.is_set():
            walker = self.place.start("cudawalk", str(self.dice.randrange(1 << 20)), "1000000000", "3", "10")
            walker.until("walking")
            over.wait(0.1 + 0.5 * self.dice.random())
            self.killed.add(walker.process.pid)  # before: a look at the device must not find it in between
            walker.process.kill()
            walker.process.communicate()
            self.place.programs.remove(walker)


class Sampler:
    """The most that living walkers held of each GPU at a time, by the simulated kernel side."""

    def __init__(self, place: Place, mortals: Mortals) -> None:
        self.place, self.mortals, self.worst = place, mortals, [0, 0]

    def look(self, over: threading.Event) -> None:
        # FUSE tells of a dead process's files a moment after its death, where a real driver has closed them before.
        while not over.wait(0.002):
            for gpu in (0, 1):
                taken = self.place.host.processes(gpu)
                held = sum(used for pid, used in taken.items() if pid not in self.mortals.killed)
                self.worst[gpu] = max(self.worst[gpu], held)


def give_all_back(place: Place, walkers: list[Program]) -> list[str]:
    """What is wrong, if anything, with the account of those who have done their calls, and when they have freed all."""
    problems = compare(place, walkers)
    for walker in walkers:
        walker.go_on()
        walker.until("emptied")
    return problems + compare(place, walkers)


@pytest.mark.timeout(1500)
def test_random_walk(place: Place, soak: bool) -> None:
    """Processes and threads do everything at random, and others beside them are killed; in the end the account is what
    was given. A tenth of the calls needs the simulated kernel side.
    """
    seed = random.randrange(1 << 30)
    processes, threads, calls = 4, 3, 10_000_000 if soak else 100_000
    mine = str(-(-calls // (processes * threads)))
    print(f"seed {seed}")
    mortals = Mortals(place, random.Random(seed))
    sampler = Sampler(place, mortals)
    over = threading.Event()
    beside = [threading.Thread(target=mortals.live, args=(over,)) for _ in range(2)]
    beside.append(threading.Thread(target=sampler.look, args=(over,)))
    walkers = [place.start("cudawalk", str(seed + i), mine, str(threads), "10") for i in range(processes)]
    for thread in beside:
        thread.start()
    try:
        for walker in walkers:
            walker.until("done")
    finally:
        over.set()
        for thread in beside:
            thread.join()
    problems = give_all_back(place, walkers)
    wait_for(lambda: not any(place.host.used(gpu) for gpu in (0, 1)))
    problems += [f"GPU {gpu}: {worst} bytes taken" for gpu, worst in enumerate(sampler.worst) if worst > SHARES[gpu]]
    assert not problems, f"seed {seed}: {problems}"
    assert sampler.worst[0] > SHARES[0] // 2, "the walk came nowhere near the limit"
    assert len(mortals.killed) > 3


def compare(place: Place, walkers: list[Program]) -> list[str]:
    """Where the account differs from what the simulated kernel side gave. Nothing moves meanwhile."""
    problems = []
    for gpu in (0, 1):
        given = place.host.processes(gpu)
        for walker in walkers:
            pid = walker.process.pid
            held = place.held(gpu).get(pid, 0)
            if held != given.get(pid, 0):
                problems.append(f"GPU {gpu}, process {pid}: account {held}, given {given.get(pid, 0)}")
        if place.total(gpu) != sum(place.held(gpu).values()):
            problems.append(f"GPU {gpu}: total {place.total(gpu)} isn't the sum of {place.held(gpu)}")
    return problems


def test_random_walk_of_threads(place: Place, count: Callable[[int], int]) -> None:
    for build in ("tsan", "asan"):
        seed = random.randrange(1 << 30)
        walker = place.start("cudawalk", str(seed), str(count(8000)), "4", build=build)
        try:
            walker.until("done")
            assert compare(place, [walker]) == []
            walker.go_on()
            walker.until("emptied")
            assert compare(place, [walker]) == []
            walker.end()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {build}: {error}") from error
