"""The OCI runtime that docker starts: looks for a request, edits the container for it, and becomes the real runtime.

Docker starts it four times for one `docker run`, so it imports as little as it can: what only a container with a share
needs is imported where it is needed. It never writes to stdout or stderr (they may be the container's own) and never
waits for another program: it replaces itself.
"""

import posix  # what os is made of, without its 1.5 ms
import sys

from runai_runtime.commandline import INSPECTED, CommandLine
from runai_runtime.errors import RefusalError, log_line

LARGEST_CONFIG = 64 << 20  # bytes of a container's config.json


def main(configuration: str, runtime: str, *, enter: str = "", leave: str = "") -> None:
    """Be RUNTIME, the low-level runtime, for a container edited as CONFIGURATION says. Does not return.

    ENTER: where RUNTIME is NVIDIA's, the folder in which it is to find our second stage under the names of low-level
    runtimes (configure.py). LEAVE: that same folder, for a program in it.
    """
    line = None
    try:
        line = CommandLine(sys.argv[1:])
        if line.command in INSPECTED:
            inspect(line, configuration, runtime, enter, leave)
        become(runtime, sys.argv[1:], search_path(enter, leave))
    except RefusalError as refusal:
        fail(str(refusal), line, configuration)
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        fail(f"an error that nobody expected ({type(error).__name__}: {error}); please report it", line, configuration)


def inspect(line: CommandLine, configuration: str, runtime: str, enter: str, leave: str) -> None:
    """Give the container its share if it asks for one; refuse what can't be done with a share."""
    if line.command == "checkpoint":
        from runai_runtime.prepare import refuse_checkpoint

        refuse_checkpoint(line, configuration)
        return
    path = f"{line.bundle}/config.json"
    try:
        text = read_regular(path, LARGEST_CONFIG)
    except OSError:
        return  # the real runtime says that better
    if is_looked_into(text, enter, leave):
        from runai_runtime.prepare import guard, prepare

        if enter:
            guard(line, configuration, path, text, enter)
        else:
            prepare(line, configuration, path, text, runtime)


def is_looked_into(text: bytes, enter: str, leave: str) -> bool:
    """Whether a config.json that reads TEXT may ask for a share or give a GPU. Almost none does, and need not be
    parsed. ENTER and LEAVE as in main(). A search takes 10 to 20 us, one for a single byte 1.
    """
    if b"RUNAI_" in text:
        return True
    if b"\\" in text and (b"\\u00" in text or b"\\/" in text):  # JSON can also write a letter like that
        return True
    # NVIDIA's device nodes and hook; in the first of two stages whatever NVIDIA's runtime looks for.
    if b"nvidia" in text and (enter or b"/dev/nvidia" in text or b"nvidia-container" in text):
        return True
    if b"195," in text and (b":195," in text or b": 195," in text):  # such a node by its number
        return True
    if enter and (b"NVIDIA_VISIBLE_DEVICES" in text or b"CUDA_VERSION" in text):
        return True
    return leave != "" and b"runai-hook" in text  # what the first stage put in


def read_regular(path: str, largest: int) -> bytes:
    """The content of a regular file of LARGEST bytes at most. Raises RefusalError for what is no such file (a FIFO
    would never end), OSError as open does.
    """
    descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
    with open(descriptor, "rb") as file:
        status = posix.fstat(descriptor)
        if status.st_mode & 0o170000 != 0o100000:
            raise RefusalError(f"{path} is no regular file; see who made it")
        if status.st_size > largest:
            raise RefusalError(f"{path} has {status.st_size} bytes, and more than {largest} can't be right")
        return file.read(largest + 1)


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


def fail(sentence: str, line: CommandLine | None, configuration: str) -> None:
    """Say SENTENCE where the caller looks for it (docker shows the log's last error to the person), and end."""
    from runai_runtime.hostlog import note_error

    note_error(configuration, sentence, line.container if line else "")
    if not (line and line.log and log_line(line.log, "error", sentence)):
        posix.write(2, f"runai: {' '.join(sentence.split())}\n".encode("utf-8", "replace"))
    sys.exit(1)
