"""The Debian package, unpacked: tests/docker/test_packaged.py installs it."""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from runai_runtime import configure as configuring
from runai_runtime import packaged
from runai_runtime.configure import OF_INSTALLATION, defaults, read_values
from runai_runtime.ctl import app
from runai_runtime.errors import RefusalError
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


@pytest.mark.parametrize("text", [b"{", b"\xff"])
@pytest.mark.parametrize("damaged", ["config.json", "registration.json"])
def test_an_upgrade_of_a_damaged_host_is_done_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: str, text: bytes
) -> None:
    config, _ = set_up(tmp_path)
    config.with_name(damaged).write_bytes(text)
    packaged.installed(config)
    said = capsys.readouterr().err
    assert said.startswith("runai-runtime: this host is still set up for the version before: ")
    assert damaged in said
    assert said.endswith("set it up again with: runai-ctl configure\n")
    assert (tmp_path / "runai-runtime").read_text() == "#!/bin/sh\n"


def test_commands_of_another_installation_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runai-ctl").touch(0o755)
    monkeypatch.setattr(packaged, "USUAL_PATH", f"{tmp_path}:/usr/bin")
    packaged.installed(tmp_path / "config.json")
    said = f"runai-runtime: {tmp_path}/runai-ctl of another installation comes before /usr/bin on PATH: "
    assert capsys.readouterr().out.startswith(f"{said}rm {tmp_path}/runai-ctl\n")


def test_what_the_package_wrote_is_of_one_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuring, "HOME", tmp_path / "home")
    program = tmp_path / "program"
    assert configuring.installation_of(program) == ""
    texts = {}
    for folder in (tmp_path / "home/0.1-a", tmp_path / "home/0.2-b", tmp_path / "venv/site-packages"):
        values = {"interpreter": "i", "runtime": "r", "folders": [str(folder)], "configuration": "c", "more": ""}
        program.write_text(configuring.PROGRAM.format(**values))
        texts[folder.name] = configuring.installation_of(program)
    home = str(tmp_path / "home")
    assert texts == {"0.1-a": home, "0.2-b": home, "site-packages": f"{tmp_path}/venv/site-packages"}
    program.write_text("#!/bin/sh\n")
    assert configuring.installation_of(program) == ""


def test_an_upgrade_that_fails_in_any_way_is_done_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[str]:
        raise TypeError("odd")

    config, _ = set_up(tmp_path)
    monkeypatch.setattr(configuring, "configure", fail)
    packaged.installed(config)
    assert "set up for the version before: TypeError: odd\n" in capsys.readouterr().err
    monkeypatch.setattr(configuring, "configure", lambda *_: ["no kernel"])
    packaged.installed(config)
    said = capsys.readouterr()
    assert said.out == "runai-runtime: shares will be kept by libvgpu alone, without an agent: no kernel\n"


def test_a_removal_that_fails_in_any_way_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd")

    monkeypatch.setattr(packaged, "removed", fail)
    monkeypatch.setattr(sys, "argv", ["-c", "removed"])
    with pytest.raises(SystemExit) as ended:
        packaged.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("runai-runtime: UnicodeDecodeError: ")


def test_a_removal_leaves_the_configuration(tmp_path: Path) -> None:
    config, daemon = set_up(tmp_path)
    config.rename(config.with_name("real.json"))
    config.symlink_to("real.json")
    text = config.read_text()
    packaged.removed(config)
    assert not daemon.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["etc"]
    assert sorted(path.name for path in config.parent.iterdir()) == ["config.json", "real.json"]
    assert config.is_symlink()
    assert config.read_text() == text


