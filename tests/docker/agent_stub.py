"""Stands in for runai-agent: answers every call with CONTINUE, and writes what it was started with and asked.

It ends with the last process under a filter that was handed over, as the agent does.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.docker.listener import Listener


def main() -> None:
    folder, detached = Path(sys.argv[1]), sys.argv[2:] == ["detached"]
    if detached and os.fork():
        os._exit(0)
    links = {int(fd): os.readlink(f"/proc/self/fd/{fd}") for fd in range(5)}
    control = socket.socket(fileno=4)
    started = {
        "folder": str(folder),
        "descriptors": links,
        "environment": dict(os.environ),
        "session": detached and os.getsid(0) == os.getpgid(0),
        "control": control.getsockname(),
    }
    (folder / "agent.log").write_text(json.dumps(started))
    listener = Listener(socket.socket(fileno=3))
    threading.Thread(target=listener.serve, daemon=True).start()
    listener.ended.wait()


main()
