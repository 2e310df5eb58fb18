"""The OCI runtime that docker starts: looks for a request, edits the container for it, and becomes the real runtime.

Docker starts it four times for one `docker run`, so it imports as little as it can: what only a container with a share
needs is imported where it is needed. It never writes to stdout or stderr (they may be the container's own) and never
waits for another program: it replaces itself.
"""

import posix  # what os is made of, without its 1.5 ms
import sys

from runai_runtime.commandline import INSPECTED, CommandLine
from runai_runtime.errors import RefusalError, log_line


def main(configuration: str, runtime: str, *, enter: str = "", leave: str = "") -> None:
    """Be RUNTIME, the low-level runtime, for a container edited as CONFIGURATION says. Does not return.

    ENTER: where RUNTIME is NVIDIA's, the folder in which it is to find our second stage under the names of low-level
    runtimes (configure.py). LEAVE: that same folder, for a program in it.
    """
    log = ""
    try:
        line = CommandLine(sys.argv[1:])
        log = line.log
        if line.command in INSPECTED:
            inspect(line, configuration, runtime, enter)
        become(runtime, sys.argv[1:], search_path(enter, leave))
    except RefusalError as refusal:
        fail(str(refusal), log)
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        fail(f"an error that nobody expected ({type(error).__name__}: {error}); please report it", log)


def inspect(line: CommandLine, configuration: str, runtime: str, enter: str) -> None:
    """Give the container its share if it asks for one; refuse what can't be done with a share."""
    if line.command == "checkpoint":
        from runai_runtime.prepare import refuse_checkpoint

        refuse_checkpoint(line, configuration)
        return
    path = f"{line.bundle}/config.json"
    text = read_regular(path)
    # Almost every container asks for nothing: no need to parse what doesn't even hold the name. (JSON can also write
    # a letter as \u00xx.)
    if text is not None and (b"RUNAI_" in text or b"\\u00" in text):
        from runai_runtime.prepare import guard, prepare

        if enter:
            guard(line, configuration, path, text, enter)
        else:
            prepare(line, configuration, path, text, runtime)


def read_regular(path: str) -> bytes | None:
    """The content of a regular file; None if there is none: the real runtime says that better."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        is_regular = posix.fstat(descriptor).st_mode & 0o170000 == 0o100000
        return file.read() if is_regular else None


def search_path(enter: str, leave: str) -> dict[bytes, bytes]:
    """The environment, in which programs are looked for in the folder ENTER first, and in LEAVE no more."""
    if not enter and not leave:
        return posix.environ
    first, never = (folder.encode(errors="surrogateescape") for folder in (enter, leave))
    # An empty entry would be the working directory, which is the bundle.
    rest = [folder for folder in posix.environ.get(b"PATH", b"").split(b":") if folder not in (b"", first, never)]
    return posix.environ | {b"PATH": b":".join([first, *rest] if first else rest)}


def become(runtime: str, arguments: list[str], environment: dict[bytes, bytes]) -> None:
    try:
        posix.execve(runtime, [runtime, *arguments], environment)
    except OSError as error:
        from runai_runtime.errors import reason

        raise RefusalError(
            f"the low-level runtime {runtime} can't be started: {reason(error)}; install it, or name another one with "
            "runai-ctl configure",
        ) from error


def fail(sentence: str, log: str) -> None:
    """Say SENTENCE where the caller looks for it (docker shows the log's last error to the person), and end."""
    if not (log and log_line(log, "error", sentence)):
        posix.write(2, f"runai: {' '.join(sentence.split())}\n".encode("utf-8", "replace"))
    sys.exit(1)
