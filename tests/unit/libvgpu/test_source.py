"""The source: the analyzer, the account's page and the tables of functions."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runai_runtime import pages
from tests.programs.build import tools
from tests.unit.libvgpu.place import (
    AGENT_DEVICE,
    AGENT_MAGIC,
    AGENT_PAGE_BYTES,
    FLAGS,
    LIBVGPU,
    PAGE_SIZE,
    SONAMES,
    TOP,
    WARNINGS,
    gcc,
    policies,
    sources,
)  # fmt: skip


@pytest.mark.parametrize("part", ["cuda", "nvml", "hook"])
def test_analyzer_is_silent(part: str) -> None:
    paths = sorted((TOP / "hook").glob("*.c")) if part == "hook" else sources(part)
    more = [] if part == "hook" else [f'-DRUNAI_LIBRARY_H="{part}/library.h"', "-isystem", tools()[1]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in [
            pool.submit(
                gcc, *FLAGS, *WARNINGS, "-O2", "-fanalyzer", *more, "-iquote", LIBVGPU, "-c", path, "-o", os.devnull
            )
            for path in paths
        ]:
            done.result()


def test_page_layouts(tmp_path: Path) -> None:
    source = tmp_path / "size.c"
    so = {
        "sizeof(struct account_page)": PAGE_SIZE,
        "AGENT_PAGE_MAGIC": AGENT_MAGIC,
        "AGENT_PAGE_BYTES": AGENT_PAGE_BYTES,
        "offsetof(struct agent_page, device)": AGENT_DEVICE,
        "offsetof(struct agent_page, counted)": pages.COUNTED,
        "offsetof(struct agent_page, peak)": pages.PEAK,
        "offsetof(struct agent_page, refused)": pages.REFUSED,
        "sizeof(struct account_slot)": pages.SLOT.size,
        "offsetof(struct account_page, slot)": pages.FIRST_SLOT,
    }
    checks = "".join(f'_Static_assert({left} == {right}, "");\n' for left, right in so.items())
    source.write_text(f'#include "agent_page.h"\n{checks}')
    gcc("-iquote", LIBVGPU, "-c", source, "-o", os.devnull)


@pytest.mark.parametrize("part", SONAMES)
def test_table(part: str) -> None:
    names = [name for _, name in policies(part)]
    assert names == sorted(set(names))
    defined = set()
    for path in (LIBVGPU / part).glob("*.c"):
        defined |= set(re.findall(r"^EXPORT \w+ (\w+)\(", path.read_text(), re.MULTILINE))
    assert defined == {name for policy, name in policies(part) if policy == "TAKE"}
