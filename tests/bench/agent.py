"""What an agent costs its host: its start, and what it takes while its container asks for nothing."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from runai_runtime.configure import configure
from tests.bench.pairs import Pairs, Row, measure
from tests.docker import images
from tests.docker.agents import agent_of, tools
from tests.docker.host import CUDASH, Container, Runai

SECONDS = 10.0
STUB = '#!/bin/sh\nif [ "$1" = features ]; then exec /usr/sbin/runc features; fi\n'
"""A low-level runtime that makes nothing, so that what comes before it is what is measured."""


def cpu_ms(process: int) -> float:
    """Milliseconds that all threads of a process have run for (Documentation/scheduler/sched-stats)."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{process}/task").glob("*/schedstat")) / 1e6


def resident_kib(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def idle(runai: Runai) -> Iterator[Row]:
    """An agent whose container sleeps, and one whose container holds memory and asks for no more."""
    sleeps = Container(runai, "sleep", "600", options=tools())
    holds = Container(runai, CUDASH, "primary", "alloc 1g", "sleep 600", options=tools())
    holds.wait_for("alloc 1g")
    time.sleep(1)
    for what, container, asked in (("sleeps", sleeps, 0.0), ("holds memory", holds, 50.0)):
        agent = agent_of(container)
        before = cpu_ms(agent)
        time.sleep(SECONDS)
        taken = cpu_ms(agent) - before
        yield Row(f"CPU time of an agent in {SECONDS:.0f} s, its container {what}", asked, [taken], " ms")
        yield Row(f"resident memory of an agent, its container {what}", 2048, [resident_kib(agent)], " KiB")
    runai.engine.remove_containers()


def shim(runai: Runai, rounds: int) -> Row:
    """A create with an agent up to where the low-level runtime begins, over that runtime alone."""
    home = runai.state.parent / "shim"
    bundle, stub, program = home / "bundle", home / "stub", home / "runai-runtime"
    bundle.mkdir(parents=True)
    stub.write_text(STUB)
    stub.chmod(0o755)
    configure(runai.config | {"runtime": str(stub), "state": str(home / "state")}, home / "config.json", program)
    arguments = runai.arguments(memory="3g", runtime="runc")
    ident = runai.engine.docker("run", "-d", *arguments, images.BUSYBOX, "sleep", "600").stdout.strip()
    made = runai.engine.place.state / "containerd/io.containerd.runtime.v2.task/moby" / ident / "config.json"

    def create(runtime: Path) -> None:
        shutil.copy(made, bundle / "config.json")
        subprocess.run([runtime, "create", "--bundle", bundle, "x"], check=True)
        shutil.rmtree(home / "state/x", ignore_errors=True)

    base, other = measure([lambda: create(stub), lambda: create(program)], rounds)
    runai.engine.remove_containers()
    added = [1000 * difference for difference in Pairs(base, other).differences]
    return Row("create with a share and an agent: added before the runtime", 40.0, added, " ms")
