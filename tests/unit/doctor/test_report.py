"""How doctor goes on past what fails or hangs, and how it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runai_runtime.ctl import app
from runai_runtime.doctor.facts import Facts
from runai_runtime.doctor.finding import FAULT, WARNING, Finding, Unknown, fault, of_refusal, ok, warning
from runai_runtime.doctor.report import CHECKS, as_json, as_table, examine, looked
from runai_runtime.errors import RefusalError
from tests.unit.doctor.made import Made

FINDINGS = {
    "kernel": ok("Linux 6.1"),
    "HMM": warning("a long sentence " * 12 + "with an end", "do this"),
    "engine": fault("it is away", "start it"),
}


def test_a_program_that_hangs_is_left_behind(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.docker = [str(made.script("slow", "exec sleep 60"))]
    facts = made.facts()
    facts.seconds = 0.2
    found = looked(CHECKS["engine"], facts)
    assert (found.level, "didn't answer within 0.2 s" in found.what) == (FAULT, True)


def test_a_driver_that_ends_the_process_that_asks(tmp_path: Path) -> None:
    """The library that stands in for NVML is ours, which can't be loaded where the real one isn't."""
    made = Made(tmp_path)
    made.nvml.clear()
    found = looked(CHECKS["driver"], made.facts())
    assert (found.level, "the NVIDIA driver doesn't answer" in found.what) == (FAULT, True)
    assert found.mend == "see whether nvidia-smi works"


def test_a_check_that_fails_takes_no_other_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_facts: Facts) -> Finding:
        raise KeyError("x")

    monkeypatch.setitem(CHECKS, "kernel", broken)
    findings = examine(Made(tmp_path).facts())
    assert list(findings) == list(CHECKS)
    assert findings["kernel"] == warning("couldn't be looked at: KeyError: 'x'", "report this to runai-runtime")


def test_why_a_check_cannot_look() -> None:
    def unknown(_facts: Facts) -> Finding:
        raise Unknown("the driver doesn't answer", "at length")

    assert looked(unknown, Facts()) == Finding(
        WARNING, "couldn't be looked at: the driver doesn't answer", "mend that first"
    )


def test_a_refusal_is_split_at_what_to_do() -> None:
    assert of_refusal(RefusalError("a, b; c; do d")) == fault("a, b; c", "do d")
    assert of_refusal(RefusalError("a")).what == "a"


def test_json() -> None:
    said = json.loads(as_json(FINDINGS))
    assert said["ok"] is False
    assert said["findings"][2] == {"check": "engine", "level": "fault", "what": "it is away", "mend": "start it"}
    assert json.loads(as_json({"kernel": ok("fine")}))["ok"] is True


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_table_keeps_to_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    lines = as_table(FINDINGS).splitlines()
    assert lines[0].split() == ["ok", "kernel", "Linux", "6.1"]
    assert max(map(len, lines)) <= min(columns, 120)
    assert lines[-1] == "1 fault, 1 warning, 1 ok"
    assert any(line.strip() == "> start it" for line in lines)


def test_what_another_program_said_does_nothing_to_the_terminal() -> None:
    text = as_table({"engine": fault("it said\x1b[2J\nno", "see\x07")})
    assert ("it said?[2J no" in text, "see?" in text) == (True, True), text


def test_the_table_for_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sentence whole on a line."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    lines = as_table(FINDINGS | {"snap": fault("x", "y")}).splitlines()
    assert len(lines) == 8
    assert lines[1].endswith("with an end")
    assert lines[-1] == "2 faults, 1 warning, 1 ok"


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNAI_DOCKER", "/nowhere/docker")
    files = [f"--config={tmp_path}/config.json", f"--daemon-json={tmp_path}/daemon.json"]
    done = CliRunner().invoke(app, ["doctor", "--format=json", *files])
    assert done.exit_code == 1
    found = {finding["check"]: finding for finding in json.loads(done.output)["findings"]}
    assert found["engine"]["what"].endswith("/nowhere/docker can't be started (No such file or directory)")
    assert list(found) == list(CHECKS)
