"""Which GPUs a container gets where it names none, and what it is told where there is no room."""

from __future__ import annotations

from runai_runtime.errors import RefusalError, quoted
from runai_runtime.grant import mib, share_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runai_runtime.grant import Share
    from runai_runtime.inventory import Gpu
    from runai_runtime.ledger import Ledger
    from runai_runtime.request import Request

LONGEST_SENTENCE = 400
LONGEST_TABLE = 500  # of a host with many GPUs, so that a holder of each can be named on 8 of them
ID_LENGTH = 12  # as docker shows them


class Choice:
    """GPUS, of which a container gets COUNT. Where that is all of them they stay in their order."""

    __slots__ = ("count", "gpus")

    def __init__(self, gpus: list[Gpu], count: int) -> None:
        self.gpus, self.count = gpus, count


class NoRoomError(RefusalError):
    """may_come: whether there could be room once others end."""

    def __init__(self, sentence: str, *, may_come: bool) -> None:
        super().__init__(sentence)
        self.may_come = may_come


def place(request: Request, choice: Choice, ledger: Ledger, placement: str) -> list[Share]:
    """REQUEST on the GPUs of CHOICE that PLACEMENT ("pack" or "spread") prefers, in the order of CHOICE. Raises
    NoRoomError, or RefusalError for what no GPU there has at all.
    """
    shares = possible_shares(request, choice)
    if len(apart(shares, choice.count)) < choice.count:
        raise RefusalError(one_memory(shares, choice.count))
    fitting = [share for share in shares if ledger.takes(share) <= ledger.free(share.gpu)]
    preferred = apart(sorted(fitting, key=lambda share: preference(share, ledger, placement)), choice.count)
    if len(preferred) < choice.count:
        large = [share for share in shares if ledger.takes(share) <= ledger.capacity(share.gpu)]
        may_come = len(apart(large, choice.count)) >= choice.count
        raise NoRoomError(no_room(request, shares, choice.count, ledger), may_come=may_come)
    return [share for share in fitting if share in preferred]


def apart(shares: list[Share], count: int) -> list[Share]:
    """The first COUNT of SHARES that have different memory, or as many as there are."""
    chosen: list[Share] = []
    for share in shares:
        if len(chosen) < count and not any(share.gpu.uuid in other.gpu.same_memory for other in chosen):
            chosen.append(share)
    return chosen


def one_memory(shares: list[Share], count: int) -> str:
    chosen = apart(shares, count)
    gpu = next(share.gpu for share in shares if share not in chosen)
    return (
        f"{gpu.index} lies in the same GPU instance (MIG) as another that this container would get, so they have the "
        "same memory; name those that lie in different ones, or fewer"
    )


def possible_shares(request: Request, choice: Choice) -> list[Share]:
    """REQUEST on each GPU of CHOICE that is large enough for it; raises RefusalError where these are too few."""
    shares, refusals = [], []
    for gpu in choice.gpus:
        try:
            shares.append(share_of(request, gpu))
        except RefusalError as refusal:  # noqa: PERF203 - there are few GPUs
            refusals.append(refusal)
    if len(shares) < choice.count:
        raise refusals[0]
    return shares


def preference(share: Share, ledger: Ledger, placement: str) -> tuple[bool, float]:
    """What sorts first is taken, of equals the first of the choice. What would be left is weighed as a part of the GPU,
    so that GPUs of different sizes compare.

    pack: one that is in use already before one that is not, which stays whole; then where the least is left.
    """
    gpu = share.gpu
    left = (ledger.free(gpu) - ledger.takes(share)) / ledger.capacity(gpu)
    return (False, -left) if placement == "spread" else (not ledger.held(gpu), left)


def no_room(request: Request, shares: list[Share], count: int, ledger: Ledger) -> str:
    """One sentence: what each GPU has free, who holds the rest, what was asked for."""
    asked = sorted({mib(ledger.takes(share)) for share in shares})
    amount = f"{asked[0]} MiB"
    if len(asked) > 1:
        amount = f"{quoted((request.guarantee if ledger.overcommit else request.limit).text)} of a GPU"
    several = f" on each of {count} GPUs" if count > 1 else ""
    end = f"this container asks for {amount}{several}; ask for less"
    if any(ledger.held(share.gpu) for share in shares):
        end += ", or stop one of these"
    for most in (16, 8, 4, 2, 1):
        sentence = f"{', '.join(describe(share.gpu, ledger, most) for share in shares)}; {end}"
        if len(sentence) <= LONGEST_SENTENCE:
            return sentence
    for most in (1, 0):
        sentence = f"MiB free by GPU: {', '.join(abridged(share.gpu, ledger, most) for share in shares)}; {end}"
        if len(sentence) <= LONGEST_TABLE:
            return sentence
    return f"no GPU of {len(shares)} has room; {end}"


def describe(gpu: Gpu, ledger: Ledger, most: int) -> str:
    """What GPU has free, and the MOST containers that hold most of the rest."""
    text = f"GPU {gpu.index} has {mib(ledger.free(gpu))} MiB free of {mib(ledger.capacity(gpu))} MiB"
    held = sorted(ledger.held(gpu).items(), key=lambda entry: (-entry[1], entry[0]))
    shown = [f"{container[:ID_LENGTH]}: {mib(size)} MiB" for container, size in held[:most]]
    if len(held) > most:
        shown.append(f"{len(held) - most} more: {mib(sum(size for _, size in held[most:]))} MiB")
    return f"{text} ({', '.join(shown)})" if shown else text


def abridged(gpu: Gpu, ledger: Ledger, most: int) -> str:
    """The same in a few words: `0: 499 of 1000 (web: 400 +3)` where three more hold something of GPU 0."""
    text = f"{gpu.index}: {mib(ledger.free(gpu))} of {mib(ledger.capacity(gpu))}"
    held = sorted(ledger.held(gpu).items(), key=lambda entry: (-entry[1], entry[0]))
    shown = [f"{container[:ID_LENGTH]}: {mib(size)}" for container, size in held[:most]]
    shown += [f"+{len(held) - most}"] if len(held) > most else []
    return f"{text} ({' '.join(shown)})" if shown else text
