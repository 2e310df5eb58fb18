"""runai-ctl as an administrator meets it: one sentence, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from runai_runtime import configure as configuring
from runai_runtime import ctl
from runai_runtime.ctl_start import plain_status
from runai_runtime.errors import RefusalError
from runai_runtime.host import DEFAULT_PATH, absolute
from runai_runtime.registration import Registration
from runai_runtime.status import status

START = "import sys; from runai_runtime.{module} import main; sys.argv[0] = 'runai-ctl'; main()"


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_damaged_configuration_is_left_alone(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.json"
    config.write_bytes(text.encode("latin-1"))
    program = str(Path(sys.executable).with_name("runai-ctl"))
    command = [program, "configure", f"--config={config}", f"--program={tmp_path}/program"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"runai-ctl: {config} ")
    assert "Traceback" not in done.stderr
    assert config.read_bytes() == text.encode("latin-1")


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_host_without_a_driver_is_refused_and_left_alone(tmp_path: Path, options: list[str]) -> None:
    config, daemon = tmp_path / "etc/config.json", tmp_path / "daemon.json"
    config.parent.mkdir()
    values = {"runtime": "/bin/true", "state": f"{tmp_path}/state", "fitted": f"{tmp_path}/fitted"}
    config.write_text(json.dumps(values | {"driver": {"libraries": [str(tmp_path)]}}))
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    paths = [f"--config={config}", f"--program={tmp_path}/program", f"--daemon-json={daemon}"]
    done = CliRunner().invoke(ctl.app, ["configure", *paths, *options])
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "this host has no NVIDIA driver" in done.stderr
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["etc"]


@pytest.mark.parametrize(
    ("given", "registered"),
    [
        ({}, ("gpus", "gpus")),  # a bare one, as after an upgrade
        ({"name": "other"}, ("other", "other")),
        ({"default": False}, ("gpus", None)),
    ],
)
def test_configure_keeps_what_is_registered(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: dict[str, Any],
    registered: tuple[str, str | None],
) -> None:
    config, daemon, program = tmp_path / "config.json", tmp_path / "daemon.json", tmp_path / "program"
    daemon.write_text("{}\n")
    Registration.beside(config, daemon).register("gpus", program, as_default=True)
    written: list[tuple[Any, ...]] = []

    def set_up(*what: Any) -> list[str]:
        written.append(what)
        return []

    monkeypatch.setattr(configuring, "configure", set_up)
    options: dict[str, Any] = {"runtime": "", "program": None, "name": "", "daemon": None, "default": None}
    other = "/opt/other/lib/python3.11/site-packages"
    program.write_text(
        configuring.PROGRAM.format(interpreter="x", runtime="r", folders=[other, "/x"], configuration="c", more="")
    )
    options |= {"register": True, "dry_run": False, "reload": False, "restart": False}
    ctl.configure(config=config, **(options | given))
    assert written == [({}, config, program)]
    shown = capsys.readouterr().out
    assert f"{program} was set up by the installation in {other}; it is this one's now, in /" in shown
    assert ("Docker keeps it as the default until it is restarted: " in shown) == (given == {"default": False})
    name, default = registered
    said = json.loads(daemon.read_text())
    assert (said["runtimes"], said.get("default-runtime")) == ({name: {"path": str(program)}}, default)
    back: dict[str, Any] = {"program": None, "name": "", "daemon": None, "reload": False, "restart": False}
    ctl.unconfigure(config=config, force=True, **back)
    assert daemon.read_text() == "{}\n"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("status", (DEFAULT_PATH, False)),
        ("status --format=json --config a/b", ("a/b", True)),
        ("status --format json --format table", (DEFAULT_PATH, False)),
        ("status --config=a=b", ("a=b", False)),
    ],
)
def test_a_status_that_needs_no_typer(words: str, asked: tuple[str, bool]) -> None:
    assert plain_status(words.split()) == asked


@pytest.mark.parametrize(
    "words",
    ["", "top", "--help", "status --help", "status --format", "status --format=odd", "status --config=", "status x"],
)
def test_the_rest_is_typers(words: str) -> None:
    assert plain_status(words.split()) is None


@pytest.mark.parametrize("module", ["ctl_start", "ctl"])
def test_status_refuses_in_both_ways_alike(tmp_path: Path, module: str) -> None:
    command = [sys.executable, "-c", START.format(module=module), "status", f"--config={tmp_path}/none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"runai-ctl: the configuration {tmp_path}/none can't be read: ")
    assert done.stderr.count("\n") == 1


def test_status_is_there_without_what_takes_long_to_import() -> None:
    code = "import sys; import runai_runtime.ctl_start, runai_runtime.status, runai_runtime.tables; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"typer", "click", "pydantic", "rich.console", "pynvml", "jsonschema", "elftools"} & {
        *done.stdout.split()
    }


@pytest.mark.parametrize(("place", "said"), [("/dev/full", 1), ("a closed pipe", 0)])
def test_output_that_nobody_takes(place: str, said: int) -> None:
    code = (
        "import sys; from runai_runtime import ctl_start, status; sys.argv = ['runai-ctl', 'status']; "
        "status.status = lambda *_: 'text'; ctl_start.main()"
    )
    reader, writer = os.pipe() if place != "/dev/full" else (os.open(place, os.O_RDONLY), os.open(place, os.O_WRONLY))
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr.count("\n")) == (1, said)
    assert done.stderr.startswith("runai-ctl: the output can't be written: " if said else "")


def test_its_version() -> None:
    done = CliRunner().invoke(ctl.app, ["--version"])
    assert (done.exit_code, done.stdout.strip()) == (0, metadata.version("runai-runtime"))


def test_a_removed_folder_matters_to_relative_paths_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert absolute("/etc/config.json") == "/etc/config.json"
    done = CliRunner().invoke(ctl.app, ["logs", "--config=config.json"])
    assert (done.exit_code, "config.json can't be found from the current folder" in done.stderr) == (1, True)
    with pytest.raises(RefusalError, match="write its whole path"):
        status("config.json", as_json=False)
