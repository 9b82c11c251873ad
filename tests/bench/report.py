"""How results are shown: a table on the terminal, and docs/bench.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.measure import Result, Row, machine, shown, spread

PAGE = Path(__file__).parents[2] / "docs/bench.md"
_ROW, _SECTION, _AROUND = r"\| (G\d+) \|", r"## (G\d+): ", r"- load averages around (G\d+): "
HEAD = ("goal", "figure", "unit", "ours", "baseline", "ratio", "aim", "met")


def _cells(row: Row) -> tuple[str, ...]:
    met = {True: "yes", False: "no", None: ""}[row.met]
    return row.goal, row.says, row.unit, spread(row.ours), spread(row.bare), shown(row.ratio), row.aim, met


def table(results: Sequence[Result]) -> str:
    """For a terminal: columns as wide as they must be."""
    rows = [HEAD, *(_cells(row) for result in results for row in result.rows)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def page(results: Sequence[Result], command: str, rounds: int) -> str:
    """The whole of docs/bench.md."""
    lines = [
        "<!-- written by `make bench` -->",
        "",
        "# Benchmarks",
        "",
        "Ratios against a baseline that is measured beside ours in the same run. Every figure is the median over "
        f"{rounds} rounds, ours and the baseline in turn, with the extremes in brackets. A run in which a record is "
        "lost, comes twice or is not what it should be fails and writes nothing. What did not work is in "
        "[bench-log.md](bench-log.md).",
        "",
        f"- {datetime.now(UTC):%Y-%m-%d}, `{command}`",
        f"- {machine()}; everything is pinned to two cores",
        *(f"- load averages around {result.goal}: {result.load}" for result in results),
        "",
        "| " + " | ".join(HEAD) + " |",
        "| " + " | ".join("---" for _ in HEAD) + " |",
        *("| " + " | ".join(_cells(row)) + " |" for result in results for row in result.rows),
        "",
        "A ratio over 1 in a line of CPU or wall time, or of images or requests per second, means that ours is the "
        "cheaper or faster one; for latencies it is how many times the baseline's ours is.",
    ]
    for result in results:
        lines += ["", f"## {result.goal}: {result.title}", "", result.sides]
        if result.costs:
            lines += ["", f"What costs most: {result.costs}"]
    return "\n".join(lines) + "\n"


def write(results: Sequence[Result], command: str, rounds: int) -> None:
    """Rewrite docs/bench.md."""
    PAGE.write_text(page(results, command, rounds))


def revised(written: str, results: Sequence[Result], command: str) -> str:
    """A page on which only the goals of `results` are new; each says when and how it was measured."""
    by_goal = {result.goal: result for result in results}
    lines: list[str] = []
    told: set[str] = set()
    skipping = False
    for line in written.splitlines():
        row, head, around = (re.match(pattern, line) for pattern in (_ROW, _SECTION, _AROUND))
        if line.startswith("## "):
            skipping = False
        if head and (new := by_goal.get(head[1])):
            lines += [f"## {new.goal}: {new.title}", "", new.sides]
            lines += ["", f"What costs most: {new.costs}", ""] if new.costs else [""]
            skipping = True
        elif around and (new := by_goal.get(around[1])):
            lines.append(_alone(new, command))
        elif row and (new := by_goal.get(row[1])):
            if new.goal not in told:
                lines += ["| " + " | ".join(_cells(one)) + " |" for one in new.rows]
            told.add(new.goal)
        elif not skipping:
            lines.append(line)
    for result in results:
        if result.goal not in told:
            _add(lines, result, command)
    return "\n".join(lines).rstrip() + "\n"


def _add(lines: list[str], new: Result, command: str) -> None:
    """A goal that the page did not have: after the last of its kind."""
    rows = ["| " + " | ".join(_cells(one)) + " |" for one in new.rows]
    _after(lines, _ROW, rows)
    _after(lines, _AROUND, [_alone(new, command)])
    lines += ["", f"## {new.goal}: {new.title}", "", new.sides]
    lines += ["", f"What costs most: {new.costs}"] if new.costs else []


def _after(lines: list[str], pattern: str, more: Sequence[str]) -> None:
    last = max((at for at, line in enumerate(lines) if re.match(pattern, line)), default=len(lines) - 1)
    lines[last + 1 : last + 1] = more


def _alone(new: Result, command: str) -> str:
    when = f"{datetime.now(UTC):%Y-%m-%d}, `{command}`"
    return f"- load averages around {new.goal}: {new.load}; measured alone, {when}"


def revise(results: Sequence[Result], command: str) -> None:
    """Renew a part of docs/bench.md."""
    PAGE.write_text(revised(PAGE.read_text(), results, command))
