"""Every command that README.md and docs/*.md have somebody type, typed as it stands, on a host with a simulated GPU.

A command that is new to the pages fails here until it has its line in RUN, or, where it can't run here, in ELSEWHERE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.desk import Desk, Done, desk, shape
from tests.pages import PAGES, README, Typed, typed

RUN: dict[str, str] = {
    # README.md
    "docker run --rm --runtime=runai -e RUNAI_GPU_MEMORY=1 ubuntu nvidia-smi": "0MiB /  10989MiB",
    "docker run --rm --runtime=runai -e RUNAI_GPU_MEMORY=0.3 ubuntu nvidia-smi": "0MiB /   3296MiB",
    "runai-docker run -it --rm --gpus 1 --gpu-memory 0.3 ubuntu nvidia-smi": "0MiB /   3296MiB",
    "ln -sf /opt/runai-runtime/bin/runai-ctl /opt/runai-runtime/bin/runai-docker /usr/local/bin/": "",
    "runai-ctl configure && systemctl reload docker": "has the runtime runai now",
    # docs/ctl.md: on a container `train`
    "runai-ctl status": "train",
    "runai-ctl top --once": "cudash",
    "runai-ctl inspect train": "of the image ubuntu",
    "runai-ctl limits set train 9g": "9216 MiB now",
    "runai-ctl logs train": "the share on GPU 0 is",
    "runai-ctl metrics": "runai_gpu_used_bytes",
    # docs/use.md
    "docker run --runtime=runai -e RUNAI_GPU_MEMORY=3g IMAGE nvidia-smi": "0MiB /   3072MiB",
    "runai-docker run --gpus 1 --gpu-memory 3g IMAGE nvidia-smi": "0MiB /   3072MiB",
    "podman --runtime /usr/local/bin/runai-runtime run -e RUNAI_GPU_MEMORY=3g IMAGE nvidia-smi": "0MiB /   3072MiB",
    "podman --runtime /usr/local/bin/runai-runtime run --annotation RUNAI_GPU_MEMORY=3g IMAGE nvidia-smi": (
        "0MiB /   3072MiB"
    ),
    "ctr run --rm --runc-binary /usr/local/bin/runai-runtime --env RUNAI_GPU_MEMORY=3g IMAGE ID nvidia-smi": (
        "0MiB /   3072MiB"
    ),
    "runai-runtime run -b BUNDLE ID": "0MiB /   3072MiB",
    "docker run --runtime=runai -e RUNAI_GPU_MEMORY=3g -e LD_LIBRARY_PATH=/usr/local/cuda/compat IMAGE nvidia-smi": (
        "0MiB /   3072MiB"
    ),
}
"""What is typed, as the pages have it: something that the terminal has to show then. Each has to end with status 0."""

ELSEWHERE: dict[str, str] = {
    "./dev demo": "starts an engine of its own; tests/unit/test_docs.py sees that ./dev knows the command",
    "./dev test": "is what runs this",
    "./dev build && python3 -m venv /opt/runai-runtime && /opt/runai-runtime/bin/pip install dist/*.whl": (
        "pip asks an index; the wheel that is tested was installed by ./dev in the same way"
    ),
    "docker run --runtime=runai -e RUNAI_GPU_MEMORY=0.5 -e RUNAI_GPUS=0:1 IMAGE nvidia-smi -L": (
        "needs a GPU in MIG mode; tests/docker/test_mig.py has one"
    ),
}
"""What can't be run here, and why."""

FILLED = {r"\bIMAGE\b": "ubuntu", r"\bBUNDLE\b": "bundle", r"\bID\b": "docs", r"\bCONTAINER\b": "train"}
"""What a reader fills in, and with what it is filled in here."""

INSTALLED_BY = ("ln -sf ", "runai-ctl configure")
"""What the README's commands begin with that everything else needs."""

ALL = [found for page in PAGES for found in typed(page)]
TYPED = list({found.command: found for found in ALL if found.command not in ELSEWHERE}.values())


def filled(command: str) -> str:
    for what, by in FILLED.items():
        command = re.sub(what, by, command)
    return command


def looks_at_train(found: Typed) -> bool:
    return found.page.name == "ctl.md"


class Reader:
    """Somebody who has installed runai-runtime by the README, and types each command once."""

    def __init__(self, at: Desk) -> None:
        self.at = at
        self.bundle = at.make_bundle()
        self.done: dict[str, Done] = {}
        for found in typed(README):
            if found.command.startswith(INSTALLED_BY):
                self.type(found.command)

    def type(self, command: str) -> Done:
        if command not in self.done:
            self.done[command] = self.at.type(filled(command))
        return self.done[command]


@pytest.fixture(scope="module")
def reader(folder: Path) -> Iterator[Reader]:
    home = folder / "desk"
    home.mkdir()
    with desk(home) as at:
        yield Reader(at)


@pytest.mark.parametrize("found", TYPED, ids=lambda found: f"{found.place} {found.command[:60]}")
def test_what_is_typed(reader: Reader, found: Typed) -> None:
    assert found.command in RUN, f"{found.place}: nobody knows what comes of this; RUN or ELSEWHERE should"
    if looks_at_train(found):
        reader.at.start_train()
        for before in TYPED[: TYPED.index(found)]:  # the log has what was done to it
            if looks_at_train(before):
                reader.type(before.command)
    else:
        reader.at.engine.remove_containers()
    done = reader.type(found.command)
    assert done.code == 0, done.said
    assert RUN[found.command] in done.said
    screens = [each for each in ALL if each.command == found.command]
    shapes = {shape(line) for line in done.said.splitlines()}
    for line in (line for each in screens for line in each.shown if line.strip() != "…"):
        assert shape(line) in shapes, done.said


def test_nothing_is_known_that_no_page_has() -> None:
    assert sorted({*RUN, *ELSEWHERE}) == sorted({found.command for found in ALL})
