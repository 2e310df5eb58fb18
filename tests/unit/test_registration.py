"""daemon.json: our keys come and go, and every other byte stays."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runai_runtime import registration as module
from runai_runtime.errors import RefusalError
from runai_runtime.registration import Registration, default_runtime, registered, unregistered
from tests.docker.newer import binaries

PROGRAM = Path("/usr/local/bin/runai-runtime")
OURS = {"path": str(PROGRAM)}

TEXTS = {
    "nothing": "{}",
    "nothing on a line": "{}\n",
    "nothing in two lines": "{\n}\n",
    "one line": '{"debug": true}',
    "four blanks": '{\n    "debug": true,\n    "log-level": "warn"\n}\n',
    "two blanks": '{\n  "debug": true,\n  "runtimes": {\n    "x": {\n      "path": "/x"\n    }\n  }\n}\n',
    "tabs": '{\n\t"debug": true,\n\t"data-root": "/d"\n}\n',
    "Windows": '{\r\n  "debug": true\r\n}\r\n',
    "a mark": '\ufeff{\n  "debug": true\n}\n',
    "odd blanks": '\n {"debug" :true  , "hosts":[ "unix:///x" ]\n}\n\n',
    "nvidia": """\
{
    "runtimes": {
        "nvidia": {
            "args": [],
            "path": "nvidia-container-runtime"
        }
    },
    "default-runtime": "nvidia"
}
""",
    "no runtimes": '{\n    "runtimes": {},\n    "debug": false\n}\n',
    "runtimes in a line": '{"runtimes": {"x": {"path": "/x"}}, "debug": false}',
    "letters": '{\n    "labels": ["ä\\u00e4\\n\\"{}"],\n    "a{\\"b": 1e3\n}',
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Registration:
    return Registration(tmp_path / "registration.json", tmp_path / "daemon.json")


@pytest.mark.parametrize("as_default", [False, True])
@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_there_and_back(here: Registration, text: str, as_default: bool) -> None:
    here.daemon.write_bytes(text.encode())
    here.register("runai", PROGRAM, as_default=as_default)
    before, after = json.loads(text.removeprefix("\ufeff")), json.loads(here.daemon.read_bytes().decode("utf-8-sig"))
    wanted = before | {"runtimes": before.get("runtimes", {}) | {"runai": OURS}}
    assert after == (wanted | {"default-runtime": "runai"} if as_default else wanted)
    assert list(after)[: len(before)] == list(before)
    assert ("\r\n" in text) == ("\r\n" in here.daemon.read_bytes().decode())
    written = here.daemon.read_bytes()
    here.register("runai", PROGRAM, as_default=as_default)
    assert here.daemon.read_bytes() == written
    here.unregister()
    assert here.daemon.read_bytes() == text.encode()
    assert not here.path.exists()


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_changed_by_somebody_else_meanwhile(here: Registration, text: str) -> None:
    here.daemon.write_bytes(text.encode())
    here.register("runai", PROGRAM, as_default=True)
    theirs = json.loads(here.daemon.read_bytes().decode("utf-8-sig")) | {"mtu": 1400}
    here.daemon.write_text(json.dumps(theirs, indent=1))
    here.unregister()
    before = json.loads(text.removeprefix("\ufeff"))
    assert json.loads(here.daemon.read_text()) == before | {"mtu": 1400}


def test_without_a_file(here: Registration) -> None:
    here.register("runai", PROGRAM, as_default=False)
    assert here.daemon.read_text() == json.dumps({"runtimes": {"runai": OURS}}, indent=4) + "\n"
    assert here.daemon.stat().st_mode & 0o777 == 0o644
    here.unregister()
    assert not here.daemon.exists()


def test_an_empty_file(here: Registration) -> None:
    here.daemon.write_text("\n")
    here.register("runai", PROGRAM, as_default=False)
    assert json.loads(here.daemon.read_text()) == {"runtimes": {"runai": OURS}}
    here.unregister()
    assert here.daemon.read_text() == "\n"


def test_another_default_the_second_time(here: Registration) -> None:
    here.daemon.write_text(TEXTS["nvidia"])
    for as_default in (False, True, False):
        here.register("runai", PROGRAM, as_default=as_default)
        default = json.loads(here.daemon.read_text())["default-runtime"]
        assert default == ("runai" if as_default else "nvidia")
    here.unregister()
    assert here.daemon.read_text() == TEXTS["nvidia"]


def test_owner_mode_and_link_stay(here: Registration, tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text("{}")
    real.chmod(0o600)
    os.chown(real, 12, 34)
    here.daemon.symlink_to("real.json")
    here.register("runai", PROGRAM, as_default=False)
    status = real.stat()
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o600, 12, 34)
    assert here.daemon.is_symlink()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n  // mine\n  "debug": true\n}', "line 2 column 3"),
        ('{"debug": true,}', "line 1 column"),
        ("[]", "not what dockerd reads"),
        ('{"runtimes": []}', "runtimes: "),
        ('{"runtimes": {"x": "/x"}}', "runtimes.x: "),
        ('{"default-runtime": 5}', "default-runtime: "),
        ('{"a": 1, "a": 2}', 'the key "a" is there twice'),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"runtimes": {"runai": {"path": "/other"}}}', "remove it there first"),
        ('{"a": "\udcff"}', "no UTF-8"),
        ("[" * 100000, "not the JSON that dockerd reads"),
    ],
)
def test_what_is_left_alone(here: Registration, text: str, said: str) -> None:
    here.daemon.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RefusalError, match=r"daemon\.json") as refusal:
        here.register("runai", PROGRAM, as_default=True)
    assert said in str(refusal.value)
    assert here.daemon.read_bytes() == text.encode(errors="surrogateescape")
    assert [path.name for path in here.daemon.parent.iterdir()] == ["daemon.json"]


def test_a_folder_in_its_place(here: Registration) -> None:
    here.daemon.mkdir()
    with pytest.raises(RefusalError, match="can't be read"):
        here.register("runai", PROGRAM, as_default=False)


@pytest.mark.parametrize("record", ["", "{}", "[]", "{"])
def test_a_damaged_record(here: Registration, record: str) -> None:
    here.daemon.write_text("{}")
    here.path.write_text(record)
    with pytest.raises(RefusalError, match="damaged"):
        here.unregister()
    assert here.daemon.read_text() == "{}"


def test_somebody_writes_at_the_same_moment(here: Registration, monkeypatch: pytest.MonkeyPatch) -> None:
    here.daemon.write_text("{}")
    real = module.registered

    def slow(*arguments: Any, **names: Any) -> str:
        if here.daemon.read_text() == "{}":
            here.daemon.write_text('{"debug": true}')
        return real(*arguments, **names)

    monkeypatch.setattr(module, "registered", slow)
    here.register("runai", PROGRAM, as_default=False)
    assert json.loads(here.daemon.read_text()) == {"debug": True, "runtimes": {"runai": OURS}}


def test_somebody_writes_all_the_time(here: Registration, monkeypatch: pytest.MonkeyPatch) -> None:
    here.daemon.write_text('{"n": 0}')
    real = module.registered

    def slow(*arguments: Any, **names: Any) -> str:
        here.daemon.write_text(json.dumps({"n": json.loads(here.daemon.read_text())["n"] + 1}))
        return real(*arguments, **names)

    monkeypatch.setattr(module, "registered", slow)
    with pytest.raises(RefusalError, match="somebody else"):
        here.register("runai", PROGRAM, as_default=False)


def test_the_default_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-ctk writes a name without a folder."""
    daemon = tmp_path / "daemon.json"
    assert default_runtime(daemon) == ""
    for text in ("{}", '{"default-runtime": "runc"}'):
        daemon.write_text(text)
        assert default_runtime(daemon) == ""
    daemon.write_text(TEXTS["nvidia"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RefusalError, match="which isn't there"):
        default_runtime(daemon)
    program = tmp_path / "nvidia-container-runtime"
    program.touch(0o755)
    assert default_runtime(daemon) == str(program)
    daemon.write_text(TEXTS["nvidia"].replace('"nvidia-container-runtime"', f'"{program}"'))
    assert default_runtime(daemon) == str(program)
    daemon.write_text('{"default-runtime": "x", "runtimes": {"x": {"path": "/x", "runtimeArgs": ["-v"]}}}')
    with pytest.raises(RefusalError, match="with arguments"):
        default_runtime(daemon)


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in ("odd blanks", "letters", "a mark")])
def test_dockerd_takes_it(here: Registration, name: str) -> None:
    folder = binaries()
    here.daemon.write_bytes(TEXTS[name].encode())
    here.register("runai", PROGRAM, as_default=True)
    dockerd = f"{folder}/usr/sbin/dockerd" if folder else "/usr/sbin/dockerd"
    command = [dockerd, "--validate", f"--config-file={here.daemon}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "configuration OK" in done.stderr + done.stdout, done.stderr


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
runtimes = st.dictionaries(
    st.text(min_size=1).filter(lambda name: name != "runai"), st.just({"path": "/x"}), max_size=3
)
files = st.dictionaries(st.text().filter(lambda name: name not in ("runtimes", "default-runtime")), values, max_size=4)
layouts = st.sampled_from([None, 0, 1, 2, 4, 8, "\t"])


@settings(deadline=None)
@given(files, st.none() | runtimes, st.none() | st.text(), layouts, st.booleans(), st.booleans())
def test_any_file(
    values: dict[str, Any], others: Any, default: str | None, indent: Any, letters: bool, as_default: bool
) -> None:
    if others is not None:
        values["runtimes"] = others
    if default is not None:
        values["default-runtime"] = default
    text = json.dumps(values, indent=indent, ensure_ascii=letters)
    daemon = Path("daemon.json")
    after = registered(text, "runai", PROGRAM, as_default=as_default, path=daemon)
    wanted = values | {"runtimes": (others or {}) | {"runai": OURS}}
    assert json.loads(after) == (wanted | {"default-runtime": "runai"} if as_default else wanted)
    back = unregistered(after, "runai", text, daemon)
    assert json.loads(back) == values
    if values and others != {}:  # an empty object has been opened for ours
        assert back == text
