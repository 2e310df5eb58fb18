"""The configuration's schema (config.schema.json), for whoever writes one. At create host.check() says the same."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import jsonschema

from runai_runtime.errors import quoted
from runai_runtime.host import is_share

FORMATS = jsonschema.FormatChecker(formats=())


@FORMATS.checks("share")
def is_share_text(value: object) -> bool:
    """What no pattern tells: a part is at most the whole, and no share is nothing."""
    return not isinstance(value, str) or is_share(value)


@FORMATS.checks("finite")
def is_finite(value: object) -> bool:
    """Python's JSON has a NaN, which is neither below nor above a bound."""
    return not isinstance(value, float) or math.isfinite(value)


@functools.cache
def schema() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(Path(__file__).with_name("config.schema.json").read_text(encoding="utf-8"))
    return read


def fault_of(values: object) -> str:
    """The first thing that is wrong with a configuration, as the end of a sentence: the key, what it is, and what it
    should be; "" if nothing is.
    """
    validator = jsonschema.Draft202012Validator(schema(), format_checker=FORMATS)
    errors = sorted(validator.iter_errors(values), key=lambda error: [str(part) for part in error.absolute_path])
    return sentence(errors[0], values) if errors else ""


def sentence(error: jsonschema.ValidationError, values: object) -> str:
    names = [part for part in error.absolute_path if isinstance(part, str)]
    properties = known(names[:-1])
    if "if" in error.absolute_schema_path or "then" in error.absolute_schema_path:
        return 'its "without_request" is "default", and it has no "default_share"'
    if not names or names[-1] not in properties:
        return whole(error)
    value: Any = values
    for name in names:
        value = value[name]
    shown = quoted(json.dumps(value)) if not isinstance(value, str) else quoted(value)
    key = ".".join(f'"{name}"' for name in names)
    if error.validator == "additionalProperties":
        shown = f"{shown}, with a key that is none of {', '.join(properties[names[-1]]['properties'])}"
    return f"its {key} is {shown}, and should be {properties[names[-1]]['title']}"


def known(names: list[str]) -> dict[str, Any]:
    """The keys that the schema has below NAMES."""
    found = schema()
    for name in names:
        found = found["properties"].get(name, {"properties": {}})
    properties: dict[str, Any] = found.get("properties", {})
    return properties


def whole(error: jsonschema.ValidationError) -> str:
    """What is wrong with the whole: a key is missing or unknown."""
    if not isinstance(error.instance, dict):
        return "it is not a JSON object"
    unknown = [name for name in error.instance if name not in schema()["properties"]]
    if error.validator == "additionalProperties" and unknown:
        return f"it has {quoted(unknown[0])}, which is no key of this version"
    missing = next(name for name in schema()["required"] if name not in error.instance)
    return f'it has no "{missing}", which should be {schema()["properties"][missing]["title"]}'
