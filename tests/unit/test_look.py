"""The screens of runai-ctl, from made-up grants and pages: what fits at 80 and 200 columns, with one GPU and eight."""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Callable
from ctypes import CDLL, c_void_p
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pynvml
import pytest
from rich.console import Console

from runai_runtime.aside import Aside
from runai_runtime.columns import UNLIMITED, Column, Table, plain
from runai_runtime.containers import SHORT, Container, NoSuchContainerError, Process, find, read_containers
from runai_runtime.device_use import VERSION_2, used_of
from runai_runtime.engine import parse
from runai_runtime.explain import lines as explained
from runai_runtime.grant import MIB, Share, boot, write_grant
from runai_runtime.host import Host
from runai_runtime.inventory import Gpu
from runai_runtime.overview import GpuUse, Overview, as_values
from runai_runtime.pages import (
    COUNTED,
    FIRST_GPU,
    FIRST_SLOT,
    GPUS,
    GRANULE_SHIFT,
    HELD_SHIFT,
    MAGIC,
    PAGE,
    PEAK,
    PROCESS_COUNT,
    REFUSED,
    SLOT,
    TOTAL_SHIFT,
    Figure,
    Use,
    parse_account,
    parse_agent_page,
)
from runai_runtime.tables import LEGEND, age, status_lines
from runai_runtime.top import ORDERS, Screen

NOW = 1_000_000.0
TOTAL = 81559 * MIB


def gpu(index: int) -> Gpu:
    values = {"index": index, "uuid": f"GPU-{index}", "name": "NVIDIA H100 80GB HBM3", "minor": index}
    return Gpu(values | {"total": TOTAL, "reserved": 480 * MIB, "context": 0})


def container(number: int, gpus: int = 1) -> Container:
    grant = {
        "gpus": [{"index": at, "uuid": f"GPU-{at}", "guarantee": MIB, "limit": 8000 * MIB} for at in range(gpus)],
        "enforcement": {"by": "interposer" if number % 2 else "agent"},
    }
    figures = [Figure(8000 * MIB, number * 100 * MIB, None if number % 2 else 5000 * MIB, 3) for _ in range(gpus)]
    made = Container(f"{number:02x}" * 32, "/nowhere", grant, figures, [], NOW - 3700 * number)
    made.name, made.image = f"a-rather-long-name-of-a-container-{number}", "registry.example.org/team/image:latest"
    made.processes = [Process(4000000 + number, "python3", 0, 90 * MIB)]
    return made


def overview(gpus: int, containers: int) -> Overview:
    uses = [GpuUse(gpu(index), 70000 * MIB, 11079 * MIB, None if index else 30000 * MIB) for index in range(gpus)]
    return Overview(uses, [container(number, min(gpus, 2)) for number in range(containers)])


def status(what: Overview, width: int = UNLIMITED) -> list[str]:
    return [plain(line) for line in status_lines(what, width)]


def top(what: Overview, width: int, height: int = 0, order: str = "used", *, ascii_only: bool = False) -> list[str]:
    out = StringIO()
    Console(file=out, width=width, highlight=False).print(
        Screen(width, height, order, ascii_only=ascii_only).render(what, NOW)
    )
    assert "\x1b" not in out.getvalue()
    return [line.rstrip() for line in out.getvalue().splitlines()]


WIDTHS = [40, 80, 200]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("gpus", "containers"), [(1, 0), (1, 3), (8, 40)])
def test_status_fits(width: int, gpus: int, containers: int) -> None:
    shown = overview(gpus, containers)
    lines = status(shown, width)
    tables = lines[: lines.index(LEGEND)]
    assert max(map(len, tables)) <= width
    assert len([line for line in tables if "81559" in line]) == gpus
    # A line a GPU of each container, with all figures whole: nothing but names is cut short or wrapped.
    rows = [line for line in tables if " 8000 " in f"{line} "]
    assert len(rows) == containers * min(gpus, 2)
    for each in shown.containers:
        assert len([row for row in rows if each.id[:SHORT] in row and (width < 80 or each.name in row)]) == 1
    assert any("registry.example.org" in line for line in rows) == (width == 200 and containers > 0)


def test_what_finds_no_room_is_left_out_before_a_name_is_cut() -> None:
    lines = status(overview(1, 3), 80)
    assert next(line for line in lines if line.startswith("NAME")).split() == "NAME ID GPU SHARE USED KEPT BY".split()
    assert lines[-1] == "A wider terminal has IMAGE, PEAK, SINCE too."


def test_a_name_of_wide_letters_keeps_to_its_column() -> None:
    made = Table(Column("NAME", least=6), Column("ID"))
    made.add("日本語のコンテナ", "abc")
    made.add("x", "abc")
    assert [plain(line) for line in made.lines(12)] == ["NAME     ID", "日本語…  abc", "x        abc"]


