"""What differs where a distribution's package installed us, and what its maintainer scripts have done (packaging/).

The package's own files lie in HOME/package, which an upgrade replaces. What is used lies in HOME/VERSION-HASH: links of
those files, which no upgrade touches. So a container that runs finds hook and agent of the version that made it where
they were, and the program that docker starts, HOME/runai-runtime, is the same path in daemon.json for all versions.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from runai_runtime.errors import RefusalError
from runai_runtime.host import DEFAULT_PATH, Host
from runai_runtime.registration import DAEMON_JSON, Registration

PACKAGE = Path(__file__).resolve().parent
HOME = Path("/usr/lib/runai-runtime")  # perhaps a link: PACKAGE is below what it leads to
UNPACKED = "package"
COMMANDS = ("runai-ctl", "runai-docker")
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"  # of root's shell
LARGEST_PROGRAM = 1 << 16  # bytes; ours has a few hundred


def is_from_package() -> bool:
    return PACKAGE.parent.parent == HOME.resolve()


def default_program() -> Path:
    return (HOME if is_from_package() else Path("/usr/local/bin")) / "runai-runtime"


def version() -> str:
    """Of this installation. A package has it in the name of its folder, and carries no metadata of the wheel."""
    if is_from_package():
        return PACKAGE.parent.name.rpartition("-")[0]
    from importlib import metadata

    return metadata.version("runai-runtime")


DEFAULT_PROGRAM = default_program()


def main() -> None:
    """What a maintainer script names: `installed` with the folder of the version before, if there is one, or `removed`.
    Prints sentences. Exits 1 where a removal can't be: an upgrade is done in any case.
    """
    steps = {"installed": installed, "removed": removed}
    try:
        steps[sys.argv[1]](Path(DEFAULT_PATH), *sys.argv[2:])
    except Exception as error:  # noqa: BLE001 - dpkg's user reads it
        sys.stderr.write(f"runai-runtime: {sentence_of(error)}\n")
        sys.exit(1)


def sentence_of(error: Exception) -> str:
    return str(error) if isinstance(error, (RefusalError, OSError)) else f"{type(error).__name__}: {error}"


def installed(config: Path, before: str = "") -> None:
    """Set the host up again for this version, if it was set up before. Where that fails, the version before goes on,
    whose folder in HOME is BEFORE.
    """
    from runai_runtime.configure import NO_AGENT, configure, read_values
    from runai_runtime.host import read_host

    for sentence in hidden():
        sys.stdout.write(f"runai-runtime: {sentence}\n")
    try:
        program = recorded(config).program
        if not program.exists():
            sys.stdout.write("runai-runtime: set this host up with: runai-ctl configure\n")
            return
        keep = [before, *named_by([program])]
        for fault in configure(read_values(config), config, program):
            sys.stdout.write(f"runai-runtime: {NO_AGENT}: {fault}\n")
        with suppress(RefusalError):  # for a damaged daemon.json: nobody knows all programs then
            forget_older(read_host(str(config)), [*keep, *named_by(known_programs(config))])
    except Exception as error:  # noqa: BLE001 - dpkg's user reads it
        sys.stderr.write(f"runai-runtime: this host is still set up for the version before: {sentence_of(error)}\n")
        sys.stderr.write("runai-runtime: mend that, and set it up again with: runai-ctl configure\n")


def hidden() -> list[str]:
    """What hides the package's commands: those of another installation that a shell finds first."""
    found = [shutil.which(name, path=USUAL_PATH) for name in COMMANDS]
    before = [path for path in found if path and not path.startswith("/usr/bin/")]
    if not before:
        return []
    verb = "comes" if len(before) == 1 else "come"
    return [f"{' and '.join(before)} of another installation {verb} before /usr/bin on PATH: rm {' '.join(before)}"]


class Registered(NamedTuple):
    """What configure has registered, or would."""

    name: str
    program: Path
    daemon: Path


def recorded(config: Path, name: str = "", program: Path | None = None, daemon: Path | None = None) -> Registered:
    """What configure has registered for CONFIG, or would: NAME, PROGRAM and DAEMON where they are given, else as the
    host was set up before. Raises RefusalError for a damaged record of that.
    """
    record = Registration.beside(config, DAEMON_JSON).record() or {}
    return Registered(
        name or record.get("name", "runai"),
        (program or Path(record.get("program", DEFAULT_PROGRAM))).absolute(),
        (daemon or Path(record.get("daemon", DAEMON_JSON))).absolute(),
    )


def known_programs(config: Path) -> list[Path]:
    """What dockerd may start as a runtime: the program that is registered, and those of another configuration."""
    _, program, daemon = recorded(config)
    return [program, *Registration.beside(config, daemon).programs()]


def versions() -> list[Path]:
    """The folders of all versions that are there."""
    there = HOME.iterdir() if HOME.is_dir() else ()
    folders = [folder for folder in there if folder.name != UNPACKED and not folder.is_symlink()]
    return [folder for folder in folders if (folder / PACKAGE.name).is_dir()]


def named_by(programs: Iterable[Path]) -> list[str]:
    """The folders of versions that the PROGRAMS name."""
    texts = []
    for program in programs:
        with suppress(OSError), program.open("rb") as file:
            texts.append(file.read(LARGEST_PROGRAM).decode("utf-8", "replace"))
    return [folder.name for folder in versions() if any(f"/{folder.name}/" in text for text in texts)]


def forget_older(host: Host, keep: Iterable[str]) -> None:
    """Remove what versions have left but for this one and KEEP, unless a container with a share runs, which may be one
    of theirs. The version before is always to be kept: it may be making a container, which has no grant yet.
    """
    from runai_runtime.unconfigure import with_share

    if with_share(host):
        return
    for folder in versions():
        if folder.resolve() != PACKAGE.parent and folder.name not in keep:
            shutil.rmtree(folder, ignore_errors=True)


def removed(config: Path) -> None:
    """Undo runai-ctl configure before the package goes, but for the configuration, which stays for a later one. Raises
    RefusalError where containers run on it, or docker has it as the default and doesn't take another.
    """
    from runai_runtime.unconfigure import unconfigure

    name, program, daemon = recorded(config)
    registration = Registration.beside(config, daemon)
    if not config.exists() and registration.record() is None:
        return
    stop = "stop them first, with docker stop"
    left = unconfigure(config, program, registration, name, force=False, keep_configuration=True, in_use=stop)
    for sentence in left:
        sys.stdout.write(f"runai-runtime: {sentence}\n")
