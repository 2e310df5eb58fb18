"""All checks, in the order in which they are told, and how they are printed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from typing import Any

from runai_runtime.columns import printable
from runai_runtime.doctor import docker, driver, host, kernel
from runai_runtime.doctor.facts import Facts
from runai_runtime.doctor.finding import FAULT, OK, WARNING, Finding, Unknown, of_refusal, warning
from runai_runtime.errors import RefusalError
from runai_runtime.report import coloured
from runai_runtime.terminal import is_piped
from runai_runtime.terminal import width as terminal_width

CHECKS: dict[str, Callable[[Facts], Finding]] = {
    "user": host.user,
    "configuration": host.configuration,
    "our programs": host.programs,
    "state": host.state,
    "fitted": host.fitted,
    "driver libraries": driver.libraries,
    "driver": driver.answer,
    "driver version": driver.version,
    "driver functions": driver.symbols,
    "device nodes": driver.nodes,
    "MIG": driver.mig,
    "HMM": driver.hmm,
    "MPS": driver.mps,
    "kernel": kernel.notifications,
    "ptrace scope": kernel.ptrace,
    "cgroups": kernel.cgroups,
    "SELinux, AppArmor": kernel.modules,
    "low-level runtime": docker.low_level_runtime,
    "snap": docker.snap,
    "engine": docker.engine,
    "runtime": docker.has_runtime,
    "registered program": docker.program,
    "docker --gpus": docker.plain_gpus,
    "systemd cgroups": docker.systemd_cgroups,
}

STYLES: dict[str, dict[str, Any]] = {OK: {"fg": "green"}, WARNING: {"fg": "yellow"}, FAULT: {"fg": "red", "bold": True}}
INDENT = 28  # columns, of level and name
NARROW, WIDE = 60, 120


def examine(facts: Facts) -> dict[str, Finding]:
    """What each check answers, by its name."""
    return {name: looked(check, facts) for name, check in CHECKS.items()}


def looked(check: Callable[[Facts], Finding], facts: Facts) -> Finding:
    try:
        return check(facts)
    except Unknown as why:
        return warning(f"couldn't be looked at: {why}", "mend that first")
    except RefusalError as refusal:
        return of_refusal(refusal)
    except Exception as error:  # noqa: BLE001 - one check that fails must not take the others along
        return warning(f"couldn't be looked at: {type(error).__name__}: {error}", "report this to runai-runtime")


def has_fault(findings: dict[str, Finding]) -> bool:
    return any(finding.level == FAULT for finding in findings.values())


def as_json(findings: dict[str, Finding]) -> str:
    """`{"ok": no fault, "findings": [{"check", "level": "ok"|"warning"|"fault", "what", "mend"}]}`"""
    listed = [
        {"check": name, "level": finding.level, "what": finding.what, "mend": finding.mend}
        for name, finding in findings.items()
    ]
    return json.dumps({"ok": not has_fault(findings), "findings": listed}, indent=1)


def as_table(findings: dict[str, Finding]) -> str:
    """Sentences are wrapped for a terminal alone: who reads by a program finds each whole on its line."""
    width = terminal_width() if is_piped() else min(max(terminal_width(), NARROW), WIDE)
    rows = [line for name, finding in findings.items() for line in lines(name, finding, width)]
    counts = {level: sum(finding.level == level for finding in findings.values()) for level in (FAULT, WARNING, OK)}
    rows.append(
        ", ".join(f"{count} {level}{'' if level == OK or count == 1 else 's'}" for level, count in counts.items())
    )
    return "\n".join(rows)


def lines(name: str, finding: Finding, width: int) -> list[str]:
    """A finding, with what to do on a line of its own."""
    blank = " " * INDENT
    what, mend = wrapped(finding.what, width - INDENT), wrapped(finding.mend, width - INDENT - 2)
    first = (
        f"{coloured(f'{finding.level:<8}', **STYLES[finding.level])} {name:<{INDENT - 10}} {what[0] if what else ''}"
    )
    return [
        first,
        *(blank + line for line in what[1:]),
        *(f"{blank}{'> ' if not at else '  '}{line}" for at, line in enumerate(mend)),
    ]


def wrapped(text: str, width: int) -> list[str]:
    """TEXT, which may have come from a program, as printable lines."""
    text = printable(" ".join(text.split()))
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
