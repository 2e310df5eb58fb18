"""docs/troubleshooting.md has every sentence that a user can meet, and none that nobody says; and every check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runai_runtime.doctor.report import CHECKS

TOP = Path(__file__).parents[3]
DOC = (TOP / "docs/troubleshooting.md").read_text(encoding="utf-8")
OURS, _DOCKERS = DOC.split("## What docker itself says")
MESSAGES, DOCTOR = OURS.split("## What doctor looks at")
CHECKED, TRIED = DOCTOR.split("## What doctor --live tries")


def python_text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return "…"


def refusals() -> Iterator[str]:
    for path in sorted((TOP / "runai_runtime").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RefusalError" and node.args:
                yield python_text(node.args[0])


def hook_failures() -> Iterator[str]:
    for path in sorted((TOP / "hook").glob("*.c")):
        for literals in re.findall(r'\bfail\(((?:\s*"(?:[^"\\]|\\.)*")+)', path.read_text(encoding="utf-8")):
            joined = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literals)).replace('\\"', '"')
            yield re.sub(r"%z?[a-z]", "…", joined)


SENTENCES = [sentence for sentence in (*refusals(), *hook_failures()) if sentence.strip("… ")]


def named(text: str) -> list[str]:
    """What stands in backquotes in the first column."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def live_findings() -> Iterator[str]:
    for node in ast.walk(ast.parse((TOP / "runai_runtime/doctor/live.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("fault", "warning"):
            yield python_text(node.args[0])


def test_the_sentences_are_found() -> None:
    assert len(SENTENCES) > 150


@pytest.mark.parametrize("sentence", sorted(set(SENTENCES)))
def test_every_sentence_is_in_the_table(sentence: str) -> None:
    assert [fragment for fragment in named(MESSAGES) if fragment in sentence]


def test_nothing_in_the_table_is_said_by_nobody() -> None:
    source = "\n".join(SENTENCES) + (TOP / "runai_runtime/placement.py").read_text(encoding="utf-8")
    assert [fragment for fragment in named(MESSAGES) if fragment not in source] == []


def test_every_check_of_doctor_is_told() -> None:
    assert sorted(named(CHECKED)) == sorted(CHECKS)


def test_every_finding_of_a_live_container_is_told_and_no_other() -> None:
    findings = set(live_findings())
    assert len(findings) > 10
    assert [one for one in findings if not any(words in one for words in named(TRIED))] == []
    assert [words for words in named(TRIED) if not any(words in one for one in findings)] == []
