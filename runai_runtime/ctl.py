"""runai-ctl: the administrator's commands. A plain `status` never comes here (ctl_start.py). What takes long to import
is imported where it is used.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, Optional

import typer

from runai_runtime.ctl_containers import FORMAT, Format, add_to, refusals
from runai_runtime.errors import RefusalError
from runai_runtime.host import DEFAULT_PATH, Host, read_host
from runai_runtime.packaged import DEFAULT_PROGRAM, PACKAGE, recorded, version
from runai_runtime.registration import DAEMON_JSON, DEFAULT, Registration, default_runtime, read

app = typer.Typer(no_args_is_help=True, help="GPU memory limits for Docker, on this host.")
add_to(app)  # what looks at containers


# Not in Annotated, which typer reads since 0.9 only: Debian 12 has 0.7.
RUNTIME = typer.Option("", help="The low-level runtime.")
CONFIG_TO_WRITE = typer.Option(Path(DEFAULT_PATH), help="The configuration file to write.")
# What isn't given is as the host was set up with before.
PROGRAM = typer.Option(None, help=f"The program for daemon.json: the registered one, at first {DEFAULT_PROGRAM}.")
NAME = typer.Option("", help="The runtime's name, for docker run --runtime: the registered one, at first runai.")
DAEMON = typer.Option(
    None, "--daemon-json", help=f"dockerd's configuration: that with our runtime, at first {DAEMON_JSON}."
)
REGISTER = typer.Option(True, help="Whether to register the runtime with dockerd.")
AS_DEFAULT = typer.Option(
    None, "--set-as-default/--no-set-as-default", help="For containers that name no runtime as well, or not any more."
)
DRY_RUN = typer.Option(False, "--dry-run", help="Show what would be written.")
RELOAD = typer.Option(False, "--reload", help="Have docker read it; no container notices that.")
RESTART = typer.Option(False, "--restart", help="Restart docker.")
RELOAD_TO_FORGET = typer.Option(False, "--reload", help="Have docker forget it; no container notices that.")
FORCE = typer.Option(False, "--force", help="Although containers run on it, or docker doesn't forget it.")
CONFIG = typer.Option(Path(DEFAULT_PATH), help="The configuration file to read, if there is one.")
DRIVER = typer.Option("", help="A folder with the driver's libraries, instead of this host's.")
LIBRARIES = typer.Option("", help="A folder with our libraries, instead of the configured one.")
LIVE = typer.Option(False, "--live", help="Start a container on each GPU that tries to take more than its share.")
STRICT = typer.Option(False, "--strict", help="An unknown function that looks like device memory is a fault.")


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version())
        raise typer.Exit


@app.callback()
def options(
    _version: bool = typer.Option(
        False, "--version", callback=show_version, is_eager=True, help="Print the version, and end."
    ),
) -> None: ...


@app.command()
def configure(
    runtime: str = RUNTIME,
    config: Path = CONFIG_TO_WRITE,
    program: Optional[Path] = PROGRAM,  # noqa: UP045 - what typer 0.7 reads
    name: str = NAME,
    daemon: Optional[Path] = DAEMON,  # noqa: UP045
    register: bool = REGISTER,
    default: Optional[bool] = AS_DEFAULT,  # noqa: UP045
    dry_run: bool = DRY_RUN,
    reload: bool = RELOAD,
    restart: bool = RESTART,
) -> None:
    """Write the configuration and the program that dockerd starts, and register that; what isn't given stays."""
    from runai_runtime.configure import configure as set_up
    from runai_runtime.configure import home_of, installation_of, read_values, rehearse

    with refusals():
        name, program, daemon = recorded(config.absolute(), name, program, daemon)
        registration = Registration.beside(config.absolute(), daemon)
        values = read_values(config)
        before, after = None, ""
        is_default = register and registration.is_default()
        as_default = is_default if default is None else default
        before_us = default_runtime(daemon) if register and as_default and not is_default else ""
        if before_us and before_us != str(program):
            values["runtime"] = before_us  # its users keep it
        values |= {"runtime": runtime} if runtime else {}
        if register:  # before anything is written: a daemon.json that can't be changed
            before, after = registration.planned(name, program, as_default=as_default)
        if dry_run:
            faults = rehearse(values, config.absolute())
            show(daemon, before, after, values)
            tell(faults)
            return
        ours, earlier = home_of(PACKAGE.parent), installation_of(program)
        faults = set_up(values, config.absolute(), program)
        if register:
            registration.register(name, program, as_default=as_default)
    tell(faults)
    if earlier not in ("", ours):
        typer.echo(f"{program} was set up by the installation in {earlier}; it is this one's now, in {ours}.")
    if register:
        typer.echo(f"{daemon} has the runtime {name} now{', for all containers that name none' if as_default else ''}.")
        have_docker_read(reload, restart)
        if is_default and not as_default and not restart and DEFAULT not in read(after, daemon):
            typer.echo("Docker keeps it as the default until it is restarted: systemctl restart docker")


