"""What libvgpu costs on a real GPU, against the driver's own library: `python -m tests.gpu.bench`.

Two containers stand side by side, one with a share and one without; the same program runs in them in turn.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from tests.bench.pairs import Row, table
from tests.bench.process import REAL, process_rows
from tests.gpu.host import CUDABENCH, FOOTPRINT, GpuHost, facts, start

TORCH_STEP = Path(__file__).with_name("programs") / "torch_step.py"

ASKED = {
    "start": ("cuInit with a context", 1.05),
    "large": ("cuMemAlloc + cuMemFree, 64 MiB", 1.05),
    "pooled": ("cuMemAllocAsync + cuMemFreeAsync, 1 MiB", 1.3),
    "launch": ("kernel launch", 1.02),
    "packed": ("cuMemAlloc + cuMemFree, packed 4 KiB", 1.15),
    "info": ("cuMemGetInfo", 1.3),
    "nvml": ("nvmlDeviceGetMemoryInfo", 1.3),
}
WITH_AGENT = {"start": 1.08, "large": 1.20}
"""What is asked of these where the agent bounds the containers."""
TORCH_ASKED = {"step": ("PyTorch training step", 1.02)}

Figures = Callable[[GpuHost, str, int], dict[str, float]]
"""Nanoseconds by name, of one run in a container with so many rounds."""


def named(output: str) -> dict[str, float]:
    """Lines of a name and a number."""
    return {name: float(value) for name, value in (line.split() for line in output.splitlines())}


def cuda_figures(host: GpuHost, container: str, rounds: int) -> dict[str, float]:
    return named(host.engine.docker("exec", container, CUDABENCH, str(rounds)).stdout)


def torch_figures(host: GpuHost, container: str, rounds: int) -> dict[str, float]:
    command = (sys.executable, "/torch_step.py", str(rounds))
    return named(host.engine.docker("exec", container, *command, timeout=300).stdout)


def bench(
    host: GpuHost, figures: Figures, asked: dict[str, tuple[str, float]], runs: int, rounds: int, *options: str
) -> list[Row]:
    """The same in two containers side by side, in turn; OPTIONS are docker's, for both."""
    ratios: dict[str, list[float]] = defaultdict(list)
    native: dict[str, list[float]] = defaultdict(list)
    with (
        host.background([*host.native(), *options], "sleep", "3600") as base,
        host.background(host.share("8g", *options), "sleep", "3600") as other,
    ):
        figures(host, base, 1)
        figures(host, other, 1)
        for run in range(runs):
            order = (base, other) if run % 2 else (other, base)
            taken = {container: figures(host, container, rounds) for container in order}
            for name in asked:
                ratios[name].append(taken[other][name] / taken[base][name])
                native[name].append(taken[base][name])
    middle = {name: sorted(values)[len(values) // 2] / 1000 for name, values in native.items()}
    return [Row(f"{what} (native {middle[name]:.2f} us)", limit, ratios[name]) for name, (what, limit) in asked.items()]


def footprint(host: GpuHost, rounds: int) -> list[Row]:
    """What a process has more of, start-up and memory, in a container with a share."""
    done = host.run(host.share("8g"), FOOTPRINT, "pairs", str(rounds), REAL)
    return list(process_rows(done.stdout))


def torch_step(host: GpuHost, runs: int) -> list[Row]:
    """A training step, where PyTorch is installed for the interpreter that runs this."""
    if importlib.util.find_spec("torch") is None:
        print("PyTorch isn't installed here: no training step")
        return []
    options = [*host.user_space(), f"--volume={TORCH_STEP}:/torch_step.py:ro"]
    return bench(host, torch_figures, TORCH_ASKED, runs, 300, *options)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.bench", description=__doc__)
    parser.add_argument("--engine", type=Path, help="folder with another engine than the system's")
    parser.add_argument("--image", type=Path, help="tar of a root file system to use instead of busybox's")
    parser.add_argument("--programs", type=Path, help="folder with the compiled test programs")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--enforcement", default="auto", help="what bounds the containers: auto, agent or interposer")
    parser.add_argument("--only", help=f"some of {', '.join(ASKED)}: these alone, in little time")
    options = parser.parse_args()
    with start(options.engine, options.image, options.programs, options.enforcement) as host:
        print(facts(host))
        # One processor for both: which one a process gets makes more of a difference than libvgpu.
        limits = WITH_AGENT if options.enforcement != "interposer" else {}
        only = options.only.split(",") if options.only else list(ASKED)
        asked = {name: (ASKED[name][0], limits.get(name, ASKED[name][1])) for name in only}
        rows = bench(host, cuda_figures, asked, options.runs, options.rounds, "--cpuset-cpus=1")
        if not options.only:
            rows += footprint(host, options.runs)
            rows += torch_step(host, max(3, options.runs // 3))
        print(table(rows))


if __name__ == "__main__":
    main()
