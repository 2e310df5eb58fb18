"""What a check answers."""

from __future__ import annotations

from dataclasses import dataclass

from runai_runtime.errors import RefusalError

OK, WARNING, FAULT = "ok", "warning", "fault"


@dataclass(frozen=True)
class Finding:
    """A check's answer: WHAT was found, and what to do (MEND; "" where nothing is to be done), a sentence each without
    its full stop. A fault: containers with a share don't start. A warning: they start, and something is held less well,
    or doesn't work in some case.
    """

    level: str
    what: str
    mend: str = ""


def ok(what: str) -> Finding:
    return Finding(OK, what)


def warning(what: str, mend: str) -> Finding:
    return Finding(WARNING, what, mend)


def fault(what: str, mend: str) -> Finding:
    return Finding(FAULT, what, mend)


def of_refusal(refusal: RefusalError) -> Finding:
    """A refusal as a fault: what is to be done stands behind its last semicolon (errors.py)."""
    what, _, mend = str(refusal).rpartition("; ")
    return fault(what, mend) if what else fault(mend, "see docs/troubleshooting.md")


class Unknown(Exception):  # noqa: N818 - it is no error, but an answer
    """Why a check can't look, where another check's finding says how to mend that. DETAIL is what that one adds."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(why)
        self.detail = detail

    def at_length(self) -> str:
        return f"{self}: {self.detail}" if self.detail else str(self)
