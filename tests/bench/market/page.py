"""docs/router.md: what is written by hand stays, the part between the two marks is what was measured; and two plots."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.bench.market.run import Outcome
from tests.bench.measure import percentile

DOCS = Path(__file__).parents[3] / "docs"
PAGE = DOCS / "router.md"
BEGIN, END = "<!-- measured by `make bench-router` -->", "<!-- end of what is measured -->"
HEAD = (
    "policy", "$ per approved", "over clairvoyant", "no image, %", "eight rejected, %", "images per approved",
    "p50 / p99 to an image, s", "p50 / p99 to approval, s", "fallbacks", "hedges",
)  # fmt: skip
COLOURS = ("#999999", "#c58c3d", "#8c6bb1", "#41ab5d", "#08519c", "#6baed6", "#222222")


class Week(Protocol):
    @property
    def seed(self) -> int: ...
    @property
    def outcomes(self) -> dict[str, Outcome]: ...
    @property
    def recovery(self) -> list[int]: ...
    @property
    def changes(self) -> int: ...


class Aim(Protocol):
    @property
    def says(self) -> str: ...
    @property
    def most(self) -> float | None: ...
    @property
    def found(self) -> Sequence[float]: ...
    @property
    def digits(self) -> int: ...
    @property
    def met(self) -> bool | None: ...


def write(weeks: Sequence[Week], aims: Sequence[Aim], facts: str) -> None:
    """Renew the measured part of the page, and the plots of the first week."""
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{_measured(weeks, aims, facts)}\n{END}{tail}")
    _plot_costs(weeks, DOCS / "router-cost.svg")
    _plot_days(weeks[0], DOCS / "router-week.svg")


def _measured(weeks: Sequence[Week], aims: Sequence[Aim], facts: str) -> str:
    seeds = ", ".join(str(week.seed) for week in weeks)
    lines = [
        f"- {facts}",
        f"- seeds {seeds}: the first is the committed trace, the others are fresh",
        "",
        "| aim of G15 | at most | " + " | ".join(f"seed {week.seed}" for week in weeks) + " | met |",
        "| --- | --- | " + " | ".join("---" for _ in weeks) + " | --- |",
    ]
    for aim in aims:
        found = [f"{one:.{aim.digits}f}" for one in aim.found] + [""] * (len(weeks) - len(aim.found))
        met = {True: "yes", False: "**no**", None: ""}[aim.met]
        most = "" if aim.most is None else f"{aim.most:g}"
        lines.append(f"| {aim.says} | {most} | {' | '.join(found)} | {met} |")
    for week in weeks:
        lines += ["", f"### Seed {week.seed}", "", _table(week), "", _recovered(week)]
    return "\n".join(lines) + "\n"


def _table(week: Week) -> str:
    best = week.outcomes["clairvoyant"].each_usd
    rows = ["| " + " | ".join(HEAD) + " |", "| " + " | ".join("---" for _ in HEAD) + " |"]
    for name, one in week.outcomes.items():
        ends = one.accepted + one.failed + one.capped
        rows.append(
            f"| {name} | {one.each_usd:.5f} | {one.each_usd / best:.3f} | {100 * one.failed / ends:.3f} | "
            f"{100 * one.capped / ends:.3f} | "
            f"{one.images / one.accepted:.3f} | {_pair(one.image_s)} | {_pair(one.approved_s)} | {one.fallbacks} | "
            f"{one.hedges} |"
        )
    return "\n".join(rows)


def _pair(seconds: Sequence[float]) -> str:
    return f"{percentile(seconds, 0.5):.1f} / {percentile(seconds, 0.99):.1f}"


def _recovered(week: Week) -> str:
    found = week.recovery
    late = sum(one > 300 for one in found)
    felt = [one for one in found if one]
    return (
        f"{week.changes} changes of the world, {len(felt)} of which cost ours more than a tenth over the best for a "
        f"while: {percentile(felt, 0.5) if felt else 0:.0f} requests in the median of these, {found[-1]} in the worst, "
        f"{late} over 300."
    )


def _plot_costs(weeks: Sequence[Week], path: Path) -> None:
    """Bars: dollars for an approved image, a group a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    names = list(weeks[0].outcomes)
    for at, name in enumerate(names):
        places = [place + (at - len(names) / 2) * 0.12 for place in range(len(weeks))]
        axes.bar(places, [week.outcomes[name].each_usd for week in weeks], 0.11, label=name, color=COLOURS[at])
    axes.set_xticks(range(len(weeks)), [f"seed {week.seed}" for week in weeks])
    axes.set_ylabel("$ per approved image")
    axes.legend(fontsize=7, ncols=4, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.22))
    _save(figure, path)


def _plot_days(week: Week, path: Path) -> None:
    """Lines: what an approved image truly costs where ours and others buy, over the best there is, by the hour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for at, name in enumerate(week.outcomes):
        if name in ("single provider", "giclee, hedged", "clairvoyant"):
            continue
        hours, over = _by_hour(week.outcomes[name])
        axes.plot(hours, over, label=name, color=COLOURS[at], linewidth=1.4 if name == "giclee" else 0.8)
    axes.axhline(1.1, color="#cccccc", linewidth=0.8)
    axes.set_xlabel(f"hours of the week, seed {week.seed}")
    axes.set_ylabel("true cost over the best")
    axes.set_ylim(0.95, 3.0)
    axes.legend(fontsize=7, ncols=4, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.14))
    _save(figure, path)


def _by_hour(one: Outcome) -> tuple[list[float], list[float]]:
    times = [row[0] for row in one.chosen]
    hours, over = [], []
    for hour in range(int(times[-1] // 3600) + 1):
        rows = one.chosen[bisect_left(times, hour * 3600.0) : bisect_left(times, (hour + 1) * 3600.0)]
        if rows:
            hours.append(hour + 0.5)
            over.append(sum(row[1] for row in rows) / sum(row[2] for row in rows))
    return hours, over


def _save(figure: object, path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "giclee", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})  # type: ignore[attr-defined]
