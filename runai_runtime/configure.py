"""Setting a host up: the configuration, the program that daemon.json registers, and the cached inventory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from runai_runtime.errors import RefusalError
from runai_runtime.host import check, read_host
from runai_runtime.inventory import forget_cache, scan_in_child
from runai_runtime.plan import OURS
from runai_runtime.verify import refuse_faults

PACKAGE = Path(__file__).resolve().parent
NATIVE = PACKAGE / "native"

# The first line starts runai-launch, which hands what needs no look to the low-level runtime at once, and the rest to
# Python with this same file. Python's options there: -I: no environment variable and no folder of the user's has a
# say; -S: no site-packages, whose start-up files cost more than all the rest. The package's folder comes last, so that
# nothing beside it hides a standard module.
PROGRAM = """\
#!{interpreter}
# Written by runai-ctl configure. docker starts this as an OCI runtime.
# runtime={runtime}
import sys

sys.path.append({folder!r})
from runai_runtime.shim import main

main({configuration!r}, {runtime!r})
"""


def defaults() -> dict[str, Any]:
    """The configuration of a host with Debian's runc, for the libraries and the hook of this package."""
    return {
        "runtime": "/usr/sbin/runc",
        "hook": str(NATIVE / "runai-hook"),
        "libvgpu": str(NATIVE),
        "fitted": "/var/lib/runai-runtime",
    }


def configure(config: dict[str, Any], config_path: Path, program_path: Path) -> None:
    """Write CONFIG (what it leaves out is as in defaults) to CONFIG_PATH and the registered program to PROGRAM_PATH,
    and scan the host. Raises RefusalError when something that is needed is missing, or our libraries are damaged.
    """
    values = defaults() | config
    fault = check(values)
    if fault:
        raise RefusalError(f"the configuration can't be used: {fault}")
    for path in (values["runtime"], values["hook"], *(f"{values['libvgpu']}/{name}" for name in OURS)):
        if not os.path.isfile(path):
            raise RefusalError(f"{path} is missing; install it, or name another place in the configuration")
    refuse_faults(values["libvgpu"])
    write(config_path, json.dumps(values, indent=4) + "\n", 0o644)
    host = read_host(str(config_path))
    forget_cache(host)
    scan_in_child(host)
    write(program_path, program(values, str(config_path)), 0o755)


def program(values: dict[str, Any], configuration: str) -> str:
    """The text of the registered program."""
    return PROGRAM.format(
        interpreter=interpreter(values["hook"]),
        folder=str(PACKAGE.parent),
        configuration=configuration,
        runtime=values["runtime"],
    )


def interpreter(hook: str) -> str:
    """What follows #!: runai-launch beside the hook; Python itself where its path can't stand there (the kernel takes
    no blanks, and 255 characters at most).
    """
    launcher = Path(hook).with_name("runai-launch")
    fits = launcher.is_file() and len(str(launcher)) < 250 and not set(str(launcher)) & set(" \t\n")
    return str(launcher) if fits else "/usr/bin/python3 -IS"


def write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(mode)
    temporary.replace(path)
