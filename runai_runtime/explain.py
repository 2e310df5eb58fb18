"""runai-ctl inspect: one container in words, from its grant and its plan: what it asked for, got, and what was done."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from runai_runtime.columns import printable
from runai_runtime.containers import Container
from runai_runtime.files import read_small
from runai_runtime.overview import container_values
from runai_runtime.tables import age, mib

INJECTED = {
    "cdi": "the GPUs were put in as the host's CDI specification has them",
    "driver": "the GPUs were put in by a look at the host's driver: its device nodes, libraries and programs",
    "": "the container came with its GPUs (--gpus, --device, or NVIDIA's toolkit)",
}
LINES = {
    "real": "{1} is the driver's own {0}, behind ours",
    "image-real": "{1}, the image's own {0}, is behind ours",
    "ours": "{0} is ours, over every copy of the driver's: {1}",
    "program": "{1} is put in as {0}",
    "device": "{1} is put in as {0}",
    "search": "{0} is searched for libraries of the driver, since LD_LIBRARY_PATH names it",
    "preload": "{0} is looked at, since LD_PRELOAD names it",
}
"""What the lines of a plan do (docs/architecture.md, "The plan"), but those of libraries: there are dozens."""


def plan_of(container: Container) -> list[list[str]]:
    """The lines of the container's plan, each a list of its fields; empty where it can't be read."""
    try:
        text = read_small(f"{container.folder}/plan")
    except (OSError, ValueError):
        return []
    return [line.split("\t") for line in text.splitlines()]


def lines(container: Container, width: int) -> Iterator[list[tuple[str, str]]]:
    """All that there is to say, as columns.Table has lines: wrapped, but a path stays whole for who copies it."""
    for heading, sentences in sections(container):
        yield [(heading, "bold")]
        for sentence in map(printable, sentences):
            indent = " " * (2 + len(sentence) - len(sentence.lstrip()))
            wrapper = textwrap.TextWrapper(width, indent, indent, break_long_words=False, break_on_hyphens=False)
            yield from ([(line, "")] for line in wrapper.wrap(sentence.strip()))


def sections(container: Container) -> Iterator[tuple[str, list[str]]]:
    """Headings, and what there is to say under each."""
    yield "Container", identity(container)
    yield "Request", request(container.grant)
    yield "Grant", shares(container)
    yield "What keeps the share", enforcement(container)
    yield "Edits", edits(container)


def identity(container: Container) -> list[str]:
    named = f"{container.name}, of the image {container.image}" if container.name else "no engine that answers knows it"
    first = f"its first process is {container.pid}" if container.pid else "its first process is not known"
    return [container.id, named, f"made {age(container.since)} ago; {first}"]


def request(grant: dict[str, Any]) -> list[str]:
    asked = grant.get("request")
    if not asked:
        return ["not known: the version that made it kept none"]
    memory = f"at most {asked['limit']}, and {asked['guarantee']} for sure"
    if asked["limit"] == asked["guarantee"]:
        memory = f"{asked['limit']} of each GPU's memory"
    return [memory, *([f"GPUs: {asked['gpus']}"] if "gpus" in asked else [])]


def shares(container: Container) -> list[str]:
    said = []
    for gpu, figure in zip(container.grant["gpus"], container.figures, strict=True):
        sure = f", {mib(gpu['guarantee'])} MiB of it for sure" if gpu["guarantee"] < gpu["limit"] else ""
        said.append(f"GPU {gpu['index']} ({gpu['uuid']}): {mib(figure.share)} MiB{sure}")
        used = f"  used {mib(figure.used)} MiB now" if figure.used is not None else "  what it uses is not known"
        peak = f", {mib(figure.peak)} at most" if figure.peak is not None else ""
        refused = f"; {figure.refused} requests found no room" if figure.refused else ""
        said.append(used + peak + refused)
    if container.grant.get("overcommit"):
        said.append("limits of this host may add up to more than its GPUs have")
    return said


def enforcement(container: Container) -> list[str]:
    kept = container.grant["enforcement"]
    if container.is_bereft:
        gone = "no agent any more: it has ended, so the container gets no more memory of a GPU, and docker exec fails"
        return [gone, "start the container anew (docker restart), which gives it another; runai-ctl logs may say why"]
    if kept.get("by") == "agent":
        return ["an agent outside of the container, at the driver's door, and libvgpu, which shows it in there"]
    if kept.get("by") == "interposer":
        why = kept.get("why") or "nothing says why"
        return ["libvgpu in the container alone: a program that goes around the driver's libraries isn't bounded", why]
    return ["nothing says what: the version that made it kept no record"]


def edits(container: Container) -> list[str]:
    grant, plan = container.grant, plan_of(container)
    said = [INJECTED.get(grant.get("injected", ""), str(grant.get("injected")))]
    kept = grant["enforcement"]
    said += [f"{door} was taken out: device memory could be had through it" for door in kept.get("removed", [])]
    said += [f"{door} was let in, as the configuration says; no share bounds it" for door in kept.get("let_in", [])]
    if kept.get("by") == "agent":
        said.append("the seccomp profile hands the driver's requests for memory to the agent")
    said.append("hooks of ours are called before it starts, in its mounts, and when it has ended")
    for name, *fields in plan:
        if name in LINES and len(fields) >= LINES[name].count("{"):
            said.append(LINES[name].format(*fields))
    libraries = [fields[0] for name, *fields in plan if name == "library"]
    if libraries:
        said.append(f"{len(libraries)} names of the driver's libraries are put in: {', '.join(libraries)}")
    if not plan:
        said.append("the plan of what is mounted can't be read")
    return said


def as_values(container: Container) -> dict[str, Any]:
    """For JSON: what status has of it, and grant and plan as they are (docs/architecture.md)."""
    return container_values(container, processes=True) | {"grant": container.grant, "plan": plan_of(container)}
