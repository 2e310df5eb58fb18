"""What runai-ctl verify prints: a table for people, JSON for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import typer

from runai_runtime.verify import DATA, UNKNOWN, Check, Report, Symbols


def as_json(reports: list[Report]) -> str:
    """`{"ok": bool, "libraries": [{"soname", "path", "checks": [{"name", "found", "fault"}], "driver": null or
    {"path", "symbols": {KIND: [names]}, "missing": [names], "suspects": [names]}, "faults": [what is wrong]}]}`
    """
    ok = not any(report.faults() for report in reports)
    return json.dumps({"ok": ok, "libraries": [values(report) for report in reports]}, indent=1)


def values(report: Report) -> dict[str, Any]:
    symbols = report.driver
    return {
        "soname": report.soname,
        "path": report.path,
        "checks": [{"name": check.name, "found": check.found, "fault": check.fault} for check in report.checks],
        "driver": symbols
        and {
            "path": symbols.path,
            "symbols": symbols.kinds,
            "missing": symbols.missing,
            "suspects": symbols.suspects,
        },
        "faults": report.faults(),
    }


def as_table(reports: list[Report]) -> str:
    return "\n".join(line for report in reports for line in lines(report))


def lines(report: Report) -> Iterator[str]:
    """A library: what was looked at, what was found, and a word in front of what is wrong."""
    yield heading(f"{report.soname}: {report.path}")
    yield from map(checked, report.checks)
    if report.driver is None:
        yield row("driver", "none was found on this host; name its folder with --driver")
    else:
        yield heading(f"{report.soname}: the driver's {report.driver.path}")
        yield from driver_lines(report.driver, strict=report.strict)


def driver_lines(symbols: Symbols, *, strict: bool) -> Iterator[str]:
    meanings = {DATA: "variables, which programs find in the driver's library"}
    for kind, names in symbols.kinds.items():
        yield row(kind, f"{len(names)} {meanings.get(kind, 'functions')}")
    yield row("missing", f"{len(symbols.missing)} functions of the table, which programs don't find either")
    for name in symbols.suspects:
        yield row(UNKNOWN, f"{name}, which looks like device memory", wrong=strict)
    for name in symbols.kinds[UNKNOWN]:
        if name not in symbols.suspects:
            yield row(UNKNOWN, name)


def checked(check: Check) -> str:
    return row(check.name, f"{check.found}: {check.fault}" if check.fault else check.found, wrong=bool(check.fault))


def row(name: str, found: str, *, wrong: bool = False) -> str:
    mark = coloured("FAULT", fg="red") if wrong else "     "
    return f"{mark} {name:<17} {found}"


def heading(text: str) -> str:
    return coloured(text, bold=True)


def coloured(text: str, **style: Any) -> str:
    """As https://no-color.org wants it; typer itself leaves colours out where the output is no terminal."""
    return text if os.environ.get("NO_COLOR") else typer.style(text, **style)
