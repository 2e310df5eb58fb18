"""The host's own log (`log` in the configuration): what the shim says about all containers, in one file."""

from __future__ import annotations

import json
import os
import stat
import time


def note(path: str, level: str, sentence: str, container: str = "") -> None:
    """SENTENCE at the end of the log at PATH ("": there is none), as runc writes its own. Never fails and never waits:
    no container hangs on a full disk or on what somebody put in the file's place.
    """
    if not path:
        return
    entry = {"level": level, "msg": f"runai: {' '.join(sentence.split())}"}
    entry["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if container:
        entry["id"] = container
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError:
        return
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            # One write a line: containers that start at once don't mix theirs.
            os.write(descriptor, (json.dumps(entry) + "\n").encode())
    except OSError:
        pass
    finally:
        os.close(descriptor)


def note_error(configuration: str, sentence: str, container: str = "") -> None:
    """SENTENCE in the log that the file CONFIGURATION names; a damaged one has none."""
    from runai_runtime.errors import RefusalError
    from runai_runtime.host import read_host

    try:
        note(read_host(configuration).log, "error", sentence, container)
    except RefusalError:
        return