def test_status_for_a_program() -> None:
    """Each line has all of its container, and nothing is cut short."""
    lines = status(overview(8, 40))
    for each in overview(8, 40).containers:
        rows = [line.split() for line in lines if line.startswith(f"{each.name} ")]
        assert [row[:4] for row in rows] == [[each.name, each.id[:SHORT], each.image, str(gpu)] for gpu in range(2)]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("gpus", "containers"), [(1, 3), (8, 40), (56, 3)])
@pytest.mark.parametrize("height", [0, 10, 24])
def test_top_fits(width: int, gpus: int, containers: int, height: int) -> None:
    shown = overview(gpus, containers)
    lines = top(shown, width, height)
    assert max(map(len, lines)) <= width
    assert not height or len(lines) <= height
    names = [each for each in shown.containers if any(each.id[:SHORT] in line for line in lines)]
    (rest,) = [int(line.split()[1]) for line in lines if re.match("… [0-9]+ more con", line)] or [0]
    assert len(names) + rest == containers
    if width >= 80:
        assert all(any(each.name in line for line in lines) for each in names)
        (heading,) = [line.split() for line in lines if line.startswith("NAME")]
        assert {"GPU", "USED", "SHARE"} < set(heading)
    (rest,) = [int(line.split()[1]) for line in lines if re.match("… [0-9]+ more GPU", line)] or [0]
    assert len([line for line in lines if re.match(" *[0-9]+  NV", line)]) + rest == gpus


def test_processes_are_shown_where_all_containers_find_room() -> None:
    shown = overview(1, 3)
    for each in shown.containers:
        each.processes *= 60
    for height, processes, rest in ((0, 24, 3), (12, 2, 1), (9, 0, 0)):
        lines = top(shown, 80, height)
        assert len([line for line in lines if "python3" in line]) == processes
        assert len([line for line in lines if re.match("  … [0-9]+ more$", line)]) == rest
        assert all(any(each.name in line for line in lines) for each in shown.containers)


def test_a_container_with_more_gpus_than_the_screen_has_lines() -> None:
    lines = top(Overview([], [container(0, 16), container(1, 16)]), 80, 12)
    assert len(lines) == 12
    assert len([line for line in lines if " 8000 " in f"{line} "]) == 6
    assert lines[-1] == "… 1 more container (a higher terminal shows that)"


@pytest.mark.parametrize("order", ORDERS)
def test_top_sorts(order: str) -> None:
    lines = top(overview(1, 3), 200, 0, order)
    shown = [line.split()[0][-1] for line in lines if line.startswith("a-rather")]
    assert shown == {"used": list("210"), "since": list("210"), "peak": list("021")}.get(order, list("012"))


def test_a_bar_without_colours_tells_what_is_left() -> None:
    lines = top(overview(1, 1), 80, ascii_only=True)
    assert any("###....." in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3600, "1h"), (90061, "1d 1h"), (-5, "0s")]
)
def test_age(seconds: int, text: str) -> None:
    assert age(NOW - seconds, NOW) == text


def test_text_of_others_has_no_markup_and_no_escapes() -> None:
    odd = container(0)
    odd.name, odd.image = "[red]x", "a\x1b[31mb\nc"
    (line,) = [line for line in status(Overview([], [odd]), 200) if "[red]x" in line]
    assert "a?[31mb?c" in line


def agent_page(*, counted: bool) -> bytes:
    page = bytearray(PAGE)
    page[:8] = MAGIC
    struct.pack_into("<4Q", page, FIRST_GPU, 10, 5, 20, 6)
    struct.pack_into("<QIIQ", page, PROCESS_COUNT, 1, 7, 1, 6)
    if counted:
        struct.pack_into("<Q", page, COUNTED, 1)
        struct.pack_into("<2Q", page, PEAK, 8, 9)
        struct.pack_into("<2Q", page, REFUSED, 0, 2)
    return bytes(page)


def test_an_agents_page() -> None:
    counted = parse_agent_page(agent_page(counted=True), 2)
    assert counted
    assert counted.figures == [Figure(10, 5, 8, 0), Figure(20, 6, 9, 2)]
    assert counted.uses == [Use(7, 1, 6)]


def test_the_page_of_an_older_agent_has_no_peak() -> None:
    counted = parse_agent_page(agent_page(counted=False), 1)
    assert counted
    assert counted.figures == [Figure(10, 5)]


@pytest.mark.parametrize("page", [b"", bytes(PAGE), b"x" * 100])
def test_what_is_no_page_counts_nothing(page: bytes) -> None:
    assert parse_agent_page(page, 1) is None
    assert parse_account(b"x" * 100, [1]) is None


