"""runai-ctl: the administrator's commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from runai_runtime.configure import configure as set_up
from runai_runtime.errors import RefusalError
from runai_runtime.host import DEFAULT_PATH

app = typer.Typer(no_args_is_help=True, add_completion=False, help="GPU memory limits for Docker, on this host.")


@app.callback()
def commands() -> None:
    """Makes typer expect a command's name although there is only one."""


@app.command()
def configure(
    runtime: Annotated[str, typer.Option(help="The low-level runtime.")] = "",
    config: Annotated[Path, typer.Option(help="The configuration file to write.")] = Path(DEFAULT_PATH),
    program: Annotated[Path, typer.Option(help="The program to write, for daemon.json.")] = Path(
        "/usr/local/bin/runai-runtime"
    ),
) -> None:
    """Write the configuration and the program that daemon.json registers; what the file says already is kept."""
    values: dict[str, Any] = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    try:
        set_up(values | ({"runtime": runtime} if runtime else {}), config.absolute(), program.absolute())
    except RefusalError as refusal:
        typer.echo(f"runai-ctl: {refusal}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f'Register it in /etc/docker/daemon.json: {{"runtimes": {{"runai": {{"path": "{program}"}}}}}}')
    typer.echo("and let docker read that: systemctl reload docker")


def main() -> None:
    app()
