"""The engine that runs: which runtimes it has, and having it read daemon.json again.

At a reload dockerd takes a key's value where the key stands in the file, and keeps what it has where it doesn't. So a
runtime that is only taken out of the file stays in its memory, as its default too, until it is restarted.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from typing import NamedTuple

from runai_runtime.engine import socket_path
from runai_runtime.errors import RefusalError, reason

ANSWER_SECONDS = 20  # an engine that takes longer for an answer hangs
START_SECONDS = 120  # systemd gives up itself before, unless it hangs
READ_SECONDS = 15.0  # until docker info has to show what a reload or a restart has read
PAUSE_SECONDS = 0.1
RUNTIMES = "{{json .DefaultRuntime}}\n{{json .Runtimes}}"


class Runtimes(NamedTuple):
    """Of the engine that runs: the one of containers that name none, and all names."""

    default: str
    names: frozenset[str]


def runtimes() -> Runtimes | None:
    """None where there is no engine. Raises RefusalError where one is there and doesn't say."""
    docker = shutil.which("docker")
    if not docker:
        return None
    done = said(docker, "info", "--format", RUNTIMES)
    try:
        default, names = map(json.loads, done.stdout.splitlines())
        if done.returncode == 0 and default:  # without an engine some clients print empty values
            return Runtimes(default, frozenset(names or ()))
    except ValueError:
        pass
    if not is_engine_there():
        return None
    why = " ".join(done.stderr.split()) or "it is empty"
    raise RefusalError(f"docker info doesn't say which runtimes docker has: {why}")


def have_read(verb: str) -> None:
    """Have dockerd read daemon.json, VERB being reload, which no container notices, or restart. Raises RefusalError."""
    systemctl = shutil.which("systemctl")
    if not systemctl:
        raise RefusalError(f"docker didn't {verb}: there is no systemctl on PATH; have it read daemon.json by hand")
    command = [systemctl, verb, "docker"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise RefusalError(f"docker didn't {verb} in {START_SECONDS} s; see journalctl -u docker") from error
    if done.returncode:
        raise RefusalError(f"docker didn't {verb}: {' '.join(done.stderr.split())}; see journalctl -u docker")


def see_forgotten(name: str) -> None:
    """Wait until docker info hasn't the runtime NAME any more. Raises RefusalError after READ_SECONDS."""
    until = time.monotonic() + READ_SECONDS
    while True:
        with suppress(RefusalError):  # one that starts anew doesn't answer at first
            found = runtimes()
            if found and name != found.default and name not in found.names:
                return
        if time.monotonic() > until:
            raise RefusalError(f"docker info still has the runtime {name} {READ_SECONDS:.0f} s after that")
        time.sleep(PAUSE_SECONDS)


def is_engine_there() -> bool:
    """Whether anybody listens where docker's client asks. An engine that isn't at a socket counts as there."""
    path = socket_path()
    if not path:
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def said(docker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([docker, *arguments], capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise unanswered(f"no answer in {ANSWER_SECONDS} s") from error
    except OSError as error:
        raise unanswered(reason(error)) from error


def unanswered(why: str) -> RefusalError:
    said_why = " ".join(why.split())
    return RefusalError(
        f"docker doesn't say what runs on it: {said_why}; mend it first, or runai-ctl unconfigure --force"
    )
