"""libvgpu's own C tests, under the sanitizers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.programs.build import tools

NATIVE = Path(__file__).with_name("native")
LIBVGPU = NATIVE.parents[2] / "libvgpu"

ACCOUNT = ("account_test.c", "account.c", "identity.c")
OUTSIDE = ("outside_test.c", "outside.c", "account.c", "identity.c")
PROCESSES = (
    *("processes_test.c", "nvml/container.c", "nvml/memory.c", "nvml/processes.c", "nvml/export_table.c"),
    *("figures.c", "outside.c", "account.c", "identity.c", "process_memory.c", "share_limits.c", "agent_view.c"),
)
AGENT = ("agent_test.c", "agent_view.c", "account.c", "identity.c")
TABLES = ("tables_test.c", "cuda/map.c", "share_limits.c")

SANITIZERS = {
    "asan": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "tsan": ("-fsanitize=thread",),
    "plain": (),
}

Compile = Callable[[tuple[str, ...], str], Path]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile a C test with a sanitizer, once."""
    folder = tmp_path_factory.mktemp("native")

    def compiled(sources: tuple[str, ...], sanitizer: str) -> Path:
        program = folder / f"{Path(sources[0]).stem}-{sanitizer}"
        if not program.exists():
            paths = [NATIVE / sources[0], *(LIBVGPU / source for source in sources[1:])]
            flags = ["-std=gnu17", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *SANITIZERS[sanitizer]]
            runai_dir = folder / f"{program.name}.runai"
            runai_dir.mkdir()
            flags += [f'-DRUNAI_DIR="{runai_dir}"', f'-DRUNAI_DRIVER_VERSION="{runai_dir}/version"']
            flags += ['-DRUNAI_LIBRARY_H="nvml/library.h"']
            folders: list[str | Path] = ["-iquote", LIBVGPU, "-iquote", NATIVE, "-isystem", tools()[1]]
            command: list[str | Path] = ["/usr/bin/gcc", *flags, *folders, *paths, "-lpthread", "-o", program]
            subprocess.run(command, check=True)
        return program

    return compiled


def run(program: Path, *arguments: str | int) -> None:
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False, env={}
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("sanitizer", ["asan", "tsan"])
@pytest.mark.parametrize("test", ["one_process", "reclaim", "all_slots_taken"])
def test_account(compiled: Compile, test: str, sanitizer: str) -> None:
    run(compiled(ACCOUNT, sanitizer), test)


@pytest.mark.parametrize("sanitizer", ["asan", "plain"])
def test_one_of_many_gets_the_last_granule(compiled: Compile, count: Callable[[int], int], sanitizer: str) -> None:
    run(compiled(ACCOUNT, sanitizer), "last_granule", count(1000))


@pytest.mark.parametrize("sanitizer", ["asan", "plain"])
def test_processes_killed_at_random_leave_nothing(
    compiled: Compile, count: Callable[[int], int], sanitizer: str
) -> None:
    run(compiled(ACCOUNT, sanitizer), "killed_at_random", count(300))


def test_a_process_killed_at_any_instruction_leaves_nothing(compiled: Compile, count: Callable[[int], int]) -> None:
    step = 11 - count(10)  # every instruction in a soak, every tenth otherwise
    run(compiled(ACCOUNT, "plain"), "killed_at_every_instruction", step)


def test_a_hostile_page_harms_nobody(compiled: Compile, count: Callable[[int], int]) -> None:
    run(compiled(ACCOUNT, "asan"), "hostile_page", count(50))


@pytest.mark.parametrize("sanitizer", ["asan", "plain"])
def test_what_is_held_outside_the_account(compiled: Compile, sanitizer: str) -> None:
    run(compiled(OUTSIDE, sanitizer))


@pytest.mark.parametrize("sanitizer", ["asan", "tsan", "plain"])
def test_the_agents_page(compiled: Compile, sanitizer: str) -> None:
    run(compiled(AGENT, sanitizer))


@pytest.mark.parametrize("sanitizer", ["asan", "plain"])
def test_process_lists_of_nvml(compiled: Compile, sanitizer: str) -> None:
    run(compiled(PROCESSES, sanitizer))


@pytest.mark.parametrize("sanitizer", ["asan", "tsan"])
def test_tables(compiled: Compile, count: Callable[[int], int], sanitizer: str) -> None:
    run(compiled(TABLES, sanitizer), count(1_000_000))
