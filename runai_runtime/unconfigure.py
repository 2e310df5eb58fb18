"""Taking off a host what configure put there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from runai_runtime import grant as grants
from runai_runtime.configure import forget_others
from runai_runtime.errors import RefusalError
from runai_runtime.host import Host, read_host
from runai_runtime.ledger import Lock
from runai_runtime.registration import Registration

MOST_NAMED = 5  # of the containers that are in the way
DOCKER_SECONDS = 20  # an engine that doesn't answer has no say


def unconfigure(config: Path, program: Path, registration: Registration, name: str, *, force: bool) -> list[str]:
    """Unregister the runtime NAME and remove PROGRAM, the configuration at CONFIG and what was cached; what was kept of
    it, as sentences. Raises RefusalError where containers run on it, unless FORCE: they can't be stopped any more then.
    """
    host = read_host(str(config)) if config.exists() else None
    if not force:
        refuse_in_use(host, name)
    registration.unregister()
    program.unlink(missing_ok=True)
    forget_others(program.with_name(f"{program.name}.d"), ())
    kept = []
    if host:
        kept = forget_state(host)
        config.unlink()
    if config.parent.is_dir() and not any(config.parent.iterdir()):
        config.parent.rmdir()
    return kept


def refuse_in_use(host: Host | None, name: str, advice: str = "stop them first, or say --force") -> None:
    running = sorted(set(with_share(host) if host else []) | set(of_docker(name)))
    if running:
        shown = ", ".join(container[:12] for container in running[:MOST_NAMED])
        more = f" and {len(running) - MOST_NAMED} more" if len(running) > MOST_NAMED else ""
        raise RefusalError(f"containers run on it: {shown}{more}; {advice}")


def with_share(host: Host) -> list[str]:
    """The containers that have a share."""
    if not os.path.isdir(host.state):
        return []
    names = [name for name in os.listdir(host.state) if name not in grants.KEPT and not name.startswith(".")]
    return [name for name in names if grants.is_alive(os.path.join(host.state, name))]


def of_docker(name: str) -> list[str]:
    """The containers that docker runs with the runtime NAME, with a share or without: it couldn't stop them then."""
    docker = shutil.which("docker")
    if not docker:
        return []
    try:
        running = said(docker, "ps", "-q", "--no-trunc").split()
        shown = said(docker, "inspect", "--format", "{{.Id}} {{.HostConfig.Runtime}}", *running) if running else ""
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.split()[0] for line in shown.splitlines() if line.split()[1:] == [name]]


def said(docker: str, *arguments: str) -> str:
    done = subprocess.run([docker, *arguments], capture_output=True, text=True, timeout=DOCKER_SECONDS, check=True)
    return done.stdout


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
