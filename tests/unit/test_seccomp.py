"""The seccomp edit as data: what its rules do with any request, and the profiles that it refuses."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runai_runtime.errors import RefusalError
from runai_runtime.seccomp import ALL_BITS, BITS, LETTING, MASK, NOTIFIED, REFUSED, HoldAtDriver, complement

Rule = dict[str, Any]
LISTENER = "/run/runai/x/agent"
HELD = {*NOTIFIED, *REFUSED}
RM_ALLOC = 0xC030462B
TCGETS = 0x5401
TIOCSTI = 0x5412


def arg(op: str, value: int, second: int = 0, index: int = 1) -> Rule:
    return {"index": index, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{op}"}


def rule(action: str, *args: Rule, names: tuple[str, ...] = ("ioctl",)) -> Rule:
    return {"names": list(names), "action": f"SCMP_ACT_{action}", "args": list(args)}


def profile(*rules: Rule, default: str = "ERRNO", **more: Any) -> dict[str, Any]:
    return {"defaultAction": f"SCMP_ACT_{default}", "syscalls": list(rules), **more}


def edited(seccomp: dict[str, Any] | None, flags: tuple[str, ...] = ()) -> dict[str, Any]:
    spec: dict[str, Any] = {"linux": {} if seccomp is None else {"seccomp": copy.deepcopy(seccomp)}}
    HoldAtDriver(LISTENER, flags).apply(spec)
    found: dict[str, Any] = spec["linux"]["seccomp"]
    return found


def holds(condition: Rule, args: dict[int, int]) -> bool:
    value, second, actual = condition["value"], condition.get("valueTwo", 0), args.get(condition["index"], 0)
    found: bool = {
        "SCMP_CMP_EQ": actual == value,
        "SCMP_CMP_NE": actual != value,
        "SCMP_CMP_MASKED_EQ": actual & value == second,
    }[condition["op"]]
    return found


def applies(one: Rule, args: dict[int, int]) -> bool:
    """As runtimes read a rule: several conditions on one argument are alternatives."""
    conditions = one.get("args") or []
    several = len({condition["index"] for condition in conditions}) < len(conditions)
    held = [holds(condition, args) for condition in conditions]
    return any(held) if several else all(held)


def actions(seccomp: dict[str, Any], request: int, **others: int) -> set[str]:
    """The actions of all rules that apply to this ioctl, whichever libseccomp takes first; else the default."""
    args = {1: request, **{int(name[1:]): value for name, value in others.items()}}
    found = {r["action"] for r in seccomp["syscalls"] if "ioctl" in r["names"] and applies(r, args)}
    return found or {seccomp["defaultAction"]}


def expected(request: int) -> set[str]:
    bits = request & MASK
    if bits in NOTIFIED:
        return {"SCMP_ACT_NOTIFY"}
    return {"SCMP_ACT_ERRNO"} if bits in REFUSED else {"SCMP_ACT_ALLOW"}


ALLOWING = profile(rule("ALLOW", names=("read", "ioctl", "write")))


def test_few_rules_that_share_nothing() -> None:
    rules = list(complement())
    assert len(rules) < 100
    for (mask, value), (other_mask, other) in itertools.combinations(rules, 2):
        assert (value ^ other) & mask & other_mask
    # Each leaves some bits open: together with the held ones they are all requests.
    assert sum(1 << (len(BITS) - mask.bit_count()) for mask, _ in rules) + len(HELD) == 1 << len(BITS)


def test_every_neighbour_of_a_held_request() -> None:
    seccomp = edited(ALLOWING)
    for held in HELD:
        for flipped in (0, *BITS, *(a | b for a, b in itertools.combinations(BITS, 2))):
            assert actions(seccomp, held ^ flipped) == expected(held ^ flipped)


@given(st.integers(0, ALL_BITS), st.sampled_from([None, *sorted(HELD)]))
def test_any_request(request: int, held: int | None) -> None:
    """Type, direction and the upper half, as musl's sign extension has it, count for nothing."""
    seccomp = edited(ALLOWING)
    tried = request if held is None else request & ~MASK | held
    assert actions(seccomp, tried) == expected(tried)


def test_other_calls_keep_their_rule() -> None:
    assert rule("ALLOW", names=("read", "write")) in edited(ALLOWING)["syscalls"]
    assert sum("read" in one["names"] for one in edited(ALLOWING)["syscalls"]) == 1


def test_a_container_without_a_profile() -> None:
    seccomp = edited(None)
    assert seccomp["defaultAction"] == "SCMP_ACT_ALLOW"
    assert seccomp["architectures"]
    assert (seccomp["listenerPath"], len(seccomp["syscalls"])) == (LISTENER, len(HELD))
    assert {one["errnoRet"] for one in seccomp["syscalls"] if one["action"] == "SCMP_ACT_ERRNO"} == {22}


