"""Judges a recorded run: fourteen checks, the bound that it gives, and how fast the line came back.

`python -m tests.chaos.invariants <folder>` prints a table and writes report.json there; exit 0 green, 1 red,
2 invalid. A run that does not prove its faults, or was not recorded to the end, is invalid whatever else it shows.
What the files hold is in README.md beside this.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos import checks_delivery, checks_ledger, checks_truth, recovery
from tests.chaos.checks_delivery import Counts, Offence
from tests.chaos.history import History

Check = Callable[[History, Counts], Iterator[Offence]]

CHECKS: dict[str, tuple[str, Check]] = {
    "lost": ("accepted and never ended, or decided and never seen", checks_delivery.lost),
    "duplicates": ("a version, closing or event seen twice", checks_delivery.duplicates),
    "aborted": ("seen or gone on without having been decided", checks_delivery.aborted),
    "readers": ("readers that disagree about one place", checks_delivery.readers),
    "reading": ("readers that go back or skip", checks_delivery.reading),
    "phantoms": ("approvals whose bytes were not there when seen", checks_truth.phantoms),
    "order": ("versions or numbers out of order", checks_delivery.order),
    "legality": ("steps and ends that the rules do not know", checks_truth.legality),
    "money": ("cost below what was paid, or a budget overshot", checks_ledger.money),
    "letters": ("dead letters twice, changed, missing or by an outage", checks_ledger.letters),
    "orphans": ("rows and events that name missing or other bytes", checks_truth.orphans),
    "safety": ("approvals without both verdicts on their bytes", checks_truth.safety),
    "tenants": ("one tenant's things with another", checks_truth.tenants),
    "proof": ("faults that did not happen, records that are missing", checks_ledger.proof),
}
"""In the order of the design's list, by the name that reports use."""

OFFENDERS_SHOWN = 10
GREEN, RED, INVALID = "green", "red", "invalid"
EXIT = {GREEN: 0, RED: 1, INVALID: 2}


@dataclass(frozen=True, slots=True)
class Judged:
    """What one check found: how many offences, the first ten, and what it counted."""

    check: str
    says: str
    offences: int
    first: tuple[Offence, ...]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Report:
    """The judgement of a run. `lost_at_most` is the 95 % upper bound on the share of requests that get lost."""

    run: dict[str, Any]
    verdict: str
    checks: tuple[Judged, ...]
    lost_at_most: float | None
    recovery: tuple[recovery.Figure, ...]

    def red(self) -> list[str]:
        """Names of the checks that found something."""
        return [judged.check for judged in self.checks if judged.offences]


def bound(n: int) -> float:
    """The share p for which none lost in `n` has a chance of 5 %: what no loss proves at 95 %."""
    return float(1 - 0.05 ** (1 / n))


def judge(folder: Path) -> Report:
    """Read and judge one run. Errors: ValueError for a file that is not what the README says."""
    history = History(folder)
    checks = tuple(_judged(name, *row, history) for name, row in CHECKS.items())
    offences = {judged.check: judged.offences for judged in checks}
    verdict = INVALID if offences["proof"] else RED if any(offences.values()) else GREEN
    accepted = checks[0].counts.get("closed", 0)
    lost_at_most = bound(accepted) if accepted and not offences["lost"] else None
    return Report(history.run, verdict, checks, lost_at_most, tuple(recovery.figures(history)))


def _judged(name: str, says: str, check: Check, history: History) -> Judged:
    counts: Counts = Counter()
    found = list(check(history, counts))
    return Judged(name, says, len(found), tuple(found[:OFFENDERS_SHOWN]), {k: n for k, n in counts.items() if n})


def document(report: Report) -> dict[str, Any]:
    """The report as JSON; recovery with its percentiles, in seconds."""
    found = asdict(report)
    found["recovery"] = [
        {**asdict(figure), "p50_s": figure.percentile(0.5), "p99_s": figure.percentile(0.99)}
        for figure in report.recovery
    ]
    return found


def table(report: Report) -> str:
    """The report for people."""
    lines = [f"run {report.run.get('run_id')}: {report.verdict.upper()}", ""]
    for judged in report.checks:
        counted = ", ".join(f"{name} {n}" for name, n in sorted(judged.counts.items()))
        lines.append(f"  {judged.check:<11} {judged.offences:>6}  {counted or judged.says}")
    if report.lost_at_most is not None:
        lines += ["", f"  lost at most {report.lost_at_most:.3g} of requests (95 %, none lost)"]
    if report.recovery:
        lines += ["", f"  {'recovery':<28} {'n':>5} {'p50 s':>8} {'p99 s':>8} {'drained':>8} {'idle':>5} {'never':>5}"]
    for figure in report.recovery:
        half, most = (figure.percentile(share) for share in (0.5, 0.99))
        drained = _number(max(figure.drained, default=None))
        seconds = f"{len(figure.seconds):>5} {_number(half):>8} {_number(most):>8} {drained:>8}"
        lines.append(f"  {figure.kind:<28} {seconds} {figure.idle:>5} {figure.never:>5}")
    for judged in report.checks:
        lines += [f"\n{judged.check}: {judged.says}"] if judged.offences else []
        for offence in judged.first:
            lines += [f"  - {offence.says}", *(f"      {text}" for text in offence.evidence)]
    return "\n".join(lines)


def _number(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"


def main(folder: str) -> int:
    report = judge(Path(folder))
    (Path(folder) / "report.json").write_text(json.dumps(document(report), indent=1, default=str) + "\n")
    print(table(report))
    return EXIT[report.verdict]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
