"""The Debian package, unpacked: tests/docker/test_packaged.py installs it."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from runai_runtime import packaged
from runai_runtime.configure import OF_INSTALLATION, defaults, read_values
from runai_runtime.ctl import app
from runai_runtime.host import KEYS, Host, check
from runai_runtime.packaged import DEFAULT_PROGRAM
from runai_runtime.registration import Registration

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (wheel,) = (TOP / "dist").glob("*.whl")
    folder = tmp_path_factory.mktemp("package")
    command: list[str | Path] = [sys.executable, "-I", TOP / "packaging/deb.py", wheel, folder]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    subprocess.run(["/usr/bin/dpkg-deb", "--raw-extract", made, folder / "root"], check=True)
    return folder / "root"


def test_it_depends_on_what_the_wheel_needs(package: Path) -> None:
    control = (package / "DEBIAN/control").read_text()
    needed = re.findall(r'^    "([\w-]+)>=([\d.]+)",$', (TOP / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert len(needed) == 6
    for name, floor in needed:
        package_name = f"python3-{name.lower().replace('pyyaml', 'yaml')}"
        assert f"{package_name} (>= {floor})" in control or name == "nvidia-ml-py"
    assert (package / "usr/lib/runai-runtime/package/pynvml.py").exists()


def test_its_libraries_are_the_wheels(package: Path) -> None:
    native = package / "usr/lib/runai-runtime/package/runai_runtime/native"
    for path in Path(defaults()["libvgpu"]).glob("*.so.1"):
        assert (native / path.name).read_bytes() == path.read_bytes()
    assert all(path.stat().st_mode & 0o111 for path in native.glob("runai-*"))


def page(package: Path, name: str) -> str:
    (path,) = package.glob(f"usr/share/man/man?/{name}.gz")
    return re.sub(r"\\f[BIR]|\\", "", gzip.decompress(path.read_bytes()).decode())


def test_the_pages_have_all_commands_and_keys(package: Path) -> None:
    text = page(package, "runai-ctl.8")
    group: Any = typer.main.get_command(app)
    assert len(group.commands) > 8
    for name, command in group.commands.items():
        for title, inner in getattr(command, "commands", {"": command}).items():
            assert f".SS {name} {title}".strip() in text
            assert all(option in text for entry in inner.params for option in entry.opts if option.startswith("-"))
    text = page(package, "runai-runtime.json.5")
    assert [key for key in KEYS if f"{key}: " not in text] == []
    assert page(package, "runai-docker.1").startswith(".")


def test_the_examples_can_be_used(package: Path) -> None:
    examples = package / "usr/share/doc/runai-runtime/examples"
    assert check(json.loads((examples / "config.json").read_text())) == ""
    program = json.loads((examples / "daemon.json").read_text())["runtimes"]["runai"]["path"]
    assert program == "/usr/lib/runai-runtime/runai-runtime"


def test_from_a_wheel_the_program_lies_elsewhere() -> None:
    assert Path("/usr/local/bin/runai-runtime") == DEFAULT_PROGRAM


def test_the_paths_of_another_installation_are_left_out(tmp_path: Path) -> None:
    """An upgrade into another folder, or from the wheel to the package: the hook moves along, the rest is kept."""
    other = {key: f"/old/lib/runai_runtime/{path}" for key, path in OF_INSTALLATION.items()}
    kept = {"runtime": "/r", "state": "/s", "enforcement": "agent"}
    (tmp_path / "config.json").write_text(json.dumps(kept | other))
    assert read_values(tmp_path / "config.json") == kept
    own = {"hook": "/own/runai-hook", "libvgpu": "/own", "agent": "/own/runai-agent"}
    (tmp_path / "config.json").write_text(json.dumps(kept | own))
    assert read_values(tmp_path / "config.json") == kept | own
    assert Host("", defaults()).hook.endswith(OF_INSTALLATION["hook"])


def set_up(folder: Path) -> tuple[Path, Path]:
    """A host as configure leaves it, with what it wrote in FOLDER: its configuration, and its daemon.json."""
    config, daemon, program = folder / "etc/config.json", folder / "daemon.json", folder / "runai-runtime"
    config.parent.mkdir()
    paths = {"state": str(folder / "state"), "fitted": str(folder / "fitted")}
    config.write_text(json.dumps(defaults() | paths))
    program.write_text("#!/bin/sh\n")
    Registration(config.with_name("registration.json"), daemon).register("runai-unit", program, as_default=False)
    return config, daemon


@pytest.mark.parametrize("damaged", ["config.json", "registration.json"])
def test_an_upgrade_of_a_damaged_host_is_done_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: str
) -> None:
    config, _ = set_up(tmp_path)
    config.with_name(damaged).write_text("{")
    packaged.installed(config)
    said = capsys.readouterr().err
    assert said.startswith("runai-runtime: this host is still set up for the version before: ")
    assert damaged in said
    assert said.endswith("set it up again with: runai-ctl configure\n")
    assert (tmp_path / "runai-runtime").read_text() == "#!/bin/sh\n"


def test_a_removal_leaves_the_configuration(tmp_path: Path) -> None:
    config, daemon = set_up(tmp_path)
    text = config.read_text()
    packaged.removed(config)
    assert not daemon.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["etc"]
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]
    assert config.read_text() == text
