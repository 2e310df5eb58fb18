"""A container for the agent without an engine: programs under the same filter, on the simulated driver.

The agent is built with the sanitizers; what `confine` does stands in for the runtime.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.programs import build
from tests.simgpu.host import SimHost

TOP = Path(__file__).parents[3]
MIB = 1 << 20
SHARE = 1024 * MIB
FLAGS = (
    "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all", "-DPATIENCE=4", "-iquote", TOP / "libvgpu", "-iquote", TOP / "hook",
)  # fmt: skip


def compile_agent(path: Path) -> Path:
    sources = [*sorted((TOP / "agent").glob("*.c")), TOP / "hook/io.c"]
    subprocess.run(["/usr/bin/gcc", *map(str, FLAGS), *map(str, sources), "-o", str(path)], check=True)
    return path


def wait_for(what: Callable[[], bool], seconds: float = 10) -> None:
    """Until it is so; AssertionError after SECONDS."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


class Container:
    """One agent, and programs that it bounds. SHARES: bytes by GPU. With `agent` None nothing bounds them.

    orphan: what made it has ended before it begins. first: called with the path of its socket, before it begins.
    """

    def __init__(
        self,
        folder: Path,
        host: SimHost,
        agent: Path | None,
        shares: list[int],
        *,
        orphan: bool = False,
        first: Callable[[Path], object] = lambda _: None,
    ) -> None:
        self.is_bereft = False
        """Whether the agent ends before its container, as a test wants it."""
        self.folder = folder
        self.host = host
        self.programs: list[subprocess.Popen[str]] = []
        self.agent: subprocess.Popen[bytes] | None = None
        self.raw = build.program("rawgpu", "-static")
        self.confine = build.program("confine", "-static")
        if agent:
            self._start(agent, shares, creator=1 if orphan else os.getpid(), first=first)

    def _start(self, agent: Path, shares: list[int], *, creator: int, first: Callable[[Path], object]) -> None:
        state = self.host.state()["gpus"]
        lines = ["runai-agent\t1", f"creator\t{creator}", "params\t128"]
        lines += [f"gpu\t{gpu['uuid']}\t{share}\t{gpu['reserved']}" for gpu, share in zip(state, shares, strict=False)]
        lines += [
            f"node\t{self.host.dev}/{name}" for name in ("nvidiactl", *(f"nvidia{i}" for i in range(len(shares))))
        ]
        lines += [f"uvm\t{self.host.dev}/nvidia-uvm"]
        (self.folder / "agent.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "page").write_bytes(bytes(65536))
        sockets = []
        for name in ("agent", "control"):
            sockets.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sockets[-1].bind(str(self.folder / name))
            sockets[-1].listen(64)
        first(self.folder / "agent")

        def place() -> None:
            for number, descriptor in enumerate([os.dup(one.fileno()) for one in sockets], 3):
                os.dup2(descriptor, number)

        environment = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1"}
        with (self.folder / "agent.stderr").open("wb") as errors:
            self.agent = subprocess.Popen(
                [agent, self.folder],
                preexec_fn=place,  # noqa: PLW1509 - it takes no lock, and pass_fds can't change a number
                close_fds=False,
                env=environment,
                stderr=errors,
            )
        for one in sockets:
            one.close()

    def start(self, *arguments: str, traces: bool = False) -> subprocess.Popen[str]:
        """Rawgpu with these arguments. TRACES: as with --cap-add SYS_PTRACE."""
        command = [str(self.raw), "-d", str(self.host.dev), *arguments]
        if self.agent:
            command = [str(self.confine), *(["-p"] if traces else []), str(self.folder / "agent"), *command]
        program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.programs.append(program)
        return program

    def run(self, *arguments: str, seconds: float = 60) -> str:
        """What it prints."""
        return self.start(*arguments).communicate(timeout=seconds)[0]

    def log(self) -> str:
        file = self.folder / "agent.log"
        return file.read_text() if file.exists() else ""

    def ask(self, request: str) -> str:
        """An answer of the control socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.connect(str(self.folder / "control"))
            control.sendall(request.encode())
            return control.recv(200).decode()

    def end(self) -> None:
        """All are gone; the agent has found no fault of its own."""
        for program in self.programs:
            program.kill()
            program.wait()
            for pipe in (program.stdin, program.stdout):
                if pipe:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        if self.agent:
            alive = self.agent.poll() is None
            self.agent.kill()
            self.agent.wait()
            faults = (self.folder / "agent.stderr").read_text()
            assert not faults, faults
            assert alive != self.is_bereft
