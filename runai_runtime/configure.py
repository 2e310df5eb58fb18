"""Setting a host up: the configuration, the program that daemon.json registers, and the cached inventory."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from runai_runtime.agent import host_fault, refusal_of
from runai_runtime.errors import RefusalError
from runai_runtime.files import write_whole
from runai_runtime.host import LARGEST, Host
from runai_runtime.inventory import forget_cache, read_inventory, scan_in_child
from runai_runtime.packaged import HOME, PACKAGE
from runai_runtime.plan import OURS, need
from runai_runtime.schema import fault_of
from runai_runtime.shim import read_regular
from runai_runtime.verify import refuse_faults

NATIVE = PACKAGE / "native"
NO_AGENT = "shares will be kept by libvgpu alone, without an agent"  # and why

# What an installation has below its package's folder: paths that configure writes, and that move with the installation.
OF_INSTALLATION = {"hook": "native/runai-hook", "libvgpu": "native", "agent": "native/runai-agent"}

# Packages that a look at the host needs. A create may have to look, without site-packages: so the program names their
# folders, where those aren't ours.
OF_A_LOOK = ("elftools", "jsonschema", "pynvml", "yaml")

# The first line starts runai-launch, which hands what needs no look to the low-level runtime at once, and the rest to
# Python with this same file. Python's options there: -I: no environment variable and no folder of the user's has a
# say; -S: no site-packages, whose start-up files cost more than all the rest. The package's folder comes last, so that
# nothing beside it hides a standard module.
PROGRAM = """\
#!{interpreter}
# Written by runai-ctl configure. docker starts this as an OCI runtime.
# runtime={runtime}
import sys

sys.path += {folders!r}
from runai_runtime.shim import main

main({configuration!r}, {runtime!r}{more})
"""

# The low-level runtimes that NVIDIA's runtime looks for, and where (nvidia-container-toolkit 1.20, api/config/v1 and
# pkg/lookup/path.go).
BEHIND_NVIDIA = ("runc", "crun", "docker-runc")
PROGRAM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def defaults() -> dict[str, Any]:
    """The configuration of a host with Debian's runc, for the libraries and the hook of this package."""
    return {
        "runtime": "/usr/sbin/runc",
        "hook": str(NATIVE / "runai-hook"),
        "libvgpu": str(NATIVE),
        "fitted": "/var/lib/runai-runtime",
    }