def test_an_account() -> None:
    totals = [3 << TOTAL_SHIFT, *[0] * (GPUS - 1)]
    slot = SLOT.pack(9 << 32 | 1, 77, 0, *[0] * GPUS, 0, 3 << HELD_SHIFT, *[0] * (2 * GPUS - 2))
    counted = parse_account(struct.pack(f"<{GPUS + 1}Q", 1, *totals) + slot, [100])
    assert len(slot) + FIRST_SLOT == 8 + 8 * GPUS + SLOT.size
    assert counted
    assert counted.figures == [Figure(100, 3 << GRANULE_SHIFT)]
    assert counted.uses == [Use(9, 0, 3 << GRANULE_SHIFT, 77)]


@pytest.mark.parametrize(("wanted", "number"), [("01" * 32, 1), ("a-rather-long-name-of-a-container-2", 2), ("02", 2)])
def test_a_container_by_id_name_or_beginning(wanted: str, number: int) -> None:
    assert find([container(at) for at in range(3)], wanted).id == f"{number:02x}" * 32


@pytest.mark.parametrize("wanted", ["", "0", "nobody"])
def test_no_container_or_several(wanted: str) -> None:
    with pytest.raises(NoSuchContainerError):
        find([container(at) for at in range(3)], wanted)


def test_grants_that_live_and_one_that_is_damaged(tmp_path: Path) -> None:
    host = Host("", {"runtime": "", "hook": "", "libvgpu": "", "state": str(tmp_path)})
    asked = {"guarantee": "1g", "limit": "2g"}
    folder = write_grant(host, "a", "/nowhere", [Share(gpu(0), MIB, 2 * MIB)], "runai-plan\t1\n", {}, request=asked)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/grant.json").write_text(Path(folder, "grant.json").read_text().replace('"gpus"', '"cpus"'))
    (tmp_path / "gone").mkdir()
    (found,), unreadable = read_containers(host)
    assert (found.id, found.figures, unreadable) == ("a", [Figure(2 * MIB)], ["b"])
    assert abs(time.time() - found.since) < 3600 * 24
    assert "  at most 2g, and 1g for sure" in [plain(line) for line in explained(found, 80)]
    assert boot() in str(found.grant)


def test_what_is_said_of_a_container_is_wrapped_but_for_its_paths(tmp_path: Path) -> None:
    made = container(0)
    made.folder, path = str(tmp_path), f"/{'long/' * 20}libcuda.so.1"
    made.grant |= {"enforcement": {"by": "agent", "removed": [path]}}
    said = [plain(line) for line in explained(made, 80)]
    assert any(path in line for line in said)
    assert max(len(line) for line in said if path not in line) <= 80
    assert said[said.index("Grant") + 2].startswith("    used 0 MiB now")


def memory_info(status: int, used: int) -> Callable[[object, Any], int]:
    """A function of NVML's for a device's memory."""

    def answer(_device: object, place: Any) -> int:
        place._obj.used = used
        return status

    return answer


@pytest.mark.parametrize(
    ("first", "second", "used"), [((0, 7), (0, 5), 5), ((0, 7), (25, 5), 7), ((0, 7), None, 7), ((3, 7), (25, 5), None)]
)
def test_what_a_driver_says_of_a_device(
    first: tuple[int, int], second: tuple[int, int] | None, used: int | None
) -> None:
    """Older ones have no second version of the function, or refuse it."""
    functions = {"nvmlDeviceGetMemoryInfo": memory_info(*first)}
    functions |= {"nvmlDeviceGetMemoryInfo_v2": memory_info(*second)} if second else {}
    assert used_of(cast("CDLL", SimpleNamespace(**functions)), c_void_p()) == used


def test_the_versions_of_nvmls_structures() -> None:
    """nvmlMemory_v2 of nvml.h: NVML_STRUCT_VERSION(Memory, 2)."""
    assert pynvml.nvmlMemory_v2 == VERSION_2


def test_json_says_null_for_what_is_not_known() -> None:
    values = as_values(overview(2, 2), processes=True)
    assert [use["used"] for use in values["gpus"]] == [30000 * MIB, None]
    assert [each["gpus"][0]["peak"] for each in values["containers"]] == [5000 * MIB, None]


def test_an_engines_answer() -> None:
    body = b'[{"Id": "a", "Names": ["/b/c", "/c"], "Image": "i"}]'
    assert parse(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n" + body) == {"a": ("c", "i")}
    assert parse(b"HTTP/1.0 500 Oh\r\n\r\n" + body) == {}
    assert parse(b"HTTP/1.0 200 OK\r\n\r\n{}") == {}


def test_what_hangs_is_left_alone() -> None:
    def hang() -> None:
        time.sleep(60)

    assert Aside(hang).result(time.monotonic() + 0.01) is None
    assert Aside(lambda: [1]).result(time.monotonic() + 20) == [1]
    assert Aside(lambda: os.stat("/nowhere")).result(time.monotonic() + 20) is None
