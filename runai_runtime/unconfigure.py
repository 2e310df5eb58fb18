"""Taking off a host what configure put there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from runai_runtime import dockerd
from runai_runtime import grant as grants
from runai_runtime.configure import keep_programs
from runai_runtime.dockerd import is_engine_there, said, unanswered
from runai_runtime.errors import RefusalError
from runai_runtime.host import Host, read_host
from runai_runtime.ledger import Lock
from runai_runtime.registration import Registration

MOST_NAMED = 5  # of the containers that are in the way
STOP = "stop them first, or say --force"
FORCE = "mend that, or go on with runai-ctl unconfigure --force and restart docker after it"


def unconfigure(
    config: Path,
    program: Path,
    registration: Registration,
    name: str,
    *,
    force: bool,
    verb: str = "",
    keep_configuration: bool = False,
    in_use: str = STOP,
) -> list[str]:
    """Unregister the runtime NAME and remove PROGRAM, the configuration at CONFIG, unless KEEP_CONFIGURATION, and what
    was cached; what is left of that, as sentences. Where NAME is what docker starts for containers that name none, or a
    VERB is given (reload, restart), docker forgets it first. Raises RefusalError, with nothing changed, where that
    can't be, or containers run on it (IN_USE says what to do about these), unless FORCE: they can't be stopped any more
    then.
    """
    host = read_host(str(config)) if config.exists() else None
    if not force:
        refuse_in_use(host, name, in_use)
    left = leave_docker(registration, name, verb, force=force)
    registration.unregister()
    program.unlink(missing_ok=True)
    keep_programs(program.with_name(f"{program.name}.d"), ())
    if host:
        left += forget_state(host)
        if not keep_configuration:
            config.unlink()
    if config.parent.is_dir() and not any(config.parent.iterdir()):
        config.parent.rmdir()
    return left


def leave_docker(registration: Registration, name: str, verb: str, *, force: bool) -> list[str]:
    """Have the engine that runs forget the runtime NAME, where that is its default or a VERB is given; what it still
    knows afterwards, as sentences. Raises RefusalError, with daemon.json as it was, where it doesn't, unless FORCE.
    """
    try:
        known = dockerd.runtimes()
        if known is None:
            return []  # it reads daemon.json when it starts
        if known.default == name or verb:
            with registration.spelt_out():
                dockerd.have_read(verb or "reload")
                dockerd.see_forgotten(name)
        elif name in known.names:
            return [f"docker info has the runtime {name} until docker is restarted; no container can start with it"]
    except RefusalError as refusal:
        if not force:
            raise RefusalError(f"docker didn't forget the runtime {name}: {refusal}; {FORCE}") from refusal
        until = f"until then it may start containers with the runtime {name}, which is gone"
        return [f"restart docker (systemctl restart docker): {until}; {refusal}"]
    return []


def refuse_in_use(host: Host | None, name: str, advice: str) -> None:
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
