"""The container's seccomp filter: the few ioctls by which a driver is asked for memory go to the agent.

The filter sees a request's number and size, never what it points to. The driver looks at these two alone, and the
kernel at the lower 32 bits: type, direction and the upper half count for nothing, so they are masked.

After the edit no rule of the profile lets a held request through, whatever the order in which libseccomp takes the
rules: each rule that did is split into what it lets through of the others, and what it hands to the agent. What the
profile refuses stays refused.
"""

from __future__ import annotations

import os

from runai_runtime.edits import child
from runai_runtime.errors import RefusalError, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a millisecond to import
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from runai_runtime.spec import Spec

    Rule = dict[str, Any]
    Bits = tuple[int, int]  # a mask, and the value under it


def request(size: int, number: int) -> int:
    """An ioctl request without type and direction (include/uapi/asm-generic/ioctl.h); SIZE in bytes."""
    return size << 16 | number


MASK = request(0x3FFF, 0xFF)
BITS = [1 << bit for bit in (*range(29, 15, -1), *range(7, -1, -1))]  # the sizes differ in few bits: they come first

# What the agent answers: RM_ALLOC in both its forms, RM_FREE, VID_HEAP_CONTROL, ALLOC_MEMORY, DUP_OBJECT (NVIDIA's open
# kernel modules, nv_escape.h and nvos.h).
NOTIFIED = tuple(
    request(size, number) for size, number in ((48, 0x2B), (32, 0x2B), (16, 0x29), (184, 0x4A), (56, 0x27), (28, 0x34))
)
# XFER_CMD carries any of the others behind a pointer, which no filter can follow. No library of the driver makes one.
REFUSED = (request(16, 0xD3),)
EINVAL = 22

# A tracer in the container lets a traced call go on.
LETTING = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
NOTIFY = "SCMP_ACT_NOTIFY"
SPEC_ALLOW = "SECCOMP_FILTER_FLAG_SPEC_ALLOW"  # what runc and crun set for a profile without "flags", and only then
OURS = "runai-runtime"  # listenerMetadata: tells our own work when a bundle is used again
ALL_BITS = (1 << 64) - 1

ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}

# Go's reader takes a key in any case, so a key that differs only in that would be a second rule that isn't seen here.
KEYS = {
    *("defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata", "syscalls"),
    *("names", "action", "errnoRet", "args", "index", "value", "valueTwo", "op"),
}
LOWER_KEYS = {key.lower() for key in KEYS}


class HoldAtDriver:
    """Hands the held requests to the socket at LISTENER, with these FLAGS besides the profile's own.

    Raises RefusalError for a profile that can't be split, which stays as it is then.
    """

    def __init__(self, listener: str, flags: Sequence[str] = ()) -> None:
        self.listener = listener
        self.flags = flags

    def apply(self, spec: Spec) -> None:
        linux = child(spec, "linux")
        refuse_odd_keys(linux, {"seccomp"})
        if linux.get("seccomp") is None:
            linux["seccomp"] = {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ARCHITECTURES[os.uname().machine],
            }
        profile = child(linux, "seccomp")
        refuse_odd_keys(profile, LOWER_KEYS)
        again = profile.get("listenerMetadata") == OURS
        if profile.get("listenerPath") and not again:
            raise RefusalError(
                "the container's seccomp profile has a listener of its own, and a container can have only one, which "
                "keeps its share of the GPU; use a profile without listenerPath"
            )
        rules = profile.get("syscalls")
        rules = [] if rules is None else rules
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            raise damaged()
        own = profile.get("flags")
        if own is not None and not (isinstance(own, list) and all(isinstance(flag, str) for flag in own)):
            raise damaged()
        profile["syscalls"] = split_rules(rules, profile.get("defaultAction"), again=again)
        if self.flags:
            profile["flags"] = list(dict.fromkeys([*([SPEC_ALLOW] if own is None else own), *self.flags]))
        profile["listenerPath"] = self.listener
        profile["listenerMetadata"] = OURS


def split_rules(rules: list[Rule], default: object, *, again: bool) -> list[Rule]:
    """RULES with the held requests handed over: what the profile refuses of ioctl, what we hold, the rest.

    AGAIN: they have been through this before, so what notifies is ours.
    """
    denying: list[Rule] = []
    held: list[Rule] = []
    rest: list[Rule] = []
    if default in LETTING:
        held += hold([])
    for rule in rules:
        of_ioctl, others = without_ioctl(rule)
        if rule.get("action") == NOTIFY and not (again and not others):
            raise RefusalError(
                f"the container's seccomp profile hands calls to a listener ({NOTIFY}), and a container can have only "
                "one, which keeps its share of the GPU; use a profile without it"
            )
        rest += others
        for one in of_ioctl:
            if one["action"] in LETTING:
                rest += with_args(one, complement(), one.get("args"))
                held += hold(one.get("args"))
            elif is_held(one):
                held.append(one)
            else:
                denying.append(one)
    if not held:
        raise RefusalError(
            "the container's seccomp profile lets it ask no NVIDIA driver for memory (ioctl), so a share of a GPU is "
            "of no use to it; allow ioctl, or run it without a share"
        )
    return unique([*denying, *held, *rest])


