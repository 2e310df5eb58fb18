"""What a container asks for: RUNAI_GPU_MEMORY and its kin, from annotations or the environment.

An amount is a fraction of the GPU in (0, 1] (`0.3`), a percentage (`30%`), or bytes, with a suffix of powers of 1024
as docker's `--memory` has it (`3g`, `512MiB`, `1.5g`). `1` is the whole GPU; other bare integers are bytes.
"""

from __future__ import annotations

from runai_runtime.errors import RefusalError, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MEMORY = "RUNAI_GPU_MEMORY"
GUARANTEE = "RUNAI_GPU_MEMORY_REQUEST"
LIMIT = "RUNAI_GPU_MEMORY_LIMIT"
GPUS = "RUNAI_GPUS"
NAMES = frozenset({MEMORY, GUARANTEE, LIMIT, GPUS})

LONGEST_WISH = 200  # characters of RUNAI_GPUS that a grant keeps
GRANULE = 2 << 20  # the driver takes device memory in blocks of 2 MiB

SUFFIXES = {
    "": 1,
    "b": 1,
    **{letter + ending: 1024**power for power, letter in enumerate("kmgt", start=1) for ending in ("", "b", "i", "ib")},
}

DIGITS = frozenset("0123456789")


class Amount:
    """Bytes, or a part of a GPU, as a person wrote it."""

    __slots__ = ("denominator", "is_part", "name", "numerator", "text")

    def __init__(self, name: str, text: str) -> None:
        """Raise RefusalError unless TEXT, the value of NAME, is an amount."""
        self.name, self.text = name, text
        number, suffix = split_suffix(text)
        self.numerator, self.denominator = self._decimal(number)
        bare_part = not suffix and ("." in number or self.numerator == 1)
        self.is_part = suffix == "%" or bare_part
        if suffix == "%":
            self.denominator *= 100
        elif not bare_part:
            if suffix.lower() not in SUFFIXES:
                raise self._malformed()
            self.numerator *= SUFFIXES[suffix.lower()]
        if self.numerator == 0:
            raise RefusalError(f"{name} is {quoted(text)}; a share must be more than nothing: {EXAMPLES}")
        if self.is_part and self.numerator > self.denominator:
            raise RefusalError(f"{name} is {quoted(text)}, which is more than a whole GPU: {EXAMPLES}")

    def _decimal(self, number: str) -> tuple[int, int]:
        whole, point, decimals = number.partition(".")
        if not DIGITS.issuperset(whole + decimals) or not whole + decimals or (point and not decimals):
            raise self._malformed()
        if len(number) > 24:
            raise self._malformed()
        return int(whole + decimals), 10 ** len(decimals)

    def _malformed(self) -> RefusalError:
        return RefusalError(f"{self.name} is {quoted(self.text)}, which is no amount of memory: {EXAMPLES}")

    def of(self, total: int) -> int:
        """In bytes, of a GPU with TOTAL bytes."""
        if self.is_part:
            return total * self.numerator // self.denominator
        return self.numerator // self.denominator


EXAMPLES = "write a part of the GPU such as 0.3 or 30%, or an amount such as 3g or 512m"


def split_suffix(text: str) -> tuple[str, str]:
    """The digits and points at the front of TEXT, and the rest."""
    at = 0
    while at < len(text) and (text[at] in DIGITS or text[at] == "."):
        at += 1
    return text[:at], text[at:]


class Request:
    """What one container asks for."""

    __slots__ = ("gpus", "guarantee", "limit")

    def __init__(self, guarantee: Amount, limit: Amount, gpus: str | None) -> None:
        self.guarantee = guarantee  # what it is sure to get
        self.limit = limit  # the most that it may take
        self.gpus = gpus  # RUNAI_GPUS as it stands, None where it isn't set

    def describe(self) -> dict[str, str]:
        """As it was written, for the grant, which stays short whatever an image asks for."""
        gpus = {} if self.gpus is None else {"gpus": self.gpus[:LONGEST_WISH]}
        return {"guarantee": self.guarantee.text, "limit": self.limit.text} | gpus


def refuse_unknown(names: Mapping[str, str]) -> None:
    """A name of ours that is misspelt is a request that would be dropped silently."""
    for name in names:
        if name.startswith("RUNAI_GPU") and name not in NAMES:
            raise RefusalError(f"{quoted(name)} is no setting of runai-runtime; it has {', '.join(sorted(NAMES))}")


def read_request(
    annotations: Mapping[str, str],
    environment: Mapping[str, str],
    default: Callable[[], Amount | None] = lambda: None,
) -> Request | None:
    """The container's request, None if it has none. With any annotation the environment, which an image can set,
    has no say. DEFAULT gives the share of one that names GPUs alone; it is asked only then.

    Raises RefusalError for a value that is malformed.
    """
    source = annotations if any(name in annotations for name in NAMES) else environment
    refuse_unknown(source)

    def amount(name: str) -> Amount | None:
        text = source.get(name)
        return None if text is None else Amount(name, text)

    memory, guarantee, limit = amount(MEMORY), amount(GUARANTEE), amount(LIMIT)
    if memory and (guarantee or limit):
        raise RefusalError(
            f"{MEMORY} and {(limit or guarantee or memory).name} are both set (one of them perhaps by the image), and "
            f"only one of them can hold; set {MEMORY}, or {GUARANTEE} with {LIMIT}",
        )
    most = limit or memory or guarantee
    sure = guarantee or memory or limit
    gpus = source.get(GPUS)
    if most is None or sure is None:
        share = default() if gpus is not None else None
        if share is not None:
            return Request(share, share, gpus)
        if gpus is not None:
            raise RefusalError(
                f"{GPUS} is set and no share of their memory is: set {MEMORY} as well ({EXAMPLES}; 1 is the whole GPU)",
            )
        return None
    return Request(sure, most, gpus)
