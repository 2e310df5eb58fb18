"""The process list in a container: its own processes by the pids that it knows, and what each holds of the share."""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docker import images
from tests.docker.agents import wait_for
from tests.docker.engine import Engine
from tests.docker.host import Runai
from tests.programs.build import program
from tests.simgpu.host import SimHost

MIB = 1 << 20
CUDASH, NVMLSH = "/usr/local/bin/cudash", "/usr/local/bin/nvmlsh"


class Container:
    """A container in the background, with programs in it that `docker exec` started."""

    def __init__(self, runai: Runai, *options: str, memory: str = "3g", image: str = images.BUSYBOX) -> None:
        self.runai = runai
        tools = [f"--volume={program(Path(tool).name)}:{tool}:ro" for tool in (CUDASH, NVMLSH)]
        arguments = runai.arguments(*tools, *options, memory=memory)
        self.id = runai.engine.docker("run", "-d", *arguments, image, "sleep", "600").stdout.strip()
        self._programs = ExitStack()

    def run(self, *command: str, environment: tuple[str, ...] = (), check: bool = True) -> str:
        """What a command in the container prints."""
        options = [f"--env={pair}" for pair in environment]
        return self.runai.engine.docker("exec", *options, self.id, *command, check=check).stdout

    def start(self, *commands: str, environment: tuple[str, ...] = ()) -> int:
        """A CUDA shell that does these and stays; its pid as it knows it itself."""
        options = [f"--env={pair}" for pair in environment]
        shell = ("sh", "-c", 'echo $$; exec "$@"', "sh", CUDASH)
        running = self.runai.engine.popen("exec", "-i", *options, self.id, *shell, *commands, "hold")
        self._programs.callback(end, running)
        assert running.stdout is not None
        pid = int(running.stdout.readline())
        for command in (*commands, "hold"):
            assert running.stdout.readline().startswith(f"{command} -> 0 CUDA_SUCCESS")
        return pid

    def name(self, pid: int) -> str:
        """Of a process, by the container's own /proc; "" where there is none."""
        return self.run("cat", f"/proc/{pid}/comm", check=False).strip()

    def processes(self) -> dict[int, int]:
        """MiB by pid, by nvidia-smi."""
        query = ("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv")
        heading, *lines = self.run(*query).splitlines()
        assert heading == "pid, used_gpu_memory [MiB]"
        found = [re.fullmatch(r"(\d+), (\d+) MiB", line) for line in lines]
        return {int(match[1]): int(match[2]) for match in found if match}

    def memory(self) -> tuple[int, int, int]:
        """MiB in all, used, free."""
        query = "--query-gpu=memory.total,memory.used,memory.free"
        total, used, free = self.run("nvidia-smi", query, "--format=csv,noheader,nounits").split(", ")
        return int(total), int(used), int(free)

    def end(self) -> None:
        self._programs.close()


def end(running: subprocess.Popen[str]) -> None:
    running.kill()
    running.communicate()


Start = Callable[..., Container]


@pytest.fixture
def runai(either: Runai) -> Runai:
    return either


@pytest.fixture
def agent(runai: Runai) -> bool:
    """Whether an agent keeps the shares, which sees what goes around libvgpu as well."""
    return bool(runai.config["enforcement"] != "interposer")


@pytest.fixture
def context(agent: bool) -> int:
    """MiB that count for a context: the 160 that the simulated driver takes; libvgpu, which can't see them, reserves
    one block more (runai_runtime/scan.py).
    """
    return 160 if agent else 162


@pytest.fixture
def start(runai: Runai) -> Iterator[Start]:
    """Containers that end with the test."""
    with ExitStack() as stack:

        def start(*options: str, **more: str) -> Container:
            container = Container(runai, *options, **more)
            stack.callback(container.end)
            return container

        yield start


def test_every_process_with_what_it_holds(start: Start, context: int) -> None:
    container = start()
    assert container.processes() == {} and container.memory() == (3072, 0, 3072)
    held = {
        container.start("primary", "alloc 100m"): context + 100,
        container.start("primary", "managed 300m", "async 1m"): context + 300 + 32,
        container.start("primary"): context,
    }
    assert container.processes() == held
    assert {container.name(pid) for pid in held} == {"cudash"}
    assert container.memory() == (3072, sum(held.values()), 3072 - sum(held.values()))


def test_the_table(start: Start, context: int) -> None:
    container = start()
    pids = [container.start("primary", f"alloc {size}m") for size in (200, 400)]
    shown = container.run("nvidia-smi").splitlines()
    used = 2 * context + 600
    assert f"| {used:>7}MiB / {3072:>6}MiB |" in "\n".join(shown)
    rows = [
        f"|    0   N/A  N/A{pid:>16}      C   {CUDASH:<36}{context + size:>7}MiB |"
        for pid, size in zip(pids, (200, 400), strict=True)
    ]
    assert shown[-3:-1] == rows


def test_the_log_of_memory(start: Start, context: int) -> None:
    container = start()
    container.start("primary", "alloc 100m")
    log = container.run("nvidia-smi", "-q", "-d", "MEMORY")
    used = context + 100
    wanted = [("Total", 3072), ("Reserved", 0), ("Used", used), ("Free", 3072 - used)]
    lines = [f"        {name:<47}: {value} MiB\n" for name, value in wanted]
    assert "    FB Memory Usage\n" + "".join(lines) + "    BAR1 Memory Usage\n" in log


