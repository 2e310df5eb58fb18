"""Changing one member of a JSON text that people keep: every other byte stays as it is."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

BLANKS = " \t\r\n"
INDENT = "    "


class Member(NamedTuple):
    """A member of an object, by its places in the text."""

    name: str
    key: int
    value: int
    end: int


class Object(NamedTuple):
    """An object, by its places in the text: the first brace, and behind the last."""

    start: int
    end: int
    members: list[Member]


def read(text: str) -> Any:
    """The value of TEXT. Raises ValueError, with the place, for what isn't JSON, and for a key that is there twice."""
    return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=distinct, parse_constant=refuse_constant)


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'the key "{next(name for name in names if names.count(name) > 1)}" is there twice')
    return found


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def with_member(text: str, path: list[str], value: Any) -> str:
    """TEXT, which read() takes and whose value is an object, with VALUE at PATH. What is missing on the way is made.

    A new member comes last, and is written as those beside it are: on a line of its own, or on theirs.
    """
    holder = object_at(text, 0)
    for depth, name in enumerate(path):
        member = next((member for member in holder.members if member.name == name), None)
        if member is None:
            for missing in reversed(path[depth + 1 :]):
                value = {missing: value}
            return inserted(text, holder, name, value)
        if depth == len(path) - 1:
            return text[: member.value] + dumped(value, text, indent_before(text, member.key)) + text[member.end :]
        holder = object_at(text, member.value)
    raise ValueError("no path")


def with_value_of(text: str, name: str, other: str) -> str:
    """TEXT with the member NAME as it is written in OTHER; both have one."""
    mine, theirs = (
        next(member for member in object_at(one, 0).members if member.name == name) for one in (text, other)
    )
    return text[: mine.value] + other[theirs.value : theirs.end] + text[mine.end :]


def without_member(text: str, path: list[str]) -> str:
    """TEXT without the member at PATH, and without the comma and the line that it needed."""
    holder = object_at(text, 0)
    for name in path[:-1]:
        holder = object_at(text, next(member.value for member in holder.members if member.name == name))
    at = next(number for number, member in enumerate(holder.members) if member.name == path[-1])
    if len(holder.members) == 1:
        return text[: holder.start] + "{}" + text[holder.end :]
    if at == len(holder.members) - 1:
        return text[: holder.members[at - 1].end] + text[holder.members[at].end :]
    return text[: holder.members[at].key] + text[holder.members[at + 1].key :]


def inserted(text: str, holder: Object, name: str, value: Any) -> str:
    if not holder.members:
        outer, end = line_indent(text, holder.start), newline(text)
        inner = outer + step_of(text)
        body = f"{{{end}{inner}{json.dumps(name)}: {dumped(value, text, inner)}{end}{outer}}}"
        return text[: holder.start] + body + text[holder.end :]
    last = holder.members[-1]
    indent = indent_before(text, last.key)
    before = ", " if indent is None else f",{newline(text)}{indent}"
    return text[: last.end] + f"{before}{json.dumps(name)}: {dumped(value, text, indent)}" + text[last.end :]


def dumped(value: Any, text: str, indent: str | None) -> str:
    """VALUE as TEXT has others, for a line that begins with INDENT; None: for a line that has more members."""
    if indent is None:
        return json.dumps(value)
    return json.dumps(value, indent=step_of(text)).replace("\n", f"{newline(text)}{indent}")


def step_of(text: str) -> str:
    """By how much TEXT indents its first member."""
    members = object_at(text, 0).members
    return (indent_before(text, members[0].key) if members else "") or INDENT


def indent_before(text: str, at: int) -> str | None:
    """The blanks between the start of its line and AT; None if there is more, or no line before."""
    start = text.rfind("\n", 0, at) + 1
    blanks = text[start:at]
    return blanks if start and not blanks.strip(" \t") else None


def line_indent(text: str, at: int) -> str:
    """The blanks at the front of the line that AT is in."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def object_at(text: str, at: int) -> Object:
    """The object that begins at AT, or behind blanks there. Raises ValueError where there is none."""
    decode = json.JSONDecoder().raw_decode
    start = at = behind_blanks(text, at)
    if text[at : at + 1] != "{":
        raise ValueError(f"no object at character {at}")
    members: list[Member] = []
    at = behind_blanks(text, at + 1)
    while text[at] != "}":
        key = at
        name, at = decode(text, key)
        value = behind_blanks(text, behind_blanks(text, at) + 1)
        _, at = decode(text, value)
        members.append(Member(name, key, value, at))
        at = behind_blanks(text, at)
        if text[at] == ",":
            at = behind_blanks(text, at + 1)
    return Object(start, at + 1, members)


def behind_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in BLANKS + "\ufeff":
        at += 1
    return at
