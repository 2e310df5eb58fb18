"""Every command that README.md and docs/*.md have somebody type, typed as it stands, on a host with a simulated GPU.

A command that is new to the pages fails here until it has its line in RUN, or, where it can't run here, in ELSEWHERE.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.docker.desk import Desk, Done, desk, shape
from tests.docker.test_mig import GPUS
from tests.docker.test_packaged import OF_WHEEL
from tests.pages import PAGES, README, Typed, typed
from tests.simgpu.host import SimHost

RUN: dict[str, str] = {
    # README.md
    "runai-docker run -it --rm --gpus 1 --gpu-memory 1 ubuntu nvidia-smi": "0MiB /  10989MiB",
    "docker run --rm --runtime=runai -e RUNAI_GPU_MEMORY=0.3 ubuntu nvidia-smi": "0MiB /   3296MiB",
    "runai-docker run -it --rm --gpus 1 --gpu-memory 0.3 ubuntu nvidia-smi": "0MiB /   3296MiB",
    "ln -sf /opt/runai-runtime/bin/runai-ctl /opt/runai-runtime/bin/runai-docker /usr/local/bin/": "",
    "runai-ctl configure && systemctl reload docker": "has the runtime runai now",
    # docs/ctl.md: on a container `train`
    "runai-ctl status": "train",
    "runai-ctl top --once": "cudash",
    "runai-ctl inspect train": "of the image ubuntu",
    "runai-ctl limits set train 9g": "9216 MiB now",
    "runai-ctl doctor --live": "share of GPU 0",
    "docker container ls --all --filter label=runai.doctor": "CONTAINER ID",
    "docker image ls --filter label=runai.doctor": "REPOSITORY",
    "runai-ctl logs train": "the share on GPU 0 is",
    "runai-ctl metrics": "runai_gpu_used_bytes",
    # docs/how-it-works.md
    "docker run -d --name=first --runtime=runai -e RUNAI_GPU_MEMORY=8g ubuntu sleep 600": "",
    "docker run --rm --runtime=runai -e RUNAI_GPU_MEMORY=4g ubuntu nvidia-smi": "runai: GPU 0 has 2733 MiB free",
    "docker exec first cat /.runai/limits": "GPU-",
    # docs/use.md
    "docker run --runtime=runai -e RUNAI_GPU_MEMORY=3g IMAGE nvidia-smi": "0MiB /   3072MiB",
    "docker run --runtime=runai -e RUNAI_GPU_MEMORY=0.5 -e RUNAI_GPUS=0:1 IMAGE nvidia-smi -L": "MIG 3g.40gb",
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
"""What is typed, as the pages have it: something that the terminal has to show then."""

ELSEWHERE: dict[str, str] = {
    "./dev demo": "starts an engine of its own; tests/unit/test_docs.py sees that ./dev knows the command",
    "./dev test": "is what runs this",
    "./dev build && python3 -m venv /opt/runai-runtime && /opt/runai-runtime/bin/pip install dist/*.whl": (
        "pip asks an index; the wheel that is tested was installed by ./dev in the same way"
    ),
    **dict.fromkeys(
        (
            "./dev package",
            "apt install ./dist/runai-runtime_0.1.0_amd64.deb",
            "apt install ./dist/runai-runtime_0.2.0_amd64.deb",
            "apt remove runai-runtime",
            "apt purge runai-runtime",
            "runai-ctl configure",
            "systemctl reload docker",
            "runai-docker run --rm --gpus 1 --gpu-memory 0.3 IMAGE nvidia-smi",
        ),
        "is typed in tests/docker/test_packaged.py, on a clean Debian 12",
    ),
    **dict.fromkeys(OF_WHEEL, "the same as in README.md"),
}
"""What can't be run here, and why."""

FILLED = {
    r"\bIMAGE\b|\bnvidia/cuda:\S+": "ubuntu",
    r"\bBUNDLE\b": "bundle",
    r"\bID\b": "docs",
    r"\bCONTAINER\b": "train",
}
"""What a reader fills in, and with what it is filled in here."""

EXIT = {"docker run --rm --runtime=runai -e RUNAI_GPU_MEMORY=4g ubuntu nvidia-smi": 125}
"""Which of them fail, as the page says, and with what."""

WITH_INSTANCES = ("docker run --runtime=runai -e RUNAI_GPU_MEMORY=0.5 -e RUNAI_GPUS=0:1 IMAGE nvidia-smi -L",)
"""What is typed on a host with a GPU in MIG mode."""

INSTALLED_BY = ("ln -sf ", "runai-ctl configure")
"""What the README's commands begin with that everything else needs."""

TYPED = {page: list(typed(page)) for page in PAGES}
ALL = [found for page in PAGES for found in TYPED[page]]


def filled(command: str) -> str:
    for what, by in FILLED.items():
        command = re.sub(what, by, command)
    return command


class Reader:
    """Somebody who has installed runai-runtime by the README, and goes through one page after the other."""

    def __init__(self, at: Desk, with_instances: SimHost) -> None:
        self.at, self.with_instances = at, with_instances
        self.done: dict[str, Done] = {}
        at.make_bundle()
        self.type(found for found in TYPED[README] if found.command.startswith(INSTALLED_BY))

    def type(self, commands: Iterable[Typed]) -> None:
        for found in commands:
            if found.place in self.done or found.command in ELSEWHERE:
                continue
            on_instances = found.command in WITH_INSTANCES
            with self.at.with_gpus_of(self.with_instances) if on_instances else contextlib.nullcontext():
                self.done[found.place] = self.at.type(filled(found.command))

    def read(self, page: Path) -> None:
        """Type what stands there, in its order, on a host with no containers but those it takes for given."""
        if not all(found.place in self.done or found.command in ELSEWHERE for found in TYPED[page]):
            self.at.engine.remove_containers()
            if any("train" in filled(found.command).split() for found in TYPED[page]):
                self.at.start_train()
            self.type(TYPED[page])


@pytest.fixture(scope="module")
def reader(folder: Path, simhost: SimHost) -> Iterator[Reader]:
    home = folder / "desk"
    home.mkdir()
    with SimHost(home / "instances", {"gpus": GPUS}) as with_instances, desk(home, simhost) as at:
        yield Reader(at, with_instances)


HERE = [found for found in ALL if found.command not in ELSEWHERE]


@pytest.mark.parametrize("found", HERE, ids=lambda found: f"{found.place} {found.command[:60]}")
def test_what_is_typed(reader: Reader, found: Typed) -> None:
    assert found.command in RUN, f"{found.place}: nobody knows what comes of this; RUN or ELSEWHERE should"
    reader.read(found.page)
    done = reader.done[found.place]
    assert done.code == EXIT.get(found.command, 0), done.said
    assert RUN[found.command] in done.said
    shown = [line for line in found.shown if line.strip() != "…"]
    assert [line for line in shown if not is_in(line, done.said, found.page)] == [], done.said


def is_in(line: str, said: str, page: Path) -> bool:
    """Whether a page shows what the terminal did, with … for what it leaves out. In the README's pictures every figure
    is as it has to be; on other pages some of them are another time's.
    """
    if page == README:
        return line in said
    wanted = re.compile(".*".join(re.escape(shape(part)) for part in line.split("…")))
    return any(wanted.search(shape(each)) for each in said.splitlines())


def test_nothing_is_known_that_no_page_has() -> None:
    assert {*RUN, *ELSEWHERE} - {found.command for found in ALL} == set()
