"""What the checks look at: the host's files below one root, and the programs that they ask, each for a bounded time."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from runai_runtime.configure import defaults
from runai_runtime.doctor.finding import Unknown
from runai_runtime.errors import RefusalError
from runai_runtime.host import DEFAULT_PATH, Host, read_host
from runai_runtime.registration import DAEMON_JSON, RUNTIMES, Registration, read
from runai_runtime.scan import bounded_libraries, library_folders

SECONDS = 20  # for a program; NVML alone can take several, where no process keeps the driver up
LARGEST = 1 << 16  # bytes of a file of /proc or /sys
NO_ANSWER = "docker's engine doesn't answer"

# What asks NVML is a process of its own: the driver's library stays out of this one, and where it hangs it is left
# behind. It finds its modules where this process does.
ASK = "import sys; sys.path[:] = {path!r}; from runai_runtime.doctor.nvml import main; main({library!r})"


def leave(process: subprocess.Popen[str]) -> None:
    """End PROCESS without waiting for one that the kernel holds (in a driver that hangs)."""
    process.kill()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)


class Facts:
    """A host. CONFIG is the path of its configuration, DAEMON that of daemon.json, NAME our runtime's in there. ROOT
    holds the host's /proc, /sys, /dev, /usr and /tmp, and DOCKER is the client's command, both so that a test can make
    a host up.
    """

    def __init__(
        self,
        config: Path = Path(DEFAULT_PATH),
        daemon: Path = DAEMON_JSON,
        name: str = "runai",
        *,
        root: Path = Path("/"),
        docker: list[str] | None = None,
    ) -> None:
        self.config, self.daemon, self.name, self.root = config, daemon, name, root
        named = os.environ.get("RUNAI_DOCKER") or shutil.which("docker")
        self.docker = docker if docker is not None else [named] if named else []
        self.user = os.geteuid()
        self.seconds: float = SECONDS

    def path(self, path: str) -> Path:
        """The host's PATH, which is absolute."""
        return self.root / path.lstrip("/")

    def there(self, path: str) -> bool:
        return self.path(path).exists()

    def read(self, path: str) -> str:
        """What a small file says, without blanks around it; "" where it can't be read."""
        try:
            with self.path(path).open("rb") as file:
                return file.read(LARGEST).decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def run(self, *command: str, seconds: float = 0, stdin: IO[bytes] | None = None) -> str:
        """What a program prints, that is given STDIN. Raises Unknown if it fails, or takes too long."""
        done = self.complete(*command, seconds=seconds, stdin=stdin)
        if done.returncode:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
            said = lines[-1] if lines else f"exit status {done.returncode}"
            raise Unknown(f"{os.path.basename(command[0])} failed ({said})")
        return done.stdout

    def complete(
        self, *command: str, seconds: float = 0, stdin: IO[bytes] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A program that ran to its end. Raises Unknown if it can't be started, or takes longer than SECONDS (0: as
        long as any). One that the kernel holds and that can't be ended is left behind.
        """
        seconds = seconds or self.seconds
        try:
            process = subprocess.Popen(
                command, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise Unknown(f"{command[0]} can't be started ({error.strerror})") from error
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            leave(process)
            raise Unknown(f"{os.path.basename(command[0])} didn't answer within {seconds:g} s") from error
        except BaseException:  # a Ctrl-C
            leave(process)
            raise
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    @cached_property
    def _configuration(self) -> tuple[Host, str]:
        try:
            return read_host(str(self.config)), ""
        except RefusalError as refusal:
            return Host(str(self.config), defaults()), str(refusal)

    @property
    def host(self) -> Host:
        """The configuration; where there is none that can be used, what configure would write."""
        return self._configuration[0]

    @property
    def configuration_fault(self) -> str:
        """Why the configuration can't be used; "" where it can."""
        return self._configuration[1]

    @cached_property
    def libraries(self) -> dict[str, str]:
        """The driver's libraries by SONAME; "" for one that isn't there."""
        return bounded_libraries(library_folders(self.host))

    @cached_property
    def _driver(self) -> dict[str, Any]:
        library = self.libraries["libnvidia-ml.so.1"]
        if not library:
            return {"unknown": ("the driver's libraries aren't there",)}
        try:
            said: dict[str, Any] = json.loads(
                self.run(sys.executable, "-IS", "-c", ASK.format(path=sys.path, library=library))
            )
        except Unknown as why:
            return {"unknown": ("the driver doesn't answer", str(why))}
        except ValueError:
            return {"unknown": ("the driver doesn't answer", "its library writes to the standard output")}
        return said

    @property
    def driver(self) -> dict[str, Any]:
        """What NVML says (nvml.main), or {"refusal": sentence}. Raises Unknown where it says nothing."""
        if "unknown" in self._driver:
            raise Unknown(*self._driver["unknown"])
        return self._driver

    @cached_property
    def _engine(self) -> dict[str, Any]:
        if not self.docker:
            return {"unknown": (NO_ANSWER, "there is no docker on PATH")}
        try:
            said = json.loads(self.run(*self.docker, "info", "--format", "{{json .}}"))
        except Unknown as why:
            return {"unknown": (NO_ANSWER, str(why))}
        except ValueError:
            said = None
        if not isinstance(said, dict):
            return {"unknown": (NO_ANSWER, "docker info printed no JSON object")}
        errors = said.get("ServerErrors")  # an older client ends with 0 then
        return {"unknown": (NO_ANSWER, str(errors[0]))} if errors else said

    @property
    def engine(self) -> dict[str, Any]:
        """What `docker info` says. Raises Unknown where no engine answers."""
        if "unknown" in self._engine:
            raise Unknown(*self._engine["unknown"])
        return self._engine

    @cached_property
    def registered(self) -> dict[str, Any] | None:
        """What daemon.json says of our runtime; None where that is nothing. Raises RefusalError for a damaged one."""
        text = Registration(self.daemon, self.daemon).text()
        values = read(text, self.daemon) if text is not None and text.strip() else {}
        runtime: dict[str, Any] | None = values.get(RUNTIMES, {}).get(self.name)
        return runtime

    def registered_program(self) -> str:
        """The path of the program that docker starts, as the engine has it, else as daemon.json does; "" for none."""
        running = (self._engine.get("Runtimes") or {}).get(self.name)
        return str((running or self.registered or {}).get("path", ""))
