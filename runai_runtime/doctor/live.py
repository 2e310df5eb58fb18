"""doctor --live: a container with a share of each GPU, in which our probe (probe/runai-probe.c) tries to take more."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from runai_runtime.columns import printable
from runai_runtime.configure import NATIVE
from runai_runtime.doctor.facts import Facts
from runai_runtime.doctor.finding import FAULT, OK, Finding, Unknown, fault, of_refusal, ok, warning
from runai_runtime.doctor.image import write_image
from runai_runtime.doctor.report import looked
from runai_runtime.errors import RefusalError
from runai_runtime.inventory import read_cache
from runai_runtime.request import GPUS, MEMORY
from runai_runtime.terminal import ended_in_order, undisturbed

PROBE = NATIVE / "runai-probe"
MIB = 1 << 20
STEP = 256 * MIB
UNMEASURED = 768 * MIB  # for a context whose size nobody measured: of known GPUs the largest takes 550 MiB
SECONDS = 60  # for a container; the first one after a boot may take some
CLOSE = 64 * MIB  # what is had may differ by this much from what was free: the driver gives blocks
LABEL = "runai.doctor"  # of container and image (docs/ctl.md)
LATE = 1  # seconds until a second look, for what the engine was still at

# Without these no container with a share starts at all, and the sentence of their own check says why.
NEEDED = (
    *("configuration", "our programs", "driver libraries", "driver", "low-level runtime", "engine", "runtime"),
    "registered program",
)

OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"
NOT_SUPPORTED = "CUDA_ERROR_NOT_SUPPORTED"
SEE_RUNTIME = "see which program docker has for that runtime (docker info), and run runai-ctl configure"
SEE_DOCKER = "see docker's own log (journalctl -u docker)"
SEE_FILES = "see whether there is room in /tmp, and install runai-runtime again"
SEE_AGENT = "see what its agent said (runai-ctl logs), and report this to runai-runtime"
SEE_HOST = "see whether CUDA works on the host outside of containers, and runai-ctl logs"


def try_shares(facts: Facts, findings: dict[str, Finding]) -> dict[str, Finding]:
    """What a container with a share of each GPU of the host gets, by names that no check has. FINDINGS: of the checks.

    Nothing is started where one of these says that it would not. What is made for it is gone at the end.
    """
    for name in NEEDED:
        found = findings.get(name)
        if found and found.level == FAULT:
            return {"live": fault(f"no container was started: {name}: {found.what}", "mend that first")}
    if where := elsewhere(facts):
        return {
            "live": fault(
                f"no container was started: docker's engine is {where}, which is not this host's own",
                "unset DOCKER_HOST, or choose the context of this host's engine (docker context use default)",
            )
        }
    gpus = facts.driver["gpus"]
    traces = Traces(facts)
    with ended_in_order():
        tries = traces.cleared_after(lambda: trials(facts, traces, gpus))
    if traces.left:
        tries["what stays"] = warning(
            f"what was made for it stays: {traces.left}",
            f"docker container ls --all --filter label={LABEL} and docker image ls --filter label={LABEL} show it: "
            "remove that",
        )
    return tries


def elsewhere(facts: Facts) -> str:
    """The address of docker's engine, where that is no socket of this host."""
    host = os.environ.get("DOCKER_HOST", "")
    if not host:
        with contextlib.suppress(Unknown):  # an old client has no contexts
            host = facts.run(*facts.docker, "context", "inspect", "--format={{.Endpoints.docker.Host}}").strip()
    return "" if host.startswith("unix://") else host


def trials(facts: Facts, traces: Traces, gpus: list[dict[str, Any]]) -> dict[str, Finding]:
    try:
        name = make_image(facts, traces)
    except Unknown as why:
        traces.cut_short = True
        return {"live": fault(f"no image could be made for a container: {why}", SEE_DOCKER)}
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return {"live": fault(f"no image could be made for a container: {error.strerror}{where}", SEE_FILES)}
    checks = {f"share of GPU {gpu['index']}": partial(tried, gpu=gpu, image_id=name, traces=traces) for gpu in gpus}
    return {check: looked(trial, facts) for check, trial in checks.items()}


