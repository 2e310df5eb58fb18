"""The command runai-docker."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from runai_runtime.docker.words import Option

USAGE, NOT_FOUND = 125, 127  # docker's own exit status for a command line that it refuses; a shell's
COMMANDS = (["run"], ["create"], ["container", "run"], ["container", "create"])
DRY_RUN, HELP = OURS = ("--dry-run", "--help")


def main() -> None:
    """Become docker, with the container's share in its words."""
    arguments = sys.argv[1:]
    docker = find_docker()
    # Almost every command is docker's alone, and its options needn't be known.
    if not concerns_us(arguments):
        become(docker, arguments)
    from runai_runtime.docker.words import UsageError
    from runai_runtime.errors import RefusalError

    try:
        become(docker, *translated(docker, arguments))
    except RefusalError as refusal:
        fail(f"{' '.join(str(refusal).split())}", USAGE)
    except UsageError as error:
        fail(f"{error}; see runai-docker run --help", USAGE)
    except OSError as error:
        fail(f"{docker} can't be asked for its options: {error.strerror}; see whether it works", USAGE)


def concerns_us(arguments: list[str]) -> bool:
    """Whether ARGUMENTS may have an option of ours, or ask for help."""
    return not arguments or any(
        word.startswith("--gpu-memory") or word in (HELP, "help", DRY_RUN) for word in arguments
    )


def translated(docker: str, arguments: list[str]) -> tuple[list[str], bool]:
    """Docker's arguments for ours, and whether to show them only. Prints help, and ends, where that is asked for."""
    from runai_runtime.docker.options import options_of
    from runai_runtime.docker.request import VARIABLES, with_request
    from runai_runtime.docker.words import split

    first, rest = split(arguments, options_of(docker, [], []) | dict.fromkeys(OURS, False))
    before = words_of(first)
    if not rest or (rest[0] == "help" and rest[1:] in ([], *COMMANDS)):
        print_help(docker, [*before, *rest[1:]])
    command = next((command for command in COMMANDS if rest[: len(command)] == command), None)
    if command is None:
        return [*before, *rest], asks(first, DRY_RUN)
    known = options_of(docker, before, command)
    options, rest = split(rest[len(command) :], dict.fromkeys(OURS, False) | dict.fromkeys(VARIABLES, True) | known)
    if asks(options, HELP):
        print_help(docker, [*before, *command])
    kept = options if DRY_RUN in known else [option for option in options if option.name != DRY_RUN]
    dry_run = asks(first, DRY_RUN) or len(kept) < len(options)
    return [*before, *command, *with_request(kept, known), *rest], dry_run


def asks(options: list[Option], name: str) -> bool:
    return any(option.name == name for option in options)


def words_of(options: list[Option]) -> list[str]:
    return [word for option in options if option.name not in OURS for word in option.words]


def print_help(docker: str, words: list[str]) -> NoReturn:
    from runai_runtime.docker.options import help_of
    from runai_runtime.docker.usage import ABOUT, with_ours

    done = help_of(docker, words)
    text = with_ours(done.stdout) if words[-1:] in (["run"], ["create"]) else done.stdout + ABOUT
    sys.stdout.write(text if done.returncode == 0 else done.stdout)
    sys.stderr.write(done.stderr)
    sys.exit(done.returncode)


def find_docker() -> str:
    """The docker that is meant: $RUNAI_DOCKER, or the first on PATH that isn't this program under its name."""
    wanted = os.environ.get("RUNAI_DOCKER") or "docker"
    myself = os.path.realpath(sys.argv[0])
    paths = [wanted] if "/" in wanted else [os.path.join(folder, wanted) for folder in os.get_exec_path()]
    for path in paths:
        if os.access(path, os.X_OK) and os.path.isfile(path) and os.path.realpath(path) != myself:
            return path
    if "/" in wanted:
        fail(f"{wanted} can't be started; see $RUNAI_DOCKER", NOT_FOUND)
    return fail(f"there is no {wanted} on PATH; install it, or name another in $RUNAI_DOCKER", NOT_FOUND)


def become(docker: str, arguments: list[str], dry_run: bool = False) -> NoReturn:
    if dry_run:
        import shlex

        sys.stdout.buffer.write(os.fsencode(shlex.join(["docker", *arguments]) + "\n"))
        sys.stdout.flush()
        sys.exit(0)
    try:
        os.execv(docker, ["docker", *arguments])
    except OSError as error:
        fail(f"{docker} can't be started: {error.strerror}; see RUNAI_DOCKER and PATH", NOT_FOUND)


def fail(sentence: str, status: int) -> NoReturn:
    sys.stderr.write(f"runai-docker: {sentence}\n")
    sys.exit(status)
