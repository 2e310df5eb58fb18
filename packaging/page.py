"""Man pages: `page.py FOLDER` writes there those of man/, with what the program says of its commands and keys."""

from __future__ import annotations

import enum
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import typer

from runai_runtime.ctl import app
from runai_runtime.packaged import DEFAULT_PROGRAM, HOME


def page(source: Path) -> bytes:
    """The man page of SOURCE, a text of scdoc's."""
    text = source.read_text()
    for place, made in (("@COMMANDS@", commands), ("@KEYS@", keys)):
        text = text.replace(f"{place}\n", made() if place in text else "")
    return subprocess.run(["/usr/bin/scdoc"], input=text.encode(), stdout=subprocess.PIPE, check=True).stdout


def commands() -> str:
    """runai-ctl's commands with their options, as its --help has them."""
    return "".join(of_command(command, ()) for command in sorted_commands(typer.main.get_command(app)))


def sorted_commands(group: Any) -> list[Any]:
    return sorted(group.commands.values(), key=lambda command: str(command.name))


def of_command(command: Any, before: tuple[str, ...]) -> str:
    words = (*before, str(command.name))
    if hasattr(command, "commands"):
        return "".join(of_command(inner, words) for inner in sorted_commands(command))
    arguments = [entry for entry in command.params if entry.param_type_name == "argument"]
    names = [f"_{entry.name.upper()}_" if entry.required else f"[_{entry.name.upper()}_]" for entry in arguments]
    text = f"## {' '.join(words)}\n\n*runai-ctl {' '.join(words)}* {' '.join([*names, '[_OPTION_...]'])}\n\n"
    text += f"{plain(command.help)}\n\n"
    for entry in arguments:
        text += f"_{entry.name.upper()}_\n\t{plain(entry.help)}\n\n"
    return text + "".join(of_option(entry) for entry in command.params if entry.param_type_name == "option")


def of_option(option: Any) -> str:
    value = "" if option.is_flag else f" _{str(option.name).upper()}_"
    names = ", ".join(f"*{name}*{value}" for name in (*option.opts, *option.secondary_opts))
    default, said = option.default, ""
    if isinstance(default, enum.Enum):
        said = f" One of {', '.join(str(choice.value) for choice in type(default))}."
        default = default.value
    said += f" The default is {plain(str(default))}." if default and not option.is_flag else ""
    help_text = option.help.replace(str(DEFAULT_PROGRAM), str(HOME / DEFAULT_PROGRAM.name))  # the package's own
    return f"{names}\n\t{plain(help_text)}{said}\n\n"


def keys() -> str:
    """The keys of the configuration, as its schema has them."""
    schema = json.loads(files("runai_runtime").joinpath("config.schema.json").read_text())
    return "".join(of_key(name, value) for name, value in schema["properties"].items())


def of_key(name: str, value: dict[str, Any]) -> str:
    text = f"*{name}*: {plain(value['title'])}\n\t{plain(value['description'])}\n\n"
    return text + "".join(of_key(f"{name}.{inner}", of_it) for inner, of_it in value.get("properties", {}).items())


def plain(text: str) -> str:
    """TEXT as scdoc takes it for letters."""
    text = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in r"\*_`#~[]" else letter for letter in text)


if __name__ == "__main__":
    for source in (Path(__file__).resolve().parent / "man").glob("*.scd"):
        Path(sys.argv[1], source.stem).write_bytes(page(source))
