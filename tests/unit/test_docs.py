"""README.md and docs/*.md: what is typed is marked as such, what is only mentioned exists, and links lead somewhere.

What is typed is typed in tests/docker/test_docs.py.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from runai_runtime.ctl import app
from tests.pages import PAGES, README, TOP, anchors, links, mentioned, program_of, typed, without_prompt

ROOT = typer.main.get_command(app)
HELP = subprocess.run([TOP / "dev"], stdout=subprocess.PIPE, text=True, check=True).stdout
DEV = set(re.findall(r"^  (\w+) ", HELP, flags=re.MULTILINE))
DOCKER = "run exec cp rm diff".split()

NAMED: dict[str, str] = {
    "docker --gpus": "an option",
    "docker run --gpus": "an option",
    "docker didn't": "a message",
    "docker import": "a command by its name",
    "docker run --rm --runtime=runai --network=none": "what doctor runs",
    "docker info": "what doctor couldn't run",
    "docker ps": "a command that was measured",
    "runai-docker ps": "a command that was measured",
    "docker run --annotation RUNAI_GPU_MEMORY=3g": "an option",
    "python3 -IS": "how the registered program starts Python",
    "runai-docker --dry-run": "an option",
    "runai-docker --dry-run run …": "an option",
    "runai-runtime run --no-pivot": "an option",
    "ctr run": "a command that differs",
    "pip install": "a command by its name",
    "/opt/runai-runtime/bin/pip install prometheus-client": "asks an index",
    "apt install python3-prometheus-client": "the same",
    "nvidia-smi -L": "the driver's",
    "nvidia-modprobe -u -c0": "the driver's",
    "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml": "NVIDIA's toolkit",
    "runc spec": "runc's; tests/docker/desk.py runs it",
    "runc --root ROOT delete --force ID": "runc's",
    "docker restart": "docker's",
    "systemctl reload docker": "systemd's",
    "systemctl restart docker": "the same",
    "systemctl daemon-reload": "what must not be done",
}
"""Commands in the text that are not ours, or are no whole command, and why they stand there."""

COMING: set[Path] = set()
"""Pages that are written at the same time as those that lead to them."""


def fault_of(span: str) -> str:
    """What is wrong with a command that the text mentions, "" for nothing."""
    program, words = program_of(span), span.split()[1:]
    if span in NAMED:
        return ""
    if program == "runai-ctl":
        return fault_of_ctl(words)
    if program == "dev":
        return "" if words[0] in DEV | {"help"} else "./dev has no such command"
    if program == "pytest":
        return "" if (TOP / words[0]).exists() else "there is no such test"
    if program == "python" and words[0] == "-m":
        return "" if importlib.util.find_spec(words[1]) else "there is no such module"
    if program == "docker" and words[0] in DOCKER and len(words) == 1:
        return ""
    return "nobody knows it: say in NAMED what it is"


def fault_of_ctl(words: list[str]) -> str:
    """What runai-ctl wouldn't take of these words."""
    command: Any = ROOT
    for word in words:
        if word.startswith("-"):
            option = word.partition("=")[0]
            if not any(option in (*each.opts, *each.secondary_opts) for each in command.params):
                return f"{command.name} has no {option}"
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return f"runai-ctl has no {word}"
            command = command.commands[word]
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_typed_has_a_prompt(page: Path) -> None:
    assert list(without_prompt(page)) == []
    lines = page.read_text(encoding="utf-8").splitlines()
    prompts = [number for number, line in enumerate(lines, 1) if line.strip().startswith("$ ")]
    assert prompts == [found.line for found in typed(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_mentioned_exists(page: Path) -> None:
    assert {span: fault for span in mentioned(page) if (fault := fault_of(span))} == {}


def test_what_dev_is_told_to_do_it_can() -> None:
    told = [found for page in PAGES for found in typed(page) if "./dev" in found.command]
    assert told
    for found in told:
        for command in re.findall(r"\./dev (\w+)", found.command):
            assert command in DEV, found.place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists() or target in COMING, link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_reached_from_the_readme() -> None:
    found, new = {README}, {README}
    while new:
        reached = {(page.parent / link.partition("#")[0]).resolve() for page in new for link in links(page)}
        new = {page for page in reached - COMING if page.suffix == ".md"} - found
        found |= new
    assert set(PAGES) - found == set()


def test_the_readme_is_one_screen() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 66


def test_nothing_is_named_that_no_page_has() -> None:
    assert set(NAMED) - {span for page in PAGES for span in mentioned(page)} == set()
