"""What libvgpu costs a process: the account under contention, start-up, resident memory."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.pairs import Row
from tests.docker import images
from tests.docker.host import Runai
from tests.programs.build import program

FOLDER = Path(__file__).parent
LIBVGPU = FOLDER.parents[1] / "libvgpu"
PROCESSES = 16
REAL = "/.runai/real"
"""Where a container with a share has the driver's own libraries."""


def account_pairs(runs: int) -> Row:
    """Millions of reserve/release pairs a second that processes on one account make together."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "account_pairs")
        sources = [FOLDER / "account_pairs.c", LIBVGPU / "account.c", LIBVGPU / "identity.c"]
        flags = ["-O2", "-std=gnu17", "-D_GNU_SOURCE", "-iquote", str(LIBVGPU)]
        subprocess.run(["/usr/bin/gcc", *flags, *map(str, sources), "-o", made], check=True)
        command = [str(made), str(PROCESSES), "500"]
        seen = [int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(runs)]
    millions = [pairs / 1e6 for pairs in seen]
    return Row(f"account: reserve + release, {PROCESSES} processes in all", 5.0, millions, " M/s", at_least=True)


def process_rows(output: str) -> Iterator[Row]:
    """The rows of what `footprint pairs` printed."""
    lines = [[float(word) for word in line.split()] for line in output.splitlines()]
    native = statistics.median(base for base, *_ in lines) / 1000
    started = [(other - base) / 1000 for base, other, *_ in lines]
    yield Row(f"cuInit + cuDeviceGetCount: added (native {native:.1f} ms)", 2.0, started, " ms")
    yield Row("resident memory of libvgpu and the account", 512, [ours for *_, ours in lines], " KiB")
    for what, at in (("", 2), (" that asked cuMemGetInfo", 4)):
        grown = [line[at + 1] - line[at] for line in lines]
        yield Row(f"resident memory of a process{what}: added", 512, grown, " KiB")


def footprint(runai: Runai, rounds: int) -> list[Row]:
    """A CUDA process with libvgpu against one with the driver's own libraries, in one container."""
    options = runai.arguments(f"--volume={program('footprint')}:/footprint:ro", memory="3g")
    done = runai.engine.docker(
        "run", "--rm", *options, images.BUSYBOX, "/footprint", "pairs", str(rounds), REAL, timeout=600
    )
    return list(process_rows(done.stdout))