def test_versions_of_the_list(start: Start, context: int) -> None:
    container = start()
    pid = container.start("primary", "alloc 100m")
    lines = container.run(
        NVMLSH, "init", "device 0", "processes1", "processes2", "processes3", "graphics3"
    ).splitlines()
    results = [line.partition(" -> ")[2] for line in lines[2:]]
    assert results == [f"0 {pid}:{(context + 100) * MIB}"] * 3 + ["0"]


def test_containers_do_not_see_each_other(start: Start, context: int) -> None:
    one, other = start(), start(memory="2g")
    of_one = {one.start("primary", "alloc 500m"): context + 500}
    of_other = {other.start("primary"): context, other.start("primary", "alloc 1g"): context + 1024}
    assert one.processes() == of_one
    assert other.processes() == of_other
    assert one.memory()[:2] == (3072, context + 500) and other.memory()[:2] == (2048, 2 * context + 1024)


@contextmanager
def on_the_host(simhost: SimHost) -> Iterator[int]:
    """A CUDA program that is in no container."""
    command = [str(program("cudash")), "primary", "alloc 700m", "hold"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=simhost.environment(), stdin=pipe, stdout=pipe, text=True) as running:
        assert running.stdout is not None
        while not running.stdout.readline().startswith("hold"):
            pass
        yield running.pid
        running.kill()


def test_neighbours_stay_unseen_in_the_hosts_pid_namespace(start: Start, simhost: SimHost, context: int) -> None:
    neighbour, container = start(), start("--pid=host")
    neighbour.start("primary", "alloc 500m")
    with on_the_host(simhost) as outsider:
        pid = container.start("primary", "alloc 100m")
        assert container.name(outsider).startswith("cudash")
        assert container.processes() == {pid: context + 100}
        assert container.memory()[:2] == (3072, context + 100)
        assert str(pid) in container.run("nvidia-smi") and str(outsider) not in container.run("nvidia-smi")
    assert Path(f"/proc/{pid}").exists()  # by the host's own number


def test_a_killed_process_vanishes(start: Start, context: int) -> None:
    container = start()
    one = container.start("primary", "alloc 100m")
    other = container.start("primary", "alloc 200m")
    container.run("kill", "-9", str(one))
    wait_for(lambda: container.name(one) == "" and one not in container.processes())
    assert container.processes() == {other: context + 200}
    assert container.memory()[1] == context + 200


def test_what_goes_around_libvgpu_is_shown_by_an_agent_alone(start: Start, context: int, agent: bool) -> None:
    """Without one it can't be told from a neighbour's, and is in `used` no more than in the list."""
    container = start()
    pid = container.start("primary", "alloc 100m")
    around = container.start("primary", "alloc 300m", environment=("LD_LIBRARY_PATH=/.runai/real",))
    assert container.name(around) == "cudash"
    shown = {pid: context + 100} | ({around: context + 300} if agent else {})
    assert container.processes() == shown
    assert container.memory()[1] == sum(shown.values())


def test_one_of_many_gets_the_last_block(runai: Runai) -> None:
    done = runai.run("/lastblock", "8", "50", options=(f"--volume={program('lastblock')}:/lastblock:ro",))
    assert done.stdout == "50 rounds, 50 got it, 0 wrong\n"


# ---- what people look with ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def python_image(engine: Engine) -> str:
    return images.load(engine, images.PYTHON)


@pytest.fixture
def tooled(start: Start, python_image: str) -> Container:
    """A container with Python, gpustat and nvitop."""
    modules = images.python_modules()
    return start(
        f"--volume={modules}:{modules}:ro", f"--volume={sysconfig.get_path('purelib')}:/packages:ro",
        "--env=PYTHONPATH=/packages", "--env=PYTHONDONTWRITEBYTECODE=1", image=python_image,
    )  # fmt: skip


def test_gpustat(tooled: Container, context: int) -> None:
    pids = [tooled.start("primary", f"alloc {size}m") for size in (100, 400)]
    shown: dict[str, Any] = json.loads(tooled.run("python3", "-m", "gpustat", "--json"))
    (gpu,) = shown["gpus"]
    assert (gpu["memory.total"], gpu["memory.used"]) == (3072, 2 * context + 500)
    held = {process["pid"]: process["gpu_memory_usage"] for process in gpu["processes"]}
    assert held == dict(zip(pids, (context + 100, context + 400), strict=True))
    assert {process["command"] for process in gpu["processes"]} == {"cudash"}
    line = tooled.run("python3", "-m", "gpustat", "--no-header", "--show-pid", "--no-color")
    assert f"{2 * context + 500} /  3072 MB" in line and f"/{pids[0]}({context + 100}M)" in line


def test_nvitop(tooled: Container, context: int) -> None:
    pids = [tooled.start("primary", f"alloc {size}m") for size in (100, 400)]
    shown = tooled.run("python3", "-m", "nvitop", "--once", "--ascii", environment=("COLUMNS=120", "TERM=dumb"))
    assert f"{2 * context + 500}.0MiB / 3072MiB" in shown and " 35C " in shown
    for pid, size in zip(pids, (100, 400), strict=True):
        assert re.search(rf"\b{pid} C +root {context + size}\.0MiB", shown), shown
