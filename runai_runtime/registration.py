"""What dockerd's daemon.json says of our runtime. The file is an administrator's: it is changed in our keys alone, by
one rename, and given back as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runai_runtime import jsontext
from runai_runtime.errors import RefusalError, quoted, reason
from runai_runtime.files import write_whole

DAEMON_JSON = Path("/etc/docker/daemon.json")
RUNTIMES, DEFAULT = "runtimes", "default-runtime"
ATTEMPTS = 5  # somebody else may write the file at the same moment

# What dockerd takes for these two keys (docker's cmd/dockerd/daemon.md); the others are its own matter.
SCHEMA = {
    "type": "object",
    "properties": {
        DEFAULT: {"type": "string"},
        RUNTIMES: {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": {
                    "path": {"type": "string"},
                    "runtimeArgs": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
    },
}


class Registration:
    """What configure did to daemon.json, kept beside the configuration so that it can be undone. PATH is its record:
    the runtime's name and program, the file, its text before (None where there was none), and a digest of what was
    written.
    """

    def __init__(self, path: Path, daemon: Path) -> None:
        self.path, self.daemon = path, daemon

    @classmethod
    def beside(cls, config: Path, daemon: Path) -> Registration:
        """Of what the configuration at CONFIG is for."""
        return cls(config.with_name("registration.json"), daemon)

    def register(self, name: str, program: Path, *, as_default: bool) -> None:
        """Have dockerd start PROGRAM as the runtime NAME, from its next reload on. Raises RefusalError, and leaves the
        file alone, where it isn't what dockerd reads.
        """
        for _ in range(ATTEMPTS):
            before, after = self.planned(name, program, as_default=as_default)
            if after == before:
                return
            base = self.without_ours(before)
            if self.text() == before:
                ours = {"name": name, "program": str(program), "daemon": str(self.daemon)}
                self.keep({**ours, "before": base, "digest": digest(after)})
                self.write(after)
                return
        raise RefusalError(f"{self.daemon} is being changed by somebody else all the time; try again later")

    def planned(self, name: str, program: Path, *, as_default: bool) -> tuple[str | None, str]:
        """The file's text now, and as register() would have it. Raises likewise."""
        before = self.text()
        base = self.without_ours(before)
        return before, registered(base, name, program, as_default=as_default, path=self.daemon)

    def is_default(self) -> bool:
        """Whether containers that name no runtime get ours now. Raises RefusalError for a damaged file."""
        text, record = self.text(), self.record()
        if record is None or text is None or not text.strip():
            return False
        return bool(read(text, self.daemon).get(DEFAULT) == record["name"])

    def programs(self) -> list[Path]:
        """Those of all runtimes that daemon.json has. Raises likewise."""
        text = self.text()
        values = read(text, self.daemon) if text is not None and text.strip() else {}
        return [Path(runtime["path"]) for runtime in values.get(RUNTIMES, {}).values() if "path" in runtime]

    def unregister(self) -> None:
        """Undo it: to the byte where nobody has changed the file since, else in our keys."""
        before = self.text()
        after = self.without_ours(before)
        if after != before:
            self.write(after)
        self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def spelt_out(self) -> Iterator[None]:
        """With a daemon.json that says what dockerd is to have once we are gone, for a reload: a key that is missing
        leaves what dockerd has. unregister() gives the file back all the same. Where what is done with it fails, it is
        again what it was.
        """
        before, record = self.text(), self.record()
        base = self.without_ours(before)
        during = spelt_out(base, self.daemon)
        if record:
            self.keep({**record, "before": base, "digest": digest(during)})
        self.write(during)
        try:
            yield
        except BaseException:
            self.write(before)
            if record:
                self.keep(record)
            raise
        if not record:
            self.write(before)

    def without_ours(self, text: str | None) -> str | None:
        """TEXT of daemon.json as it would be without us."""
        record = self.record()
        if text is None or record is None:
            return text
        if digest(text) == record["digest"]:
            before: str | None = record["before"]
            return before
        return unregistered(text, record["name"], record["before"], self.daemon)

    def record(self) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RefusalError(
                f"{self.path} is damaged ({error}); mend {self.daemon} by hand, and remove it"
            ) from error
        is_whole = isinstance(record, dict) and {"name", "before", "digest"} <= set(record)
        if not is_whole or not all(isinstance(record.get(key, ""), str) for key in ("name", "program", "daemon")):
            raise RefusalError(f"{self.path} is damaged; mend {self.daemon} by hand, and remove it")
        return record

    def keep(self, record: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps(record, indent=4) + "\n", 0o644)

    def text(self) -> str | None:
        try:
            return self.daemon.read_bytes().decode()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RefusalError(f"{self.daemon} can't be read: {reason(error)}; see who may") from error
        except UnicodeDecodeError as error:
            raise RefusalError(f"{self.daemon} is no UTF-8 ({error}); mend it first") from error

    def write(self, text: str | None) -> None:
        real = Path(os.path.realpath(self.daemon))  # a link stays one
        try:
            if text is None:
                real.unlink(missing_ok=True)
                return
            real.parent.mkdir(parents=True, exist_ok=True)
            status = os.stat(real) if real.exists() else None
            mode, owner = (status.st_mode & 0o7777, (status.st_uid, status.st_gid)) if status else (0o644, None)
            write_whole(real, text, mode, owner)
        except OSError as error:
            raise RefusalError(
                f"{self.daemon} can't be written: {reason(error)}; see the file system it lies on"
            ) from error


