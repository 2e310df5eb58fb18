"""What differs where a distribution's package installed us, and what its maintainer scripts have done (packaging/).

The package's own files lie in HOME/package, which an upgrade replaces. What is used lies in HOME/VERSION-HASH: links of
those files, which no upgrade touches. So a container that runs finds hook and agent of the version that made it where
they were, and the program that docker starts, HOME/runai-runtime, is the same path in daemon.json for all versions.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from runai_runtime.errors import RefusalError
from runai_runtime.host import DEFAULT_PATH, Host
from runai_runtime.registration import DAEMON_JSON, Registration

PACKAGE = Path(__file__).resolve().parent
HOME = Path("/usr/lib/runai-runtime")
UNPACKED = "package"
DEFAULT_PROGRAM = (HOME if PACKAGE.parent.parent == HOME else Path("/usr/local/bin")) / "runai-runtime"


def main() -> None:
    """What a maintainer script names: `installed` or `removed`. Prints sentences, and exits 1 for a refusal."""
    steps = {"installed": installed, "removed": removed}
    try:
        steps[sys.argv[1]](Path(DEFAULT_PATH))
    except RefusalError as refusal:
        sys.stderr.write(f"runai-runtime: {refusal}\n")
        sys.exit(1)


def installed(config: Path) -> None:
    """Set the host up again for this version, if it was set up before. Where that fails, the version before goes on."""
    from runai_runtime.configure import configure, read_values
    from runai_runtime.host import read_host

    try:
        program = registered(config).program
        if not program.exists():
            sys.stdout.write("runai-runtime: set this host up with: runai-ctl configure\n")
            return
        configure(read_values(config), config, program)
        forget_others(read_host(str(config)))
    except (RefusalError, OSError) as error:
        sys.stderr.write(f"runai-runtime: this host is still set up for the version before: {error}\n")
        sys.stderr.write("runai-runtime: mend that, and set it up again with: runai-ctl configure\n")


class Registered(NamedTuple):
    """What configure has registered, or would."""

    name: str
    program: Path
    daemon: Path


def registered(config: Path) -> Registered:
    record = Registration(config.with_name("registration.json"), DAEMON_JSON).record() or {}
    program, daemon = record.get("program", DEFAULT_PROGRAM), record.get("daemon", DAEMON_JSON)
    return Registered(record.get("name", "runai"), Path(program), Path(daemon))


def forget_others(host: Host) -> None:
    """Remove what other versions have left, unless a container with a share runs, which may be one of theirs."""
    from runai_runtime.unconfigure import with_share

    if with_share(host):
        return
    for folder in HOME.iterdir():
        is_version = (folder / PACKAGE.name).is_dir() and folder.name != UNPACKED and not folder.is_symlink()
        if is_version and folder != PACKAGE.parent:
            shutil.rmtree(folder, ignore_errors=True)


def removed(config: Path) -> None:
    """Undo runai-ctl configure before the package goes, but for the configuration, which stays for a later one. Raises
    RefusalError where containers run on it.
    """
    from runai_runtime.files import write_whole
    from runai_runtime.host import read_host
    from runai_runtime.unconfigure import refuse_in_use, unconfigure

    name, program, daemon = registered(config)
    text = config.read_text(encoding="utf-8") if config.exists() else None
    refuse_in_use(read_host(str(config)) if text else None, name, "stop them first, with docker stop")
    registration = Registration(config.with_name("registration.json"), daemon)
    for sentence in unconfigure(config, program, registration, name, force=True):
        sys.stdout.write(f"runai-runtime: {sentence}\n")
    if text:
        write_whole(config, text, 0o644)
