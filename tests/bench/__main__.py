"""./dev bench: what runai-runtime costs, against the runtime below it, on this machine."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench.admission import LARGE, admission
from tests.bench.agent import idle, shim
from tests.bench.pairs import Pairs, Row, measure, table
from tests.bench.people import GPUS, full_host, handed_on
from tests.bench.process import account_pairs, footprint
from tests.docker import images
from tests.docker.engine import Engine
from tests.docker.host import Runai, configuration
from tests.simgpu.host import SimHost

RUNC = "/usr/sbin/runc"


def first_line(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return done.stdout.partition("\n")[0]


def facts(engine: Engine) -> Iterator[str]:
    yield f"kernel {platform.release()}, {os.cpu_count()} cores, {platform.machine()}"
    yield f"docker {engine.docker('version', '--format', '{{.Server.Version}}').stdout.strip()}"
    yield f"{first_line(RUNC, '--version')}"
    yield f"{first_line('/usr/bin/python3', '--version')} (/usr/bin/python3)"


def docker_runs(runai: Runai, rounds: int) -> Iterator[Row]:
    """`docker run` of true, to its end, under runai against runc, with the interposer and with the agent."""

    def run(runtime: str, memory: str | None) -> None:
        options = runai.arguments(memory=memory, runtime=runtime)
        runai.engine.docker("run", "--rm", *options, images.BUSYBOX, "true")

    base, passed, shared, bounded = measure(
        [
            lambda: run("runc", None),
            lambda: run("runai", None),
            lambda: run("runai", "3g"),
            lambda: run("runai-agent", "3g"),
        ],
        rounds,
    )
    yield Row("docker run, no request: runai / runc", 1.15, Pairs(base, passed).ratios)
    yield Row("docker run, RUNAI_GPU_MEMORY=3g: runai / runc", 1.25, Pairs(base, shared).ratios)
    yield Row("docker run, the same with an agent: runai / runc", 1.30, Pairs(base, bounded).ratios)


def pass_through(runai: Runai, rounds: int) -> Iterator[Row]:
    """What the shim adds to a command that it only hands on."""
    ident = runai.engine.docker(
        "run", "--detach", *runai.arguments(memory=None, runtime="runc"), images.BUSYBOX, "sleep", "600"
    ).stdout.strip()
    root = runai.engine.runtime_root("runc")

    def state(runtime: str | Path) -> None:
        subprocess.run([runtime, "--root", root, "state", ident], stdout=subprocess.DEVNULL, check=True)

    base, other = measure([lambda: state(RUNC), lambda: state(runai.program)], rounds)
    added = [1000 * difference for difference in Pairs(base, other).differences]
    yield Row("runtime --root ... state ID: added by runai-runtime", 7.0, added, " ms")


PARTS = ("runs", "shim", "people", "inside")
"""What can be measured alone: docker run; a create, before the low-level runtime; commands; processes in containers."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="pairs of docker run (default 30)")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; may be given several times")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runai-bench-", dir="/var/tmp") as folder:
        rows = measured(Path(folder), asked.rounds, asked.only or PARTS)
    print(table(rows))
    return 0 if all(row.met for row in rows) else 1


def measured(folder: Path, rounds: int, parts: Sequence[str]) -> list[Row]:
    with ExitStack() as stack:
        simhost = stack.enter_context(SimHost(folder / "gpu-host"))
        homes = {"runai": folder, "runai-agent": folder / "a", "runai-people": folder / "p"}
        engine = stack.enter_context(Engine({name: home / "runai-runtime" for name, home in homes.items()}))
        images.load(engine, images.BUSYBOX)

        def configured(name: str, host: SimHost, enforcement: str) -> Runai:
            config = configuration(homes[name], host) | {"enforcement": enforcement}
            return Runai.configured(engine, host, config, homes[name], name)

        runai = configured("runai", simhost, "interposer")
        bounded = configured("runai-agent", simhost, "agent")
        for fact in facts(engine):
            print(fact)
        print("Medians of pairs, taken in turn: A B, B A, A B ...\n", flush=True)
        rows: list[Row] = []
        if "runs" in parts:
            rows += [*docker_runs(runai, rounds), *pass_through(runai, 5 * rounds)]
        if "shim" in parts:
            rows += [*admission(folder, 2 * rounds), shim(bounded, 2 * rounds)]
        if "people" in parts:
            large = stack.enter_context(SimHost(folder / "p/gpu-host", {"gpus": [LARGE] * GPUS}))
            rows += [*handed_on(engine, 2 * rounds), *full_host(configured("runai-people", large, "agent"), rounds)]
        if "inside" in parts:
            rows += [*idle(bounded), account_pairs(9), *footprint(runai, 3 * rounds)]
        return rows


if __name__ == "__main__":
    sys.exit(main())