def unique(rules: list[Rule]) -> list[Rule]:
    """What libseccomp takes: it refuses a rule that it has already."""
    seen: list[Rule] = []
    texts: set[str] = set()
    for rule in rules:
        text = repr(rule)
        if text not in texts or rule.get("names") != ["ioctl"]:
            seen.append(rule)
        texts.add(text)
    return seen


def without_ioctl(rule: Rule) -> tuple[list[Rule], list[Rule]]:
    """RULE for ioctl alone, with at most one condition for each argument, and for its other calls."""
    refuse_odd_keys(rule, LOWER_KEYS)
    names = rule.get("names")
    if not isinstance(names, list) or not isinstance(rule.get("action"), str):
        raise damaged()
    if "ioctl" not in names:
        return [], [rule]
    others = [name for name in names if name != "ioctl"]
    args = arguments(rule)
    alone = {**rule, "names": ["ioctl"]}
    alone.pop("args", None)
    # Runtimes take conditions on one argument for alternatives, and then all of the rule's conditions.
    several = len({arg["index"] for arg in args}) < len(args)
    of_ioctl = [{**alone, "args": [arg]} for arg in args] if several else [{**alone, "args": args} if args else alone]
    return of_ioctl, [{**rule, "names": others}] if others else []


def arguments(rule: Rule) -> list[Rule]:
    args = rule.get("args")
    args = [] if args is None else args
    if not isinstance(args, list):
        raise damaged()
    for arg in args:
        if not isinstance(arg, dict):
            raise damaged()
        refuse_odd_keys(arg, LOWER_KEYS)
        numbers = (arg.get("index"), arg.get("value", 0), arg.get("valueTwo", 0))
        if not all(type(number) is int and 0 <= number <= ALL_BITS for number in numbers):
            raise damaged()
    return args


def hold(args: Sequence[Rule] | None) -> list[Rule]:
    """The rules that take the held requests out of what a rule with ARGS lets through."""
    notify = {"names": ["ioctl"], "action": NOTIFY}
    refuse = {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": EINVAL}
    return [
        *with_args(notify, ((MASK, value) for value in NOTIFIED), args),
        *with_args(refuse, ((MASK, value) for value in REFUSED), args),
    ]


def is_held(rule: Rule) -> bool:
    """Whether RULE is one that hold() makes."""
    if rule["action"] == NOTIFY:
        return True
    masked = [arg for arg in rule.get("args", []) if arg["index"] == 1 and arg.get("op") == "SCMP_CMP_MASKED_EQ"]
    those = [value & MASK for mask, value in map(bits_of, masked) if mask & MASK == MASK]
    return rule["action"] == "SCMP_ACT_ERRNO" and rule.get("errnoRet") == EINVAL and those == list(REFUSED)


def with_args(rule: Rule, those: Iterable[Bits], args: Sequence[Rule] | None) -> list[Rule]:
    """RULE, under the conditions ARGS, for each of THOSE requests that they leave."""
    merged = (merge(bits, args or []) for bits in those)
    return [{**rule, "args": found} for found in merged if found]


def merge(bits: Bits, args: Sequence[Rule]) -> list[Rule]:
    """The conditions ARGS and that the request's bits are BITS; empty if no request is left."""
    mask, value = bits
    others = [arg for arg in args if arg["index"] != 1]
    for arg in args:
        if arg["index"] != 1:
            continue
        own_mask, own = bits_of(arg)
        if (own ^ value) & own_mask & mask:
            return []
        if own_mask == ALL_BITS:
            return [*others, arg]
        mask, value = mask | own_mask, value | own
    return [*others, {"index": 1, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}]


def bits_of(arg: Rule) -> Bits:
    value, second = arg.get("value", 0), arg.get("valueTwo", 0)
    if arg.get("op") == "SCMP_CMP_EQ":
        return ALL_BITS, value
    if arg.get("op") == "SCMP_CMP_MASKED_EQ":
        return value, second & value
    raise RefusalError(
        f"the container's seccomp profile allows ioctl by {quoted(str(arg.get('op')))} on its request, from which what "
        "keeps the share of the GPU can't be told apart; write SCMP_CMP_EQ or SCMP_CMP_MASKED_EQ in the profile"
    )


def complement() -> Iterator[Bits]:
    """All requests but the held ones, as bit prefixes that share nothing with each other."""
    yield from branches({*NOTIFIED, *REFUSED}, 0, 0, 0)


def branches(held: set[int], depth: int, mask: int, value: int) -> Iterator[Bits]:
    """The branches below the prefix VALUE of DEPTH bits in which none of HELD lies."""
    if not held:
        yield mask, value
        return
    if depth == len(BITS):
        return
    bit = BITS[depth]
    for side in (0, bit):
        yield from branches({one for one in held if one & bit == side}, depth + 1, mask | bit, value | side)


def refuse_odd_keys(values: Rule, lower: set[str]) -> None:
    for key in values:
        if key not in KEYS and key != "seccomp" and key.lower() in lower:
            raise RefusalError(
                f"the container's seccomp profile has the key {quoted(key)}, which runtimes read in different ways"
            )


def damaged() -> RefusalError:
    return RefusalError(
        "the container's seccomp profile is not as the OCI specification has it; see who made the bundle"
    )
