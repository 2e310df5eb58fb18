"""What libvgpu costs on a real GPU, against the driver's own library: `python -m tests.gpu.bench`.

Two containers stand side by side, one with a share and one without; the same program runs in them in turn.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from tests.bench.pairs import Row, table
from tests.gpu.host import CUDABENCH, GpuHost, facts, start

ASKED = {
    "start": ("cuInit with a context", 1.05),
    "large": ("cuMemAlloc + cuMemFree, 64 MiB", 1.05),
    "pooled": ("cuMemAllocAsync + cuMemFreeAsync, 1 MiB", 1.3),
    "launch": ("kernel launch", 1.02),
    "packed": ("cuMemAlloc + cuMemFree, packed 4 KiB", 1.15),
    "info": ("cuMemGetInfo", 1.3),
}


def figures(host: GpuHost, container: str, rounds: int) -> dict[str, float]:
    """Nanoseconds by name, of one run."""
    lines = host.engine.docker("exec", container, CUDABENCH, str(rounds)).stdout.splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines)}


def bench(host: GpuHost, runs: int, rounds: int) -> list[Row]:
    ratios: dict[str, list[float]] = defaultdict(list)
    native: dict[str, list[float]] = defaultdict(list)
    with (
        host.background(host.native(), "sleep", "3600") as base,
        host.background(host.share("8g"), "sleep", "3600") as other,
    ):
        figures(host, base, 1)
        figures(host, other, 1)
        for run in range(runs):
            order = (base, other) if run % 2 else (other, base)
            taken = {container: figures(host, container, rounds) for container in order}
            for name in ASKED:
                ratios[name].append(taken[other][name] / taken[base][name])
                native[name].append(taken[base][name])
    middle = {name: sorted(values)[len(values) // 2] / 1000 for name, values in native.items()}
    return [Row(f"{what} (native {middle[name]:.2f} us)", asked, ratios[name]) for name, (what, asked) in ASKED.items()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.bench", description=__doc__)
    parser.add_argument("--engine", type=Path, help="folder with another engine than the system's")
    parser.add_argument("--image", type=Path, help="tar of a root file system to use instead of busybox's")
    parser.add_argument("--programs", type=Path, help="folder with the compiled test programs")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with start(options.engine, options.image, options.programs) as host:
        print(facts(host))
        print(table(bench(host, options.runs, options.rounds)))


if __name__ == "__main__":
    main()
