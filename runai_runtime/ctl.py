"""runai-ctl: the administrator's commands."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any, NoReturn

import typer

from runai_runtime.configure import NATIVE
from runai_runtime.configure import configure as set_up
from runai_runtime.errors import RefusalError
from runai_runtime.host import DEFAULT_PATH, LARGEST, Host, read_host
from runai_runtime.report import as_json, as_table
from runai_runtime.scan import bounded_libraries, library_folders
from runai_runtime.shim import read_regular
from runai_runtime.verify import verify as look_at

app = typer.Typer(no_args_is_help=True, add_completion=False, help="GPU memory limits for Docker, on this host.")


class Format(str, enum.Enum):
    """How a report is printed (a StrEnum is younger than Python 3.10)."""

    TABLE = "table"
    JSON = "json"


# Not in Annotated, which typer reads since 0.9 only: Debian 12 has 0.7.
RUNTIME = typer.Option("", help="The low-level runtime.")
CONFIG_TO_WRITE = typer.Option(Path(DEFAULT_PATH), help="The configuration file to write.")
PROGRAM = typer.Option(Path("/usr/local/bin/runai-runtime"), help="The program to write, for daemon.json.")
CONFIG = typer.Option(Path(DEFAULT_PATH), help="The configuration file to read, if there is one.")
DRIVER = typer.Option("", help="A folder with the driver's libraries, instead of this host's.")
LIBRARIES = typer.Option("", help="A folder with our libraries, instead of the configured one.")
STRICT = typer.Option(False, "--strict", help="An unknown function that looks like device memory is a fault.")
FORMAT = typer.Option(Format.TABLE, "--format", help="How to print it.")


def read_values(config: Path) -> dict[str, Any]:
    """What a configuration file says already. Raises RefusalError for a damaged one: it is a person's to mend."""
    if not config.exists():
        return {}
    try:
        values = json.loads(read_regular(str(config), LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise RefusalError(f"{config} can't be read ({error}); mend it, or move it away") from error
    if not isinstance(values, dict):
        raise RefusalError(f"{config} is no JSON object; mend it, or move it away")
    return values


@app.command()
def configure(runtime: str = RUNTIME, config: Path = CONFIG_TO_WRITE, program: Path = PROGRAM) -> None:
    """Write the configuration and the program that daemon.json registers; what the file says already is kept."""
    try:
        values = read_values(config)
        values |= {"runtime": runtime} if runtime else {}
        faults = set_up(values, config.absolute(), program.absolute())
    except RefusalError as refusal:
        fail(refusal)
    for fault in faults:
        typer.echo(f"Shares will be kept by libvgpu alone, without an agent: {fault}")
    typer.echo(f'Register it in /etc/docker/daemon.json: {{"runtimes": {{"runai": {{"path": "{program}"}}}}}}')
    typer.echo("and let docker read that: systemctl reload docker")


@app.command()
def verify(
    driver: str = DRIVER,
    libraries: str = LIBRARIES,
    strict: bool = STRICT,
    layout: Format = FORMAT,
    config: Path = CONFIG,
) -> None:
    """See whether our libraries are as they have to be, and what they do about each symbol of the driver."""
    try:
        host = read_host(str(config)) if config.exists() else None
        drivers = drivers_of(host, driver)
        reports = look_at(libraries or (host.libvgpu if host else str(NATIVE)), drivers, strict=strict)
    except RefusalError as refusal:
        fail(refusal)
    typer.echo(as_json(reports) if layout is Format.JSON else as_table(reports))
    raise typer.Exit(1 if any(report.faults() for report in reports) else 0)


def drivers_of(host: Host | None, folder: str) -> dict[str, str]:
    """The driver's libraries, by SONAME: those in FOLDER, or the host's. Raises RefusalError where FOLDER has none."""
    if folder:
        found = bounded_libraries([folder])
    else:
        found = bounded_libraries(library_folders(host or Host("", {"runtime": "", "hook": "", "libvgpu": ""})))
    there = {soname: path for soname, path in found.items() if path}
    if folder and not there:
        raise RefusalError(f"{folder} has none of {', '.join(found)}; name the folder of the driver's libraries")
    return there


def fail(refusal: RefusalError) -> NoReturn:
    typer.echo(f"runai-ctl: {refusal}", err=True)
    raise typer.Exit(1)


def main() -> None:
    app()