class Traces:
    """What one run makes in the engine: all of it has the label LABEL, whose value is this run's alone."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.label = f"{LABEL}={secrets.token_hex(4)}"
        self.cut_short = False  # a client is gone, and the engine may still be at what it asked for
        self.left = ""  # what couldn't be removed, and why

    def cleared_after(self, work: Callable[[], dict[str, Finding]]) -> dict[str, Finding]:
        """What WORK answers. Where it is cut short, whoever waits on stderr is told what is left."""
        try:
            found = work()
            with undisturbed():
                self.clear()
        except BaseException:
            self.cut_short = True
            with undisturbed():
                self.clear()
            if self.left:
                sys.stderr.write(f"runai-ctl: what was made for it stays: {printable(self.left)}\n")
            raise
        return found

    def clear(self) -> None:
        """Remove it: containers first, which need the image."""
        for pause in (0, LATE) if self.cut_short else (0,):
            time.sleep(pause)
            self.left = ", ".join(filter(None, (self.remove("container"), self.remove("image"))))

    def remove(self, kind: str) -> str:
        """What is left of KIND, and why. Once more after a failure: --rm may be at the same container."""
        left = self._remove(kind)
        if left:
            time.sleep(LATE)
            left = self._remove(kind)
        return left

    def _remove(self, kind: str) -> str:
        docker, found = self.facts.docker, f"perhaps the {kind}"
        volumes = ["--volumes"] if kind == "container" else []
        try:
            ids = self.facts.run(*docker, kind, "ls", "--all", "--quiet", f"--filter=label={self.label}").split()
            if ids:
                found = f"{kind} {' '.join(ids)}"
                self.facts.run(*docker, kind, "rm", "--force", *volumes, *ids)
        except Unknown as why:
            return f"{found} ({why})"
        return ""


def make_image(facts: Facts, traces: Traces) -> str:
    """The id of an image with the probe, which has no name. Raises Unknown and OSError."""
    with tempfile.TemporaryFile() as tar:
        write_image(tar, str(PROBE), [path for path in facts.libraries.values() if path])
        tar.seek(0)
        options = [f"--change=LABEL {traces.label}", "--message=runai-ctl doctor --live"]
        return facts.run(*facts.docker, "import", *options, "-", stdin=tar, seconds=SECONDS).strip()


def tried(facts: Facts, gpu: dict[str, Any], image_id: str, traces: Traces) -> Finding:
    """What a container with a share of GPU gets."""
    share = share_of(facts, gpu)
    if share > gpu["total"] - gpu["reserved"]:
        return warning(
            f"{(gpu['total'] - gpu['reserved']) // MIB} MiB are fewer than the {share // MIB} MiB that are tried",
            "start a container with a smaller share by hand",
        )
    try:
        done = run_probe(facts, gpu["uuid"], share, image_id, traces)
    except Unknown as why:
        return fault(
            f"the container with {share // MIB} MiB didn't end well: {why}",
            "see runai-ctl logs, and runai-ctl status: with a wait in the configuration it may have waited for room",
        )
    if done.returncode:
        return not_started(done.returncode, done.stderr)
    return judge(done.stdout, share)


def share_of(facts: Facts, gpu: dict[str, Any]) -> int:
    """The smallest share that leaves something beside a context, in bytes."""
    inventory = read_cache(facts.host)
    known = {one.uuid: one.context for one in inventory.gpus} if inventory else {}
    context = known.get(gpu["uuid"], 0) or UNMEASURED
    return (context + STEP - 1) // STEP * STEP + STEP


def run_probe(facts: Facts, uuid: str, share: int, image_id: str, traces: Traces) -> subprocess.CompletedProcess[str]:
    """The probe's container, which isn't there any more afterwards. Raises Unknown."""
    named = [f"--name=runai-doctor-{secrets.token_hex(4)}", f"--label={traces.label}"]
    options = [*named, f"--runtime={facts.name}", "--network=none", "--log-driver=none"]
    asked = [f"--env={MEMORY}={share // MIB}m", f"--env={GPUS}=device={uuid}"]
    command = [*facts.docker, "run", "--rm", *options, *asked, image_id, f"/{PROBE.name}", str(share)]
    try:
        done = facts.complete(*command, seconds=SECONDS)
    except Unknown:
        traces.cut_short = True
        traces.remove("container")  # the next GPU's shall not wait for its share; what stays is told at the end
        raise
    if done.returncode:
        traces.remove("container")
    return done


def not_started(status: int, said: str) -> Finding:
    """Of docker's exit STATUS and what it SAID."""
    sentences = said.partition("runai: ")[2].strip().splitlines()
    if not sentences:
        lines = [line for line in said.splitlines() if line.startswith("docker: ")] or said.strip().splitlines()
        line = lines[0].removeprefix("docker: ").rstrip(".") if lines else f"docker run ended with {status}"
        return fault(f"no container with a share starts: {line}", f"{SEE_RUNTIME}; {SEE_DOCKER}")
    sentence = sentences[0].removesuffix(": unknown.").removesuffix(": unknown")
    found = of_refusal(RefusalError(sentence))
    if "MiB free" in sentence:
        return warning(f"a share was not tried: {found.what}", "try again when there is room (runai-ctl status)")
    if "MiB of it at most" in sentence:
        return warning(f"a share was not tried: {found.what}", 'try again with another "largest_share"')
    return fault(f"no container with a share starts: {found.what}", found.mend)