def read_values(config: Path) -> dict[str, Any]:
    """What a configuration file says already, for this installation: the hook and the libraries that configure of
    another one wrote are left out. Raises RefusalError for a damaged one: it is a person's to mend.
    """
    if not config.exists():
        return {}
    try:
        values = json.loads(read_regular(str(config), LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise RefusalError(f"{config} can't be read ({error}); mend it, or move it away") from error
    if not isinstance(values, dict):
        raise RefusalError(f"{config} is no JSON object; mend it, or move it away")
    return {key: value for key, value in values.items() if not is_of_installation(key, value)}


def is_of_installation(key: str, value: object) -> bool:
    """Whether VALUE is what an installation, whichever, has for KEY of the configuration."""
    return key in OF_INSTALLATION and str(value).endswith(f"/{PACKAGE.name}/{OF_INSTALLATION[key]}")


def configure(config: dict[str, Any], config_path: Path, program_path: Path) -> list[str]:
    """Write CONFIG (what it leaves out is as in defaults) to CONFIG_PATH and the registered program to PROGRAM_PATH,
    and scan the host; why there will be no agent on it, where that isn't the configuration's wish. Raises RefusalError
    when something that is needed is missing, or our libraries are damaged: what the host had goes on then.
    """
    values = defaults() | config
    behind = check(values)
    host = Host(str(config_path), values)
    with none_made(host.state, host.fitted):
        forget_cache(host)
        scan_in_child(host)
        faults = agent_faults(host, behind.values() or [host.runtime])
    with written(config_path.resolve(), json.dumps(values, indent=4) + "\n"):
        folder = second_stage(behind, values, config_path, program_path)
        write_whole(program_path, program(values, config_path, values["runtime"], enter=folder), 0o755)
    return faults


def rehearse(config: dict[str, Any], config_path: Path) -> list[str]:
    """What configure() would answer or raise before it writes. What a look at the host caches is thrown away."""
    values = defaults() | config
    behind = check(values)
    with tempfile.TemporaryDirectory(prefix="runai-") as folder:
        elsewhere = {"state": f"{folder}/state", "fitted": f"{folder}/fitted", "log": ""}
        host = Host(str(config_path), values | elsewhere)
        scan_in_child(host)
        return agent_faults(host, behind.values() or [host.runtime])


def check(values: dict[str, Any]) -> dict[str, str]:
    """The runtimes behind the configured one (runtimes_behind). Raises RefusalError for a configuration that can't be
    used, and where a file that it names is missing or damaged.
    """
    fault = fault_of(values)
    if fault:
        raise RefusalError(f"the configuration can't be used: {fault}; docs/configuration.md has all keys")
    for path in (values["runtime"], values["hook"], *(f"{values['libvgpu']}/{name}" for name in OURS)):
        if not os.path.isfile(path):
            raise RefusalError(f"{path} is missing; install it, or name another place in the configuration")
    refuse_faults(values["libvgpu"])
    return runtimes_behind(values)


@contextlib.contextmanager
def none_made(*folders: str) -> Iterator[None]:
    """Where what is done fails, those of FOLDERS that weren't there aren't there again."""
    new = [folder for folder in folders if not os.path.lexists(folder)]
    try:
        yield
    except BaseException:
        for folder in new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def written(path: Path, text: str) -> Iterator[None]:
    """With TEXT in the file at PATH, which is no link. Where what is done with it fails, the file is again what it was:
    a program of another version must not be left with the hook and the agent of this one.
    """
    before = path.read_text(encoding="utf-8") if path.exists() else None
    write_whole(path, text, 0o644)
    try:
        yield
    except BaseException:
        if before is None:
            path.unlink()
        else:
            write_whole(path, before, 0o644)
        raise


def agent_faults(host: Host, runtimes: Iterable[str]) -> list[str]:
    """Why containers of RUNTIMES will have no agent although HOST's configuration would have them have one. Raises
    RefusalError where it requires one, or the agent is missing.
    """
    if host.enforcement == "interposer":
        return []
    need(host.agent)
    inventory = read_inventory(host)
    faults = list(dict.fromkeys(fault for runtime in runtimes if (fault := host_fault(inventory, runtime))))
    if faults and host.enforcement == "agent":
        raise refusal_of(host, faults[0])
    return faults


def second_stage(behind: dict[str, str], values: dict[str, Any], config_path: Path, program_path: Path) -> str:
    """Write the programs between NVIDIA's runtime and the low-level runtimes BEHIND it. Their folder, "" for none."""
    folder = program_path.with_name(f"{program_path.name}.d")
    if behind and ":" in str(folder):
        raise RefusalError(f"{folder} can't stand in a search path: it has a colon; take another place for the program")
    for name, runtime in behind.items():
        write_whole(folder / name, program(values, config_path, runtime, leave=str(folder)), 0o755)
    keep_programs(folder, behind)
    return str(folder) if behind else ""


def is_nvidia(values: dict[str, Any]) -> bool:
    """Whether `runtime` is NVIDIA's, or "behind_nvidia" says that it edits containers as that does."""
    names = (os.path.basename(path) for path in (values["runtime"], os.path.realpath(values["runtime"])))
    return bool(values.get("behind_nvidia")) or any("nvidia-container-runtime" in name for name in names)


def runtimes_behind(values: dict[str, Any]) -> dict[str, str]:
    """The low-level runtimes that NVIDIA's runtime, if it is the configured one, may start, by the names by which it
    looks for them.
    """
    if not is_nvidia(values):
        return {}
    search = ":".join(PROGRAM_FOLDERS)
    found = {name: shutil.which(name, path=search) for name in BEHIND_NVIDIA}
    there = {name: path for name, path in found.items() if path}
    there |= {os.path.basename(path): path for path in values.get("behind_nvidia", [])}
    for path in there.values():
        if not os.access(path, os.X_OK):
            raise RefusalError(f'{path} can\'t be started; install it, or mend "behind_nvidia" in the configuration')
    if not there:
        raise RefusalError(
            f"{values['runtime']} needs a low-level runtime behind it, and this host has none of "
            f'{", ".join(BEHIND_NVIDIA)}; install one, or name it as "behind_nvidia" in the configuration',
        )
    return there


def keep_programs(folder: Path, names: Collection[str]) -> None:
    """Remove all but NAMES, which an earlier configuration had, from the second stage's folder."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name not in names:
                path.unlink()
        if not names:
            folder.rmdir()


def program(values: dict[str, Any], configuration: Path, runtime: str, *, enter: str = "", leave: str = "") -> str:
    """The text of the registered program, or of one in the second stage's folder (shim.main)."""
    return PROGRAM.format(
        interpreter=interpreter(values["hook"]),
        folders=folders(),
        configuration=str(configuration),
        runtime=runtime,
        more=(f", enter={enter!r}" if enter else "") + (f", leave={leave!r}" if leave else ""),
    )


def installation_of(program_path: Path) -> str:
    """The folder of the installation whose configure wrote the program; "" where none did."""
    try:
        text = read_regular(str(program_path), LARGEST).decode()
        (named,) = re.findall(r"^sys\.path \+= (\[.*\])$", text, re.MULTILINE)
        return home_of(Path(ast.literal_eval(named)[0]))
    except (OSError, ValueError, SyntaxError, IndexError, TypeError):
        return ""


def home_of(folder: Path) -> str:
    """The same for all versions of the package, in which our modules lie in FOLDER."""
    return str(HOME if folder.parent == HOME.resolve() else folder)


def folders() -> list[str]:
    """In which our modules lie, and those of others that a look at the host needs."""
    specs = [importlib.util.find_spec(name) for name in OF_A_LOOK]
    found = [spec.origin for spec in specs if spec and spec.origin]
    tops = [Path(path).parent.parent if Path(path).name == "__init__.py" else Path(path).parent for path in found]
    # What a link leads to now, which in a package is another version's after an upgrade.
    return list(dict.fromkeys(str(top.resolve()) for top in (PACKAGE.parent, *tops)))


def interpreter(hook: str) -> str:
    """What follows #!: runai-launch beside the hook; Python itself where its path can't stand there (the kernel takes
    no blanks, and 255 characters at most).
    """
    launcher = Path(hook).with_name("runai-launch")
    fits = launcher.is_file() and len(str(launcher)) < 250 and not set(str(launcher)) & set(" \t\n")
    return str(launcher) if fits else "/usr/bin/python3 -IS"
