"""One CDI specification: its text, JSON or YAML, and whether it is one (cncf-tags/container-device-interface, SPEC.md).

What isn't is left out whole, as engines do. The text may be anything: what comes out is small, a tree, and as
cdi.schema.json has it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runai_runtime.errors import quoted

LARGEST = 1 << 20  # characters of a specification, those that are there by a reference of YAML's included
DEEPEST = 16  # of objects and lists in each other; the format has 6

# The versions up to 1.0.0, and what came with them: a specification of an earlier one that has it is none.
VERSIONS = {"0.3.0": 3, "0.4.0": 4, "0.5.0": 5, "0.6.0": 6, "0.7.0": 7, "0.8.0": 8, "1.0.0": 10}
SINCE = {"annotations": 6, "additionalGids": 7, "intelRdt": 7}
SINCE_OF_MOUNT = {"type": 4}
SINCE_OF_NODE = {"hostPath": 5}
DIGIT_FIRST = 5  # in the name of a device


class FormatError(Exception):
    """What is wrong with a specification, as the end of a sentence."""


def read_spec(name: str, text: bytes) -> dict[str, Any]:
    """The specification that the file NAME, of which the end tells the format, has. Raises FormatError."""
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError("it is not UTF-8") from error
    values = from_json(decoded) if name.endswith(".json") else from_yaml(decoded)
    refuse_large(values)
    refuse_faults(values)
    refuse_newer_parts(values)
    return dict(values)


def from_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"it is not valid JSON ({type(error).__name__})") from error


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Whoever reads one of two values sees another specification than who reads the other."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise FormatError("it has a key twice in one object")
    return values


def from_yaml(text: str) -> Any:
    """PyYAML's safe loader, fed only with what it can load in bounds: it goes as deep as the text does, in C without an
    end, and merged keys (<<) can become more than there is memory for.
    """
    import yaml

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=base):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise FormatError("it is nested too deeply")
            if getattr(event, "tag", None) or getattr(event, "value", "") == "<<":
                raise FormatError("it has tags or merged keys, which no specification needs")
        loader = base(text)
        try:
            node = loader.get_single_node()
            refuse_repeated(node)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise FormatError(f"it is not valid YAML ({type(error).__name__})") from error


def refuse_repeated(node: Any) -> None:
    """What unique() does for JSON, on a YAML document's nodes."""
    seen, rest = set(), [node]
    while rest:
        node = rest.pop()
        if id(node) in seen or not isinstance(getattr(node, "value", None), list):
            continue
        seen.add(id(node))
        if node.id == "mapping":
            unique([(str(key.value), None) for key, _ in node.value])
            rest += [value for _, value in node.value]
        else:
            rest += node.value


def refuse_large(values: object) -> None:
    """A reference costs nothing until it is followed: a text of 1 KiB can stand for more than fits anywhere, or have
    itself in it.
    """
    left, rest = LARGEST, [values]
    while rest:
        value = rest.pop()
        left -= 1
        if isinstance(value, dict):
            rest += value.keys()
            rest += value.values()
        elif isinstance(value, list):
            rest += value
        elif isinstance(value, str):
            left -= len(value)
        elif isinstance(value, float):
            raise FormatError("it has a number that isn't whole")
        if left < len(rest):
            raise FormatError(f"it stands for more than {LARGEST} characters")


def refuse_faults(values: object) -> None:
    import jsonschema

    schema = json.loads(Path(__file__).with_name("cdi.schema.json").read_text(encoding="utf-8"))
    error = next(iter(jsonschema.Draft202012Validator(schema).iter_errors(values)), None)
    if error is not None:
        place = error.json_path.removeprefix("$").lstrip(".")
        raise FormatError(f"its {quoted(place)} is not as the format has it" if place else "it is no specification")


def refuse_newer_parts(spec: dict[str, Any]) -> None:
    """What SPEC says beside its version's leave, and what a schema can't tell."""
    version = VERSIONS.get(spec["cdiVersion"].removeprefix("v"), 0)
    if not version:
        raise FormatError(f"its cdiVersion is none of {', '.join(VERSIONS)}")
    names = [device["name"] for device in spec["devices"]]
    if len(set(names)) < len(names):
        raise FormatError("it has a device twice")
    if version < DIGIT_FIRST and any(name[0].isdigit() for name in names):
        raise FormatError("the name of a device begins with a digit, which its cdiVersion doesn't have")
    for edits in (spec.get("containerEdits", {}), *(device["containerEdits"] for device in spec["devices"])):
        refuse_newer(edits, SINCE, version)
        for mount in edits.get("mounts", []):
            refuse_newer(mount, SINCE_OF_MOUNT, version)
            if "type" not in mount and not {"bind", "rbind"} & set(mount.get("options", [])):
                raise FormatError("it has a mount with neither a type nor bind among its options")
        for node in edits.get("deviceNodes", []):
            refuse_newer(node, SINCE_OF_NODE, version)
    for part in (spec, *spec["devices"]):
        refuse_newer(part, SINCE, version)


def refuse_newer(part: dict[str, Any], since: dict[str, int], version: int) -> None:
    for key in part:
        if since.get(key, 0) > version:
            raise FormatError(f"it has {key}, which its cdiVersion doesn't have")