def registered(text: str | None, name: str, program: Path, *, as_default: bool, path: Path) -> str:
    """TEXT of the daemon.json at PATH, with PROGRAM as the runtime NAME."""
    if text is None or not text.strip():  # dockerd takes an empty file too
        text = "{}\n"
    values = read(text, path)
    other = values.get(RUNTIMES, {}).get(name)
    if other is not None and other != {"path": str(program)}:
        raise RefusalError(f"{path} has a runtime {quoted(name)} that is not this one; remove it there first")
    text = jsontext.with_member(text, [RUNTIMES, name], {"path": str(program)}) if other is None else text
    if as_default and values.get(DEFAULT) != name:
        text = jsontext.with_member(text, [DEFAULT], name)
    return text


def unregistered(text: str, name: str, before: str | None, path: Path) -> str:
    """TEXT without the runtime NAME; BEFORE is what the file was when that came in."""
    values = read(text, path)
    earlier = read(before, path) if before is not None and before.strip() else {}
    if values.get(DEFAULT) == name:
        if before is not None and DEFAULT in earlier:
            text = jsontext.with_value_of(text, DEFAULT, before)
        else:
            text = jsontext.without_member(text, [DEFAULT])
    if name in values.get(RUNTIMES, {}):
        alone = len(values[RUNTIMES]) == 1 and RUNTIMES not in earlier
        text = jsontext.without_member(text, [RUNTIMES] if alone else [RUNTIMES, name])
    return text


def spelt_out(text: str | None, path: Path) -> str:
    """TEXT of the daemon.json at PATH, with what dockerd has for our keys where they are missing."""
    if text is None or not text.strip():
        text = "{}\n"
    values = read(text, path)
    text = text if RUNTIMES in values else jsontext.with_member(text, [RUNTIMES], {})
    return text if values.get(DEFAULT) else jsontext.with_member(text, [DEFAULT], "runc")


def read(text: str, path: Path) -> dict[str, Any]:
    import jsonschema  # a tenth of a second, which most commands don't need

    try:
        values = jsontext.read(text)
        jsonschema.validate(values, SCHEMA)
    except (ValueError, RecursionError) as error:
        raise RefusalError(f"{path} is not the JSON that dockerd reads: {error}; mend it first") from error
    except jsonschema.ValidationError as error:
        place = ".".join(map(str, error.absolute_path)) or "it"
        raise RefusalError(f"{path} is not what dockerd reads: {place}: {error.message}; mend it first") from error
    return dict(values)


def default_runtime(daemon: Path) -> str:
    """The path of the runtime that dockerd takes for containers that name none, where daemon.json says one with a
    path (a name alone, as nvidia-ctk writes it, is looked for on PATH); "" else. Raises RefusalError for one with
    arguments, which a low-level runtime of ours can't have, and for one that isn't there.
    """
    text = Registration(daemon, daemon).text()
    values = read(text, daemon) if text is not None and text.strip() else {}
    runtime = values.get(RUNTIMES, {}).get(values.get(DEFAULT, ""), {})
    if runtime.get("runtimeArgs"):
        raise RefusalError(
            f"{daemon} has the default runtime {quoted(values[DEFAULT])} with arguments, which would be lost; "
            "configure without --set-as-default",
        )
    path = str(runtime.get("path", ""))
    found = shutil.which(path) if path else ""
    if found is None:
        raise RefusalError(f"{daemon} has the default runtime {quoted(path)}, which isn't there; mend it first")
    return found


def digest(text: str | None) -> str:
    return hashlib.sha256((text or "").encode()).hexdigest()
