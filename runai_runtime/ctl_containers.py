"""The commands of runai-ctl that look at containers, and the one that changes a share.

Exit codes: 0 good, 1 refused (a sentence says why), 2 a wrong option, 3 no such container.
"""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from runai_runtime.errors import RefusalError
from runai_runtime.host import DEFAULT_PATH, Host, absolute, read_host
from runai_runtime.packaged import is_from_package

REFUSED, NO_SUCH_CONTAINER = 1, 3


class Format(str, enum.Enum):
    """How a report is printed (a StrEnum is younger than Python 3.10)."""

    TABLE = "table"
    JSON = "json"


class Order(str, enum.Enum):
    """As top.ORDERS has them."""

    USED = "used"
    SHARE = "share"
    PEAK = "peak"
    SINCE = "since"
    NAME = "name"


CONFIG = typer.Option(Path(DEFAULT_PATH), help="The configuration file to read.")
FORMAT = typer.Option(Format.TABLE, "--format", help="How to print it.")
SORT = typer.Option(Order.USED, "--sort", help="What containers are sorted by.")
INTERVAL = typer.Option(2.0, "--interval", min=0.2, max=3600, help="Seconds from one look to the next.")
ONCE = typer.Option(False, "--once", help="One screen, and no more.")
CONTAINER = typer.Argument(..., help="Its name, its id, or the beginning of that.", show_default=False)
OPTIONAL_CONTAINER = typer.Argument("", help="Its name, its id, or the beginning of that.", show_default=False)
AMOUNT = typer.Argument(..., help="The new share on each of its GPUs: 5g, 512m, 0.3, 30%.", show_default=False)
FILE = typer.Option(None, "--file", help="Write them there, for node_exporter's textfile collector.")
PORT = typer.Option(0, "--port", min=0, max=65535, help="Serve them on this port.")
ADDRESS = typer.Option("127.0.0.1", "--address", help="Where that port is.")

limits = typer.Typer(no_args_is_help=True, help="The shares of running containers.")


def add_to(app: typer.Typer) -> None:
    for command in (status, top, inspect, logs, metrics):
        app.command()(command)
    app.add_typer(limits, name="limits")


@contextmanager
def refusals() -> Iterator[None]:
    """A refusal is one sentence and an exit code; so is an interrupt."""
    from runai_runtime.containers import NoSuchContainerError

    try:
        yield
    except RefusalError as refusal:
        typer.echo(f"runai-ctl: {refusal}", err=True)
        raise typer.Exit(NO_SUCH_CONTAINER if isinstance(refusal, NoSuchContainerError) else REFUSED) from refusal
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def host_of(config: Path) -> Host:
    return read_host(absolute(str(config)))


def status(layout: Format = FORMAT, config: Path = CONFIG) -> None:
    """Show the GPUs with what is promised, used and free of them, and the containers with a share."""
    from runai_runtime.status import status as looked_up

    with refusals():
        typer.echo(looked_up(str(config), layout is Format.JSON), nl=False)


def top(sort: Order = SORT, interval: float = INTERVAL, once: bool = ONCE, config: Path = CONFIG) -> None:
    """The same again and again, with bars, and with the containers' processes. Ctrl-C ends it."""
    from runai_runtime.terminal import console
    from runai_runtime.top import run_top

    with refusals():
        run_top(host_of(config), console(), sort.value, interval, once=once)


def inspect(container: str = CONTAINER, layout: Format = FORMAT, config: Path = CONFIG) -> None:
    """Say what a container asked for, what it was given, what keeps that, and what was edited."""
    from runai_runtime.explain import as_values, lines
    from runai_runtime.overview import look

    with refusals():
        found = look(host_of(config), gpus=False, processes=True).find(container)
    if layout is Format.JSON:
        typer.echo(json.dumps(as_values(found), indent=1))
        return
    from runai_runtime.terminal import as_text, width

    typer.echo(as_text(lines(found, width())), nl=False)


@limits.command("set")
def set_limit(container: str = CONTAINER, amount: str = AMOUNT, config: Path = CONFIG) -> None:
    """Give a running container another share of its GPUs, if that fits beside the others'. Needs an agent."""
    from runai_runtime.columns import printable
    from runai_runtime.live import set_share
    from runai_runtime.overview import look
    from runai_runtime.tables import mib

    with refusals():
        host = host_of(config)
        before = look(host, gpus=False).find(container)
        used = set_share(host, before.id, amount)
        after = look(host, gpus=False).find(before.id)
    for gpu, old, new, held in zip(after.gpus, before.figures, after.figures, used, strict=True):
        above = "; nothing more is given until it is below its share" if held > new.share else ""
        typer.echo(
            f"{printable(after.title)}: GPU {gpu}: {mib(old.share)} MiB before, {mib(new.share)} MiB now; "
            f"{mib(held)} MiB in use{above}"
        )


def logs(container: str = OPTIONAL_CONTAINER, layout: Format = FORMAT, config: Path = CONFIG) -> None:
    """Print what the runtime and the agents have said, of all containers or of one."""
    from runai_runtime.logs import as_text, lines_of

    with refusals():
        host = host_of(config)
        lines = lines_of(host, container)
    if layout is Format.JSON:
        typer.echo(json.dumps([vars(line) for line in lines], indent=1))
        return
    for line in lines:
        typer.echo(as_text(line))
    if not host.log:
        typer.echo(f"Only the agents' lines are here: {config} names no log file (its key log).", err=True)


def metrics(file: Path = FILE, port: int = PORT, address: str = ADDRESS, config: Path = CONFIG) -> None:
    """Give Prometheus the figures: printed, in a file, or on a port."""
    if file and port:
        raise typer.BadParameter("take --file or --port, not both")
    with refusals():
        host = host_of(config)
        try:
            from runai_runtime import metrics as prometheus
        except ImportError as error:
            command = "apt install python3-prometheus-client"
            if not is_from_package():
                command = f"{sys.prefix}/bin/pip install prometheus-client"
            raise RefusalError(f"metrics need the package prometheus-client: {command}") from error
        if port:
            prometheus.serve(host, address, port)
        elif file:
            prometheus.write_file(host, file)
        else:
            typer.echo(prometheus.as_text(host), nl=False)
