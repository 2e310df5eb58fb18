"""Which options docker has, and which of them take a value: from docker's own help, so that new ones are known.

The answers are kept in the user's cache folder, by what they depend on: the client (its file, or what it says of its
version where the file is a script or a starter) and the engine that it talks to (docker hides what that can't do).
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# As pflag writes it: two blanks before a short name, six before a long one without; the type of a value after one
# blank; [=...] after a type whose value may be left out.
LINE = re.compile(r"^ {2,6}(?:(-\w), )?(--[\w-]+)(?: (\S+))?(?:  |$)")

# docker/cli has older names of some options that its help doesn't tell (cli/command/container/opts.go).
HIDDEN = {"--dns-opt": True, "--net": True, "--net-alias": True}

ENGINE = ("DOCKER_API_VERSION", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_HOST")  # variables that choose it
LARGEST = 1 << 20  # bytes of a cached answer


def read(text: str) -> dict[str, bool]:
    """Whether each option, with its dashes, of the help TEXT takes a value."""
    found: dict[str, bool] = {}
    for line in text.splitlines():
        match = LINE.match(line)
        if match:
            short, long, kind = match.groups()
            takes = kind is not None and "[=" not in kind
            found |= {name: takes for name in (short, long) if name}
    return found


def help_of(docker: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """`docker WORDS --help`, run."""
    command = ["docker", *words, "--help"]
    return subprocess.run(
        command, executable=docker, capture_output=True, text=True, errors="surrogateescape", check=False
    )


def options_of(docker: str, before: list[str], command: list[str]) -> dict[str, bool]:
    """The options of `docker BEFORE COMMAND`: whether each takes a value. BEFORE are options of docker itself, which
    may name another engine. {} where docker has no help for that.
    """
    path = cache_path()
    key = key_of(docker, [*before, *command]) if path else None
    path = os.path.join(path, f"{'-'.join(command) or 'docker'}.json") if path else ""
    known = read_cached(path, key)
    if known is None:
        known = read(help_of(docker, [*before, *command]).stdout)
        known |= HIDDEN if "--network" in known else {}
        if known and path:
            write_cached(path, key, known)
    return known


def key_of(docker: str, words: list[str]) -> list[Any]:
    real = os.path.realpath(docker)
    status = os.stat(real)
    config = os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json")
    chosen = os.stat(config).st_mtime_ns if os.path.exists(config) else 0  # `docker context use` writes there
    version = [real, status.st_ino, status.st_size, status.st_mtime_ns, version_of_starter(docker, real)]
    return [*version, words, chosen, *(os.environ.get(name, "") for name in ENGINE)]


def version_of_starter(docker: str, real: str) -> str:
    """What a client says of itself whose file may stay the same over versions: a script, or snap."""
    with open(real, "rb") as file:
        is_program = file.read(4) == b"\x7fELF"
    if is_program and os.path.basename(real).startswith(("docker", "podman")):
        return ""
    command = ["docker", "--version"]
    return subprocess.run(command, executable=docker, capture_output=True, text=True, check=False).stdout


def cache_path() -> str:
    """The folder for the answers; "" for a user who has none."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "runai-docker") if os.path.isabs(home) else ""


def read_cached(path: str, key: list[Any] | None) -> dict[str, bool] | None:
    """Only what this user wrote counts: under sudo the folder may be somebody else's."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > LARGEST:
                return None
            answer = json.loads(file.read(LARGEST))
        known: dict[str, bool] = answer["options"]
        return known if answer["key"] == key and all(type(takes) is bool for takes in known.values()) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_cached(path: str, key: list[Any] | None, known: dict[str, bool]) -> None:
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(temporary, "x", encoding="utf-8") as file:
            json.dump({"key": key, "options": known}, file)
        os.replace(temporary, path)
    except OSError:
        return  # the next command asks docker again