USERS = [
    profile(rule("ALLOW", arg("EQ", RM_ALLOC)), rule("ALLOW", arg("EQ", TCGETS))),
    profile(rule("ALLOW", arg("MASKED_EQ", 0xFF, 0x2B))),
    profile(rule("ALLOW", arg("MASKED_EQ", 0xFF00, 0x4600), arg("EQ", 3, index=0))),
    profile(rule("ALLOW", arg("EQ", RM_ALLOC), arg("EQ", TCGETS))),
    profile(rule("LOG"), rule("ERRNO", arg("EQ", TIOCSTI))),
    profile(rule("TRACE", arg("MASKED_EQ", 0, 0))),
    profile(rule("ALLOW", arg("EQ", RM_ALLOC)), rule("ERRNO", arg("EQ", TIOCSTI)), default="ALLOW"),
    profile(rule("KILL_PROCESS", arg("EQ", TIOCSTI), names=("ioctl", "read")), default="LOG"),
    ALLOWING,
]
TRIED = [TCGETS, TIOCSTI, RM_ALLOC, 0xC030462A, *HELD, *(ALL_BITS & ~MASK | held for held in HELD)]


@pytest.mark.parametrize("seccomp", USERS)
def test_what_a_profile_lets_through_goes_to_the_agent_and_what_it_refuses_stays_refused(
    seccomp: dict[str, Any],
) -> None:
    after = edited(seccomp)
    for request, descriptor in itertools.product(TRIED, (3, 4)):
        before, now = actions(seccomp, request, a0=descriptor), actions(after, request, a0=descriptor)
        if request & MASK not in HELD:
            assert now == before
        elif before <= set(LETTING):
            assert now == expected(request)
        else:
            assert not now & {*LETTING, "SCMP_ACT_NOTIFY"}


@pytest.mark.parametrize("seccomp", USERS)
def test_order(seccomp: dict[str, Any]) -> None:
    """What the profile refuses of ioctl, what we hold, the rest."""

    def place(one: Rule) -> int:
        if one["action"] == "SCMP_ACT_NOTIFY" or one.get("errnoRet") == 22:
            return 1
        return 2 if one["action"] in LETTING or one["names"] != ["ioctl"] else 0

    places = [place(one) for one in edited(seccomp)["syscalls"]]
    assert places == sorted(places)


@pytest.mark.parametrize("seccomp", [*USERS, None])
def test_twice_is_once(seccomp: dict[str, Any] | None) -> None:
    assert edited(edited(seccomp)) == edited(seccomp)


def test_a_bundle_that_is_used_again_gets_the_new_socket() -> None:
    again = edited(edited(ALLOWING) | {"listenerPath": "/run/runai/old/agent"})
    assert again == edited(ALLOWING)


@pytest.mark.parametrize(
    ("seccomp", "words"),
    [
        (profile(rule("ALLOW"), listenerPath="/x"), "has a listener of its own"),
        (profile(rule("ALLOW"), rule("NOTIFY", names=("mount",))), "hands calls to a listener"),
        (profile(rule("NOTIFY", arg("EQ", RM_ALLOC)), default="ALLOW"), "hands calls to a listener"),
        (profile(rule("NOTIFY", names=("mount",)), listenerMetadata="runai-runtime"), "hands calls to a listener"),
        (profile(rule("ALLOW", arg("NE", TIOCSTI))), '"SCMP_CMP_NE"'),
        (profile(rule("ALLOW", names=("read",))), "lets it ask no NVIDIA driver"),
        (profile(rule("ALLOW"), Syscalls=[]), 'the key "Syscalls"'),
        (profile(rule("ALLOW") | {"Names": ["ioctl"]}), 'the key "Names"'),
        (profile(rule("ALLOW", arg("EQ", 1) | {"Value": 2})), 'the key "Value"'),
        (profile(rule("ALLOW", {"index": "1"})), "is not as the OCI specification has it"),
        (profile(rule("ALLOW", arg("EQ", -1))), "is not as the OCI specification has it"),
        (profile(rule("ALLOW"), flags=[{}]), "is not as the OCI specification has it"),
        (profile(rule("ALLOW"), flags="LOG"), "is not as the OCI specification has it"),
        ({"syscalls": {}}, "is not as the OCI specification has it"),
        ({"syscalls": [{"names": "ioctl"}]}, "is not as the OCI specification has it"),
    ],
)
def test_refused(seccomp: dict[str, Any], words: str) -> None:
    spec = {"linux": {"seccomp": copy.deepcopy(seccomp)}}
    with pytest.raises(RefusalError, match=words):
        HoldAtDriver(LISTENER).apply(spec)
    assert spec == {"linux": {"seccomp": seccomp}}  # as it came: it may run without an agent


@pytest.mark.parametrize(
    ("own", "after"),
    [
        ({}, ["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "KILLABLE"]),  # what a runtime does without the key, it must still do
        ({"flags": None}, ["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "KILLABLE"]),
        ({"flags": []}, ["KILLABLE"]),
        ({"flags": ["LOG", "KILLABLE"]}, ["LOG", "KILLABLE"]),
    ],
)
def test_flags(own: dict[str, Any], after: list[str]) -> None:
    assert edited(ALLOWING | own, ("KILLABLE",))["flags"] == after
    assert edited(edited(ALLOWING | own, ("KILLABLE",)), ("KILLABLE",))["flags"] == after
    assert edited(ALLOWING | own).get("flags") == own.get("flags")


def test_a_key_that_only_go_reads() -> None:
    with pytest.raises(RefusalError, match='the key "Seccomp"'):
        HoldAtDriver(LISTENER).apply({"linux": {"Seccomp": ALLOWING}})
