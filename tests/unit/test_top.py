"""runai-ctl top in a real terminal, of made-up grants: what is on it, also when its size changes, and how it ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runai_runtime.containers import SHORT
from runai_runtime.grant import MIB, Share, write_grant
from runai_runtime.host import Host, read_host
from runai_runtime.inventory import Gpu

GPUS, CONTAINERS = 8, 40
# A host whose GPUs nobody looks for: there is no driver here.
START = """
import json, sys
from runai_runtime import overview, top
from runai_runtime.host import read_host
from runai_runtime.inventory import Inventory
from runai_runtime.terminal import console
gpus = json.loads(sys.argv[2])
overview.read_inventory = lambda host: Inventory(
    {"driver": "580", "gpus": gpus, "libraries": [], "programs": [], "ours": {}}
)
try:
    top.run_top(read_host(sys.argv[1]), console(), "name", 600, once=False)
except KeyboardInterrupt:
    print("interrupted")
"""


def gpu(index: int) -> dict[str, object]:
    values = {"index": index, "uuid": f"GPU-{index}", "name": "NVIDIA H100 80GB HBM3", "minor": index}
    return values | {"total": 81559 * MIB, "reserved": 480 * MIB, "context": 0}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    values = {"runtime": "/r", "hook": "/h", "libvgpu": "/l", "state": str(tmp_path / "s")}
    (tmp_path / "config.json").write_text(json.dumps(values))
    host = read_host(str(tmp_path / "config.json"))
    for number in range(CONTAINERS):
        share = Share(Gpu(gpu(number % GPUS)), 1000 * MIB, 1000 * MIB)
        write_grant(host, f"{number:02x}" * 32, "/nowhere", [share], "", {})
    return host


class Terminal:
    """A terminal of COLUMNS and LINES with `top` on it."""

    def __init__(self, host: Host, columns: int, lines: int) -> None:
        self.end, other = pty.openpty()
        self.resize(columns, lines)
        environment = {"TERM": "xterm", "LANG": "C.UTF-8", "DOCKER_HOST": "unix:///nowhere", "NO_COLOR": "1"}
        command = [sys.executable, "-c", START, host.path, json.dumps([gpu(index) for index in range(GPUS)])]
        self.process = subprocess.Popen(
            ["/usr/bin/setsid", "--ctty", *command], env=environment, stdin=other, stdout=other, stderr=other
        )
        os.close(other)
        os.set_blocking(self.end, False)

    def resize(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def read(self, last: str) -> str:
        """What is written, until LAST is among it."""
        text = b""
        for _ in range(3000):
            try:
                text += os.read(self.end, 1 << 16)
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:  # nobody has the terminal any more
                return text.decode()
            if last in text.decode(errors="replace"):
                return text.decode(errors="replace")
        raise AssertionError(text.decode(errors="replace"))

    def screen(self) -> list[str]:
        """The lines of a screen, from its upper left corner, once the last of them is there."""
        text = self.read("(a higher terminal shows that)").rpartition("\x1b[H")[2]
        return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in text.split("\r\n")]


@pytest.fixture
def terminal(host: Host) -> Iterator[Terminal]:
    made = Terminal(host, 80, 24)
    with made.process:
        yield made
        made.process.kill()
    os.close(made.end)


def test_top_fills_a_terminal_and_no_more(terminal: Terminal) -> None:
    """It is drawn anew at once when the size changes: the next look would be in ten minutes."""
    for columns, lines in ((80, 24), (200, 20), (60, 16)):
        if (columns, lines) != (80, 24):
            terminal.resize(columns, lines)
        screen = terminal.screen()
        assert len(screen) == lines
        assert max(map(len, screen)) <= columns
        shown = [
            number for number in range(CONTAINERS) if any(f"{number:02x}" * (SHORT // 2) in line for line in screen)
        ]
        assert shown == list(range(len(shown)))
        assert shown
        assert screen[-1] == f"… {CONTAINERS - len(shown)} more containers (a higher terminal shows that)"


def test_ctrl_c_gives_the_terminal_back(terminal: Terminal) -> None:
    terminal.screen()
    os.write(terminal.end, b"\x03")
    text = terminal.read("interrupted")
    assert "\x1b[?1049l" in text
    assert "Traceback" not in text


def test_sigterm_gives_the_terminal_back(terminal: Terminal) -> None:
    terminal.screen()
    os.kill(terminal.process.pid, signal.SIGTERM)
    text = terminal.read("\x1b[?25h")
    assert "\x1b[?1049l" in text
    assert "Traceback" not in text
    assert terminal.process.wait() == 128 + signal.SIGTERM
