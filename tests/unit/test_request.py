"""What a container may ask for, and what it is told when it may not."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runai_runtime.errors import RefusalError
from runai_runtime.grant import size
from runai_runtime.inventory import Gpu
from runai_runtime.request import GPUS, GUARANTEE, LIMIT, MEMORY, Amount, read_request

MIB = 1 << 20
GIB = 1 << 30
TOTAL = 10989 * MIB


def gpu(total: int = TOTAL) -> Gpu:
    return Gpu({"index": 0, "uuid": "GPU-0", "name": "", "minor": 0, "total": total, "reserved": 0, "context": 0})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3g", 3 * GIB),
        ("3G", 3 * GIB),
        ("3gb", 3 * GIB),
        ("3GiB", 3 * GIB),
        ("3gi", 3 * GIB),
        ("512m", 512 * MIB),
        ("512MiB", 512 * MIB),
        ("1.5g", 1536 * MIB),
        ("2048k", 2 * MIB),
        ("2097152b", 2 * MIB),
        ("2097152", 2 * MIB),
        ("0.3", TOTAL * 3 // 10),
        (".5", TOTAL // 2),
        ("30%", TOTAL * 3 // 10),
        ("12.5%", TOTAL // 8),
        ("1", TOTAL),
        ("1.0", TOTAL),
        ("100%", TOTAL),
        ("10989m", TOTAL),
    ],
)
def test_amounts(text: str, expected: int) -> None:
    assert size(Amount(MEMORY, text), gpu()) == expected // MIB * MIB


def test_three_tenths_of_a_2080_ti_are_3296_mib() -> None:
    assert size(Amount(MEMORY, "0.3"), gpu()) // MIB == 3296


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("abc", "no amount of memory"),
        ("", "no amount of memory"),
        ("-1g", "no amount of memory"),
        ("+1g", "no amount of memory"),
        ("3 g", "no amount of memory"),
        ("3g ", "no amount of memory"),
        ("1e3", "no amount of memory"),
        ("0x10", "no amount of memory"),
        ("3gg", "no amount of memory"),
        ("3bi", "no amount of memory"),
        ("1.2.3", "no amount of memory"),
        ("3.", "no amount of memory"),
        (".", "no amount of memory"),
        ("g", "no amount of memory"),
        ("%", "no amount of memory"),
        ("nan", "no amount of memory"),
        ("inf", "no amount of memory"),
        ("٣g", "no amount of memory"),
        ("3g\n", "no amount of memory"),
        ("9" * 400 + "g", "no amount of memory"),
        ("0", "more than nothing"),
        ("0.0", "more than nothing"),
        ("0%", "more than nothing"),
        ("0g", "more than nothing"),
        ("1.5", "more than a whole GPU"),
        ("200%", "more than a whole GPU"),
        ("1k", "blocks of 2 MiB"),
        ("2", "blocks of 2 MiB"),
        ("30", "so ask for 2m or more, or for 30% if that was meant$"),
        ("101", "so ask for 2m or more$"),
        ("0.0001", "blocks of 2 MiB"),
        ("11g", "GPU 0 has 10989 MiB"),
        ("999999t", "GPU 0 has 10989 MiB"),
    ],
)
def test_refused_amounts(text: str, why: str) -> None:
    with pytest.raises(RefusalError, match=why) as refusal:
        size(Amount(MEMORY, text), gpu())
    sentence = str(refusal.value)
    assert sentence.isprintable()
    assert sentence.startswith(MEMORY)
    assert len(sentence) < 300


@given(st.text(alphabet=string.printable + "٣½", max_size=40))
def test_any_text_is_an_amount_or_refused(text: str) -> None:
    try:
        wanted = size(Amount(MEMORY, text), gpu())
    except RefusalError:
        return
    assert 2 * MIB <= wanted <= TOTAL


@given(st.fractions(min_value=0, max_value=1), st.integers(min_value=2 * MIB, max_value=1 << 40))
def test_parts_are_rounded_down_to_whole_mib(part: float, total: int) -> None:
    text = f"{float(part):.6f}"
    try:
        wanted = size(Amount(MEMORY, text), gpu(total))
    except RefusalError:
        return
    assert wanted == total * int(text.replace(".", "")) // 10**6 // MIB * MIB


def limits_of(annotations: dict[str, str], environment: dict[str, str]) -> tuple[str, str] | None:
    request = read_request(annotations, environment)
    return (request.guarantee.text, request.limit.text) if request else None


def test_where_a_request_comes_from() -> None:
    assert limits_of({}, {}) is None
    assert limits_of({}, {MEMORY: "3g"}) == ("3g", "3g")
    assert limits_of({MEMORY: "2g"}, {MEMORY: "3g"}) == ("2g", "2g")
    assert limits_of({}, {GUARANTEE: "1g", LIMIT: "4g"}) == ("1g", "4g")
    assert limits_of({}, {GUARANTEE: "1g"}) == ("1g", "1g")
    assert limits_of({}, {LIMIT: "4g"}) == ("4g", "4g")
    assert limits_of({MEMORY: "1g"}, {LIMIT: "4g", GUARANTEE: "4g"}) == ("1g", "1g")


def test_an_image_can_not_raise_what_a_person_asked_for() -> None:
    """Its ENV is in the same environment as what `docker run -e` says."""
    for name in (LIMIT, GUARANTEE):
        with pytest.raises(RefusalError, match="both set"):
            read_request({}, {MEMORY: "1g", name: "1"})


def test_a_misspelt_name_is_no_request_to_drop() -> None:
    for name in ("RUNAI_GPU_MEMROY", "RUNAI_GPU", "RUNAI_GPU_MEMORY_LIMITS"):
        with pytest.raises(RefusalError, match="is no setting"):
            read_request({}, {name: "1g"})
    assert read_request({}, {"RUNAI_JOB": "x"}) is None


def test_gpus_without_memory_are_no_request_to_drop() -> None:
    with pytest.raises(RefusalError, match=MEMORY):
        read_request({}, {GPUS: "2"})
