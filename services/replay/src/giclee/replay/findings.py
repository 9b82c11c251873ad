"""What a check found: the words of a report, the same for the reconciler and for whoever reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

GOOD, BAD, UNKNOWN = "good", "bad", "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of a report. `says` is a sentence, `fix` the command or act that mends it, `examples` a few of many."""

    check: str
    verdict: Literal["good", "bad", "unknown"]
    says: str
    fix: str = ""
    count: int = 0
    mended: int = 0
    examples: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "verdict": self.verdict,
            "says": self.says,
            "fix": self.fix or None,
            "count": self.count,
            "mended": self.mended,
            "examples": list(self.examples),
        }


def good(check: str, says: str, *, mended: int = 0) -> Finding:
    return Finding(check=check, verdict="good", says=says, mended=mended)


def bad(check: str, says: str, fix: str, *, count: int, examples: tuple[str, ...] = ()) -> Finding:
    return Finding(check=check, verdict="bad", says=says, fix=fix, count=count, examples=examples)


def unknown(check: str, why: str) -> Finding:
    return Finding(check=check, verdict="unknown", says=f"cannot be told: {why}")
