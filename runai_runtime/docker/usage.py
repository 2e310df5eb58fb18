"""docker's help, with our options in it."""

from __future__ import annotations

import re

RUN = (
    ("--gpu-memory amount", "Share of each GPU's memory: a part (0.3, 30%) or an amount (3g, 512m)"),
    ("--gpu-memory-limit amount", "The most that the container may take, where that is more than it is sure to get"),
    ("--gpu-memory-request amount", "What the container is sure to get, where that is less than its limit"),
)

ABOUT = """\

GPU memory (runai-docker):
  run, create --gpu-memory AMOUNT   Give the container a share of a GPU; --gpus says which, or how many
  --dry-run COMMAND                 Print docker's command instead of running it

Run 'runai-docker run --help' for all options. $RUNAI_DOCKER names another docker.
"""


def with_ours(text: str) -> str:
    """The help TEXT of docker run or create with ours among its options, in the columns of the others."""
    lines = text.splitlines(keepends=True)
    at = next((number for number, line in enumerate(lines) if line.lstrip().startswith("--gpus ")), len(lines))
    meaning = re.search(r"\S {2,}(\S)", lines[at]) if at < len(lines) else None
    column = meaning.start(1) if meaning else 41
    ours = [f"      {name}".ljust(column - 2) + f"  {about}\n" for name, about in RUN]
    return "".join([*lines[:at], *ours, *lines[at:]])
