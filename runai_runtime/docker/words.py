"""A docker command line, split as docker's own parser (pflag) does it, so that every word keeps its place."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Option:
    """One option: its name with the dashes ("" for short ones, of which a word can hold several), its value (None where
    it has none), and the words that it was written in.
    """

    __slots__ = ("name", "value", "words")

    def __init__(self, name: str, value: str | None, words: list[str]) -> None:
        self.name, self.value, self.words = name, value, words


class UsageError(Exception):
    """What docker says of a command line that it can't read, in its words."""


def split(arguments: list[str], takes_value: Mapping[str, bool]) -> tuple[list[Option], list[str]]:
    """The options at the front of ARGUMENTS, and what follows: from `--`, or the first word that is no option, on.

    TAKES_VALUE: for each option, with its dashes, whether it has a value. At one that isn't in there the options end
    too: docker is going to refuse it. Raises UsageError where a value of the last option is missing.
    """
    options: list[Option] = []
    at = 0
    while at < len(arguments):
        word = arguments[at]
        if word in ("-", "--") or not word.startswith("-"):
            break
        option = long_option(word, takes_value) if word.startswith("--") else short_options(word, takes_value)
        if option is None:
            break
        at += 1
        if option.value is None and wants_word(option, takes_value):
            if at == len(arguments):
                raise UsageError(f"flag needs an argument: {option.name or word}")
            option.value = arguments[at]
            option.words.append(arguments[at])
            at += 1
        options.append(option)
    return options, arguments[at:]


def long_option(word: str, takes_value: Mapping[str, bool]) -> Option | None:
    name, has_value, value = word.partition("=")
    return Option(name, value if has_value else None, [word]) if name in takes_value else None


def short_options(word: str, takes_value: Mapping[str, bool]) -> Option | None:
    """Such as -it, -e=NAME, -eNAME and -ite, which wants the next word."""
    for at, letter in enumerate(word[1:], start=1):
        name = f"-{letter}"
        if name not in takes_value:
            return None
        rest = word[at + 1 :]
        if rest.startswith("=") or (rest and takes_value[name]):
            return Option("", rest.removeprefix("="), [word])
    return Option("", None, [word])


def wants_word(option: Option, takes_value: Mapping[str, bool]) -> bool:
    """Whether OPTION, written without a value, takes the next word for it."""
    return takes_value[option.name or f"-{option.words[0][-1]}"]
