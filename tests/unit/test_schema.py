"""The configuration: the schema, the short check of the hot path, the example and the documentation say the same."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runai_runtime.configure import configure
from runai_runtime.errors import RefusalError
from runai_runtime.host import KEYS, LARGEST, Host, check, read_host
from runai_runtime.schema import fault_of, schema

TOP = Path(__file__).parents[2]
LEAST = {"runtime": "/r", "hook": "/h", "libvgpu": "/l"}
GOOD: dict[str, list[Any]] = {
    **{key: ["/", "/a b", "/ä", "/a/../b"] for key in ("runtime", "hook", "libvgpu", "agent", "fitted", "state")},
    "behind_nvidia": [[], ["/x"], ["/x", "/y"]],
    "cdi_spec_dirs": [[], ["/etc/cdi"], ["/x", "/x"]],
    "driver": [{}, {"devices": "/d"}, {"libraries": ["/a"], "programs": []}],
    "log": ["", "/var/log/x"],
    "enforcement": ["auto", "agent", "interposer"],
    "allow_sys_admin": [True, False],
    "devices_let_in": [[], ["/dev/dri"], ["/dev/nvidia-modeset", "/dev/dri"]],
    "default_share": ["0", "0.3", "1g"],
    "largest_share": ["1", "30%", "512MiB"],
    "without_request": ["leave", "refuse", "default"],
    "placement": ["pack", "spread"],
    "overcommit": [True, False],
    "reserve": ["0", "512m", "5%"],
    "wait": [0, 3600, 0.5],
}
BAD: list[Any] = [
    *(
        None,
        0,
        1,
        -1,
        2.5,
        3601,
        float("nan"),
        True,
        "",
        "x",
        "a/b",
        "/a\n",
        "/a\t",
        "/a\0",
        "/\ud800",
        "/\udcff",
        "0\n",
        "00",
        "1k\n",
    ),
    *(
        "2",
        "1.5",
        "0.0",
        ".",
        "1.",
        "3gg",
        "٣g",
        "9" * 25,
        "9" * 24 + "g",
        "AUTO",
        "/dev/dri",
        [],
        {},
        [1],
        ["x"],
        ["/x\n"],
    ),
    *(
        ["/dev/dri", "/dev/sda"],
        {"x": 1},
        {"devices": "dev"},
        {"libraries": "/x"},
        {"programs": ["x"]},
        [["/x"]],
        {"": {}},
    ),
]

keys = st.sampled_from(list(GOOD))
values = st.one_of(*(st.sampled_from(those) for those in (*GOOD.values(), BAD)), st.text(max_size=6), st.integers())
right = st.fixed_dictionaries({}, optional={key: st.sampled_from(GOOD[key]) for key in GOOD})
wrong = st.dictionaries(keys | st.text(max_size=8), values, max_size=2)


@given(right, wrong, st.sets(st.sampled_from(list(LEAST)), max_size=1))
@example({"without_request": "default"}, {}, set())
@example({"without_request": "default"}, {"default_share": "0"}, set())
@example({}, {"without_request": "default", "default_share": 5}, set())
def test_schema_and_short_check_agree(right: dict[str, Any], wrong: dict[str, Any], missing: set[str]) -> None:
    config = {key: value for key, value in (LEAST | right | wrong).items() if key not in missing}
    short, long = check(config), fault_of(config)
    assert bool(short) == bool(long), (short, long)
    assert long.isprintable()


@pytest.mark.parametrize("key", GOOD)
def test_they_agree_on_each_value_of_each_key(key: str) -> None:
    for value in BAD:
        config = LEAST | {key: value}
        assert bool(check(config)) == bool(fault_of(config)), value
        if fault_of(config):
            assert f'"{key}"' in fault_of(config)


@pytest.mark.parametrize("key", GOOD)
def test_good_values(key: str) -> None:
    for value in GOOD[key]:
        assert fault_of({"default_share": "1g"} | LEAST | {key: value}) == ""
    assert any(fault_of(LEAST | {key: value}) for value in BAD)


@pytest.mark.parametrize("config", [None, [], "x", 5, {}])
def test_what_is_no_configuration(config: object) -> None:
    assert check(config)
    assert fault_of(config)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"wait": -1}, 'its "wait" is "-1", and should be a number of seconds from 0 to 3600'),
        ({"state": "run"}, 'its "state" is "run", and should be an absolute path'),
        ({"driver": {"devices": 5}}, 'its "driver"."devices" is "5", and should be an absolute path'),
        ({"overcomit": True}, 'it has "overcomit", which is no key of this version'),
        ({"without_request": "default"}, 'its "without_request" is "default", and it has no "default_share"'),
    ],
)
def test_a_sentence_names_the_key_and_what_it_should_be(more: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    assert fault_of(LEAST | more) == sentence
    with pytest.raises(RefusalError, match="the configuration can't be used: it"):
        configure(LEAST | more, tmp_path / "c", tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_schema_keys_and_documentation_are_the_same() -> None:
    properties = schema()["properties"]
    named = [*properties, *(f"driver.{key}" for key in properties["driver"]["properties"])]
    lines = (TOP / "docs/configuration.md").read_text().splitlines()
    assert sorted(line.split("`")[1] for line in lines if line.startswith("| `")) == sorted(named)
    assert set(properties) == KEYS == set(GOOD)


def test_the_example_has_every_key_at_its_default() -> None:
    config = json.loads((TOP / "config.json.example").read_text())
    assert fault_of(config) == ""
    assert set(config) == KEYS
    defaults = {key: value["default"] for key, value in schema()["properties"].items() if "default" in value}
    assert {key: config[key] for key in defaults} == defaults
    least = {key: config[key] for key in ("runtime", "hook", "libvgpu", "fitted")}
    mine, theirs = Host("", config), Host("", least)
    assert {key: getattr(mine, key) for key in Host.__slots__} == {key: getattr(theirs, key) for key in Host.__slots__}


def test_a_configuration_that_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    os.mkfifo(path)
    with pytest.raises(RefusalError, match="no regular file"):
        read_host(str(path))
    path.unlink()
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(RefusalError, match="can't be right"):
        read_host(str(path))
    path.write_text("[" * 100_000)
    with pytest.raises(RefusalError, match="not valid JSON"):
        read_host(str(path))
