"""Taking off a host what configure put there."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from runai_runtime import grant as grants
from runai_runtime.configure import keep_programs
from runai_runtime.engine import socket_path
from runai_runtime.errors import RefusalError, reason
from runai_runtime.host import Host, read_host
from runai_runtime.ledger import Lock
from runai_runtime.registration import Registration

MOST_NAMED = 5  # of the containers that are in the way
DOCKER_SECONDS = 20  # an engine that takes longer for an answer hangs


def unconfigure(
    config: Path,
    program: Path,
    registration: Registration,
    name: str,
    *,
    force: bool,
    keep_configuration: bool = False,
) -> list[str]:
    """Unregister the runtime NAME and remove PROGRAM, the configuration at CONFIG, unless KEEP_CONFIGURATION, and what
    was cached; what was kept of that, as sentences. Raises RefusalError where containers run on it, unless FORCE: they
    can't be stopped any more then.
    """
    host = read_host(str(config)) if config.exists() else None
    if not force:
        refuse_in_use(host, name)
    registration.unregister()
    program.unlink(missing_ok=True)
    keep_programs(program.with_name(f"{program.name}.d"), ())
    kept = []
    if host:
        kept = forget_state(host)
        if not keep_configuration:
            config.unlink()
    if config.parent.is_dir() and not any(config.parent.iterdir()):
        config.parent.rmdir()
    return kept


def refuse_in_use(host: Host | None, name: str, advice: str = "stop them first, or say --force") -> None:
    """Raise RefusalError where containers run on it, or docker doesn't say whether."""
    users = sorted(set(with_share(host) if host else []) | set(of_docker(name)))
    if users:
        shown = ", ".join(container[:12] for container in users[:MOST_NAMED])
        more = f" and {len(users) - MOST_NAMED} more" if len(users) > MOST_NAMED else ""
        raise RefusalError(f"containers run on it: {shown}{more}; {advice}")


def with_share(host: Host) -> list[str]:
    """The containers that have a share."""
    if not os.path.isdir(host.state):
        return []
    names = [name for name in os.listdir(host.state) if name not in grants.KEPT and not name.startswith(".")]
    return [name for name in names if grants.is_alive(os.path.join(host.state, name))]


def of_docker(name: str) -> list[str]:
    """The containers that docker runs with the runtime NAME, with a share or without: it couldn't stop them then.
    Raises RefusalError where an engine is there and doesn't answer.
    """
    docker = shutil.which("docker")
    if not docker:
        return []
    try:
        ids = running(docker)
    except RefusalError:
        if is_engine_there():
            raise
        return []
    if not ids:
        return []
    # It fails for one that has ended meanwhile, and tells of the others all the same.
    shown = said(docker, "inspect", "--format", "{{.Id}} {{.HostConfig.Runtime}}", *ids)
    runtimes = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines() if line.strip()}
    untold = ids - set(runtimes)
    if untold and untold & running(docker):
        raise unanswered(shown.stderr)
    return [container for container, runtime in runtimes.items() if runtime == [name]]


def running(docker: str) -> set[str]:
    listed = said(docker, "ps", "-q", "--no-trunc")
    if listed.returncode:
        raise unanswered(listed.stderr)
    return set(listed.stdout.split())


def is_engine_there() -> bool:
    """Whether anybody listens where docker's client asks. An engine that isn't at a socket counts as there."""
    path = socket_path()
    if not path:
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(DOCKER_SECONDS)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def said(docker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([docker, *arguments], capture_output=True, text=True, timeout=DOCKER_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise unanswered(f"no answer in {DOCKER_SECONDS} s") from error
    except OSError as error:
        raise unanswered(reason(error)) from error


def unanswered(why: str) -> RefusalError:
    said_why = " ".join(why.split())
    return RefusalError(
        f"docker doesn't say what runs on it: {said_why}; mend it first, or runai-ctl unconfigure --force"
    )


def forget_state(host: Host) -> list[str]:
    """Remove what was cached. Grants that are there stay, for the hooks of their containers."""
    kept = []
    if os.path.isdir(host.state):
        with Lock(host):
            for name in ("host.json", "lock"):
                Path(host.state, name).unlink(missing_ok=True)
        left = [name for name in os.listdir(host.state) if name not in grants.KEPT]
        if left:
            kept.append(f"{host.state} has the grants of {len(left)} container(s), and stays")
    copies = Path(host.fitted)
    if not kept and copies.is_dir():
        shutil.rmtree(copies)
    if not kept and os.path.isdir(host.state) and not os.listdir(host.state):
        os.rmdir(host.state)
    return kept