def judge(said: str, share: int) -> Finding:
    """What the probe SAID, for a share of so many bytes: as any program, and where there is an agent around libvgpu."""
    try:
        saw, *around = [json.loads(line) for line in said.strip().splitlines()]
        if "error" in saw:
            return could_not_try(saw["call"], saw["error"], share)
        found = judge_amounts(saw, share)
        return judge_around(found, around[0], share) if around and found.level == OK else found
    except (ValueError, LookupError, TypeError):
        return fault(f"the container started, and its program said {said.strip()[:100]!r}", SEE_RUNTIME)


def could_not_try(call: str, error: str, share: int) -> Finding:
    if call == "dlopen":
        return fault(f"the container with a share started without the driver: {error}", SEE_RUNTIME)
    if error == OUT_OF_MEMORY:
        return warning(
            f"{call} was refused under a share of {share // MIB} MiB: there is no room for a context",
            "see nvidia-smi on the host: programs outside of shares may have the GPU's memory",
        )
    return fault(f"CUDA doesn't work in a container with a share: {call} answers {error}", SEE_HOST)


def judge_around(found: Finding, saw: dict[str, Any], share: int) -> Finding:
    """What was FOUND, with what a program SAW that uses the driver's own library."""
    if "error" in saw:
        return warning(
            f"{found.what}; around libvgpu that wasn't tried: {saw['call']} answers {saw['error']}", SEE_HOST
        )
    took = sum(way["took"] for way in saw["ways"])
    if took >= share:
        return fault(
            f"a program that goes around libvgpu took {took // MIB} of {share // MIB} MiB: the agent didn't refuse it",
            SEE_AGENT,
        )
    if odd := odd_way(saw["ways"]):
        return warning(f"{found.what}; around libvgpu it took {took // MIB}, then {odd}", SEE_HOST)
    return ok(f"{found.what}; around libvgpu it took {took // MIB}, then the agent refused it")


def odd_way(ways: list[dict[str, Any]]) -> str:
    """Which of WAYS didn't end as it has to, by a refusal for want of memory, and how; "" where all did. A driver that
    doesn't have one of them is well, as long as another gave memory and then was refused.
    """
    refused = [way for way in ways if way["error"] == OUT_OF_MEMORY]
    others = [way for way in ways if way["error"] not in (OUT_OF_MEMORY, NOT_SUPPORTED)]
    if not others and not (refused and any(way["took"] for way in ways)):
        others = ways[:1]
    return f"{others[0]['call']} answered {others[0]['error'] or 'nothing'}" if others else ""


def judge_amounts(saw: dict[str, Any], share: int) -> Finding:
    ways = saw["ways"]
    took = sum(way["took"] for way in ways)
    sizes = f"{took // MIB} of {share // MIB} MiB"
    if took > share:
        last = [way["call"] for way in ways if way["took"]][-1]
        return fault(
            f"the share isn't held: a container with {share // MIB} MiB took {took // MIB}, and {last} wasn't refused",
            SEE_RUNTIME,
        )
    if took == share:
        return fault(
            f"the share isn't held: a container took {sizes} beside its context, which isn't counted", SEE_AGENT
        )
    shown = {name: saw[name] for name in ("cuda", "nvml") if saw[name] not in (0, share)}
    if shown or saw["gpus"] != 1:
        seen = ", ".join(f"{size // MIB} MiB by {name.upper()}" for name, size in shown.items())
        return fault(
            f"the container was refused at {sizes}, and sees {saw['gpus']} GPU(s){', of ' if seen else ''}{seen}: "
            "what is seen there is not the share",
            SEE_RUNTIME,
        )
    if odd := odd_way(ways):
        return warning(f"took {sizes}, then {odd}", SEE_HOST)
    if took > saw["free"] + CLOSE:
        return warning(
            f"took {sizes}, although {saw['free'] // MIB} were shown as free beside its context: that isn't counted, "
            "or programs outside of shares gave memory back meanwhile",
            "try again, and report this to runai-runtime if it stays",
        )
    if took + CLOSE < saw["free"]:
        return warning(
            f"took {sizes} and was refused, although {saw['free'] // MIB} were shown as free: programs outside of "
            "shares may have the GPU's memory",
            "see nvidia-smi on the host",
        )
    return ok(f"a container sees {share // MIB} MiB; it took {took // MIB} beside its context, then was refused")
