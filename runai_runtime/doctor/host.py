"""What configure left on the host: the configuration, folders and our own programs."""

from __future__ import annotations

import json
import os

from runai_runtime.agent import socket_fault
from runai_runtime.doctor.driver import without_agent
from runai_runtime.doctor.facts import Facts
from runai_runtime.doctor.finding import Finding, fault, of_refusal, ok, warning
from runai_runtime.errors import RefusalError
from runai_runtime.plan import OURS
from runai_runtime.schema import fault_of

ID = "f" * 64  # docker's ids are that long


def user(facts: Facts) -> Finding:
    if facts.user:
        return warning("doctor doesn't run as root, and may not see all", "run it with sudo")
    return ok("doctor runs as root")


def configuration(facts: Facts) -> Finding:
    if facts.configuration_fault:
        return of_refusal(RefusalError(facts.configuration_fault))
    with open(facts.config, encoding="utf-8") as file:
        wrong = fault_of(json.load(file))  # the schema says more than the short check that read_host does
    if wrong:
        return fault(
            f"the configuration {facts.config} can't be used: {wrong}", "mend that key (docs/configuration.md)"
        )
    return ok(f'{facts.config}, "enforcement": "{facts.host.enforcement}"')


def state(facts: Facts) -> Finding:
    folder = facts.host.state
    if not writable(folder):
        return fault(
            f"the state folder {folder} can't be written to", 'mend its file system, or choose another "state"'
        )
    why = socket_fault(os.path.join(folder, ID))
    if why:
        return without_agent(
            facts.host, why, 'choose a shorter "state" in the configuration, and run runai-ctl configure'
        )
    return ok(folder)


def fitted(facts: Facts) -> Finding:
    folder = facts.host.fitted
    if not writable(folder):
        return fault(f"the folder {folder} can't be written to", 'mend its file system, or choose another "fitted"')
    if os.statvfs(nearest(folder)).f_flag & os.ST_NOEXEC:
        return warning(
            f"the folder {folder} lies on a file system that is mounted noexec: containers with a user namespace of "
            "their own (userns-remap) are refused, as they can't load libvgpu from it",
            'choose a "fitted" on another file system in the configuration, and run runai-ctl configure',
        )
    return ok(folder)


def programs(facts: Facts) -> Finding:
    host = facts.host
    files = [os.path.join(host.libvgpu, soname) for soname in OURS]
    started = [host.hook, *([host.agent] if host.enforcement != "interposer" else [])]
    missing = [path for path in [*files, *started] if not os.path.isfile(path)]
    missing += [path for path in started if path not in missing and not os.access(path, os.X_OK)]
    if missing:
        return fault(
            f"{missing[0]} isn't there or can't be executed", "install runai-runtime again, and run runai-ctl configure"
        )
    return ok(f"in {os.path.dirname(host.hook)}")


def writable(folder: str) -> bool:
    place = nearest(folder)
    return os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK)


def nearest(folder: str) -> str:
    """FOLDER, or what there is above it."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return folder