def test_an_upgrade_leaves_the_version_before_and_what_a_program_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HOME may be a link to another disk, for all that."""
    for name in ("0.1-a", "0.2-b", "0.3-c", "0.4-d", "package"):
        (tmp_path / "disk" / name / "runai_runtime").mkdir(parents=True)
    home = tmp_path / "home"
    home.symlink_to("disk")
    monkeypatch.setattr(packaged, "HOME", home)
    monkeypatch.setattr(packaged, "PACKAGE", tmp_path / "disk/0.4-d/runai_runtime")
    assert packaged.default_program() == home / "runai-runtime"
    other = tmp_path / "other"
    other.write_text(f"#!{tmp_path}/disk/0.1-a/runai_runtime/native/runai-launch\n")
    config, daemon = set_up(tmp_path)
    assert daemon.exists()
    daemon.write_text(json.dumps(json.loads(daemon.read_text()) | {"runtimes": {"x": {"path": str(other)}}}))
    monkeypatch.setattr(configuring, "configure", lambda *_: [])
    packaged.installed(config, "0.3-c")
    assert sorted(path.name for path in home.iterdir()) == ["0.1-a", "0.3-c", "0.4-d", "package"]


@pytest.mark.parametrize("refused", ["at the look at the host", "at the program"])
def test_a_host_that_can_t_be_set_up_anew_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    config, program = tmp_path / "config.json", tmp_path / "program"
    config.with_name("real.json").write_text("{}")
    config.symlink_to("real.json")
    program.mkdir()
    values: dict[str, Any] = {"runtime": "/bin/true", "state": str(tmp_path / "s"), "fitted": str(tmp_path / "f")}
    values["driver"] = {"libraries": [str(tmp_path)]}  # none of the driver's
    if refused == "at the program":
        monkeypatch.setattr(configuring, "scan_in_child", lambda _: None)
        monkeypatch.setattr(configuring, "agent_faults", lambda *_: [])
    with pytest.raises((RefusalError, IsADirectoryError)):
        configuring.configure(values, config, program)
    assert config.is_symlink() and config.read_text() == "{}"


def script(name: str, top: Path) -> list[str]:
    """A maintainer script, for files below TOP."""
    text = (TOP / "packaging" / name).read_text().replace("@KEPT@", "1-a")
    return ["/bin/sh", "-c", re.sub(r"/(usr/lib|etc|var/lib|run)/runai", rf"{top}/\1/runai", text), name]


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The package as dpkg unpacks it, with a module that says what it was asked for."""
    package = tmp_path / "usr/lib/runai-runtime/package"
    (package / "runai_runtime/native").mkdir(parents=True)
    (package / "runai_runtime/packaged.py").write_text("import sys\ndef main(): print(sys.argv[1:])\n")
    (package / "runai_runtime/native/runai-hook").write_text("hook")
    return package


def test_an_installation_mends_what_is_damaged(tmp_path: Path, unpacked: Path) -> None:
    install = [*script("postinst", tmp_path), "configure"]
    said = subprocess.run(install, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said == "['installed', '']\n"
    hook = unpacked / "runai_runtime/native/runai-hook"
    kept = unpacked.parent / "1-a/runai_runtime/native/runai-hook"
    assert kept.samefile(hook)
    kept.write_text("damaged")
    (kept.parents[1] / "packaged.py").unlink()
    with kept.open() as running:
        hook.unlink()  # dpkg unpacks a new file
        hook.write_text("hook")
        said = subprocess.run(install, stdout=subprocess.PIPE, text=True, check=True).stdout
        assert running.read() == "damaged"
    assert said == "['installed', '1-a']\n"
    assert kept.read_text() == "hook"
    assert [path.name for path in kept.parent.iterdir()] == ["runai-hook"]


def test_a_removal_asks_what_is_left_of_the_package(tmp_path: Path, unpacked: Path) -> None:
    remove = [*script("prerm", tmp_path), "remove"]
    (unpacked.parent / "current").symlink_to("gone")
    done = subprocess.run(remove, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "['removed']\n")
    shutil.rmtree(unpacked)
    done = subprocess.run(remove, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "install it again first" in done.stderr


def test_a_purge_leaves_another_installation(tmp_path: Path) -> None:
    folders = [tmp_path / path for path in ("etc/runai-runtime", "var/lib/runai-runtime", "run/runai")]
    for folder in folders:
        folder.mkdir(parents=True)
    record = folders[0] / "registration.json"
    record.touch()
    purge = [*script("postrm", tmp_path), "purge"]
    said = subprocess.run(purge, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "another installation" in said
    assert all(folder.is_dir() for folder in folders)
    record.unlink()
    assert subprocess.run(purge, stdout=subprocess.PIPE, text=True, check=True).stdout == ""
    assert not any(folder.exists() for folder in folders)


def test_versions_before_a_release_are_older() -> None:
    spec = importlib.util.spec_from_file_location("deb", TOP / "packaging/deb.py")
    assert spec and spec.loader
    deb = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(deb)
    ordered = ["0.1.9", "0.2.0.dev1", "0.2.0a1", "0.2.0b2", "0.2.0rc1.dev3", "0.2.0rc1", "0.2.0", "0.2.0.post1"]
    names = [deb.debian_version(version) for version in ordered]
    assert names[5:7] == ["0.2.0~rc1", "0.2.0"]
    for older, newer in itertools.pairwise(names):
        subprocess.run(["/usr/bin/dpkg", "--compare-versions", older, "lt", newer], check=True)


@pytest.mark.parametrize("theirs", ["_docker", "__start_docker"])
def test_bash_reads_docker_s_completion_once(theirs: str) -> None:
    file = TOP / "packaging/completions/runai-docker.bash"
    load = f"_comp_load() {{ echo read; {theirs}() {{ echo completed; }}; }}"
    ask = "COMP_WORDS=(runai-docker r); COMP_CWORD=1; COMP_LINE='runai-docker r'; COMP_POINT=14; _runai_docker"
    done = subprocess.run(
        ["/bin/bash", "-c", f"source {file}; {load}; {ask}; {ask}"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.split() == ["read", "completed", "completed"]