def tell(faults: list[str]) -> None:
    """Why there will be no agent."""
    from runai_runtime.configure import NO_AGENT

    for fault in faults:
        typer.echo(f"{NO_AGENT[0].upper()}{NO_AGENT[1:]}: {fault}")


def show(daemon: Path, before: str | None, after: str, values: dict[str, Any]) -> None:
    """What configure would write."""
    from runai_runtime.configure import defaults

    old, new = (text.splitlines(keepends=True) for text in (before or "", after))
    typer.echo("".join(difflib.unified_diff(old, new, str(daemon), str(daemon))), nl=False)
    typer.echo(f"The configuration: {json.dumps(defaults() | values, indent=4)}")


def have_docker_read(reload: bool, restart: bool) -> None:
    """daemon.json: dockerd reads these keys at a reload, which no container notices."""
    from runai_runtime.dockerd import have_read

    if not (reload or restart):
        typer.echo("Let docker read that: systemctl reload docker")
        return
    with refusals():
        have_read(verb_of(reload, restart))


def verb_of(reload: bool, restart: bool) -> str:
    return "restart" if restart else "reload" if reload else ""


@app.command()
def unconfigure(
    config: Path = CONFIG,
    program: Optional[Path] = PROGRAM,  # noqa: UP045
    name: str = NAME,
    daemon: Optional[Path] = DAEMON,  # noqa: UP045
    force: bool = FORCE,
    reload: bool = RELOAD_TO_FORGET,
    restart: bool = RESTART,
) -> None:
    """Undo configure: daemon.json as it was, and nothing of ours on the host. Docker forgets the runtime by a reload
    before, where it is the one of containers that name none.
    """
    from runai_runtime.unconfigure import unconfigure as undo

    with refusals():
        name, program, daemon = recorded(config.absolute(), name, program, daemon)
        registration = Registration.beside(config.absolute(), daemon)
        left = undo(config.absolute(), program, registration, name, force=force, verb=verb_of(reload, restart))
    typer.echo(f"{daemon} has the runtime {name} no more.")
    for sentence in left:
        typer.echo(f"{sentence[0].upper()}{sentence[1:]}.")


@app.command()
def verify(
    driver: str = DRIVER,
    libraries: str = LIBRARIES,
    strict: bool = STRICT,
    layout: Format = FORMAT,
    config: Path = CONFIG,
) -> None:
    """See whether our libraries are as they have to be, and what they do about each symbol of the driver."""
    from runai_runtime.configure import NATIVE
    from runai_runtime.report import as_json, as_table
    from runai_runtime.verify import verify as look_at

    with refusals():
        host = read_host(str(config)) if config.exists() else None
        drivers = drivers_of(host, driver)
        reports = look_at(libraries or (host.libvgpu if host else str(NATIVE)), drivers, strict=strict)
    typer.echo(as_json(reports) if layout is Format.JSON else as_table(reports))
    raise typer.Exit(1 if any(report.faults() for report in reports) else 0)


@app.command()
def doctor(
    live: bool = LIVE,
    layout: Format = FORMAT,
    config: Path = CONFIG,
    name: str = NAME,
    daemon: Optional[Path] = DAEMON,  # noqa: UP045
) -> None:
    """Find what would stop this host from working, or from holding a share, and say how to mend it."""
    from runai_runtime.doctor import report as doctors
    from runai_runtime.doctor.facts import Facts

    with refusals():
        name, _, daemon = recorded(config.absolute(), name, None, daemon)
    facts = Facts(config.absolute(), daemon, name)
    findings = doctors.examine(facts)
    if live:
        from runai_runtime.doctor.live import try_shares

        findings |= try_shares(facts, findings)
    typer.echo(doctors.as_json(findings) if layout is Format.JSON else doctors.as_table(findings))
    raise typer.Exit(1 if doctors.has_fault(findings) else 0)


def drivers_of(host: Host | None, folder: str) -> dict[str, str]:
    """The driver's libraries, by SONAME: those in FOLDER, or the host's. Raises RefusalError where FOLDER has none."""
    from runai_runtime.scan import bounded_libraries, library_folders

    if folder:
        found = bounded_libraries([folder])
    else:
        found = bounded_libraries(library_folders(host or Host("", {"runtime": "", "hook": "", "libvgpu": ""})))
    there = {soname: path for soname, path in found.items() if path}
    if folder and not there:
        raise RefusalError(f"{folder} has none of {', '.join(found)}; name the folder of the driver's libraries")
    return there


def main() -> None:
    app()
