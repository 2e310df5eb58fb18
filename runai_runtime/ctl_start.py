"""Where runai-ctl begins. `status`, which people and their scripts wait for, is done without typer: that takes 0.1 s to
import, and versions that check values by pydantic another 0.1 s for the first option. All else is ctl.py's.
"""

from __future__ import annotations

import os
import sys

from runai_runtime.host import DEFAULT_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> None:
    asked = plain_status(sys.argv[1:])
    if asked is None:
        from runai_runtime.ctl import main as others

        others()
        return
    from runai_runtime.errors import RefusalError
    from runai_runtime.status import status

    try:
        text = status(*asked)
    except RefusalError as refusal:
        fail(str(refusal))
    except KeyboardInterrupt:
        sys.exit(0)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python's own last flush isn't to fail again
        if isinstance(error, BrokenPipeError):  # as in `runai-ctl status | head -1`
            sys.exit(1)
        fail(f"the output can't be written: {error.strerror}; see where it goes")


def fail(sentence: str) -> NoReturn:
    sys.stderr.write(f"runai-ctl: {sentence}\n")
    sys.exit(1)


def plain_status(words: list[str]) -> tuple[str, bool] | None:
    """The configuration to read and whether to print JSON, where WORDS are `status` and whole, right options of its;
    None for all that typer is to read.
    """
    if words[:1] != ["status"]:
        return None
    values = {"--config": DEFAULT_PATH, "--format": "table"}
    rest = words[1:]
    while rest:
        name, has_value, value = rest.pop(0).partition("=")
        if name not in values or not (has_value or rest):
            return None
        values[name] = value if has_value else rest.pop(0)
    config, layout = values["--config"], values["--format"]
    if not config or config.startswith("-") or layout not in ("table", "json"):
        return None
    return config, layout == "json"
