"""The report of a calibration: one page and four plots, for the person who decides whether to use it.

The only importer of matplotlib.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from giclee.scorer.calibration import Choice

BINS = 10
BARS_MIN = 4
"""Room for so many, or one bar alone would fill its plot."""
WIDTH_IN, HEIGHT_IN = 5.2, 3.9
"""Of every plot, so that letters are of one size on the page."""
SHOWN_MAX = 6
"""Times the promised share that the acceptance plot reaches: the rest is nobody's choice and would squash it."""
PLOTS = {
    "acceptance": "How many are accepted at which share of bad ones, by threshold; the chosen one and the promise.",
    "roc": "Right ones accepted against wrong ones accepted, over all thresholds.",
    "reliability": "Of pictures with about this value, how many are right; dotted: as if it were a probability.",
    "dimensions": "Pictures that each dimension kept from passing, alone or with others.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a calibration came to. `values` and `right` are of the pictures that every other dimension passes;
    `kept_out` counts pictures by the dimension that they do not pass."""

    title: str
    values: np.ndarray
    right: np.ndarray
    choice: Choice
    bad_rate: float
    kept_out: Counter[str]
    about: Sequence[tuple[str, str]]


def write(folder: Path, found: Findings) -> Path:
    """Write `index.html` and its plots into `folder`; the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    _acceptance(folder / "acceptance.png", found)
    _roc(folder / "roc.png", found)
    _reliability(folder / "reliability.png", found.values, found.right)
    _dimensions(folder / "dimensions.png", found.kept_out)
    rows = "".join(f"<tr><th>{escape(name)}<td>{escape(text)}" for name, text in found.about)
    plots = "".join(
        f"<figure><img src='{name}.png' alt='{escape(says)}'><figcaption>{escape(says)}</figcaption></figure>"
        for name, says in PLOTS.items()
    )
    page = folder / "index.html"
    page.write_text(_PAGE.format(title=escape(found.title), rows=rows, plots=plots))
    return page


def area(values: np.ndarray, right: np.ndarray) -> float:
    """The chance that a right picture measures more than a wrong one; NaN without one of them."""
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values))
    ranks[order] = np.arange(1, len(values) + 1)
    for value in np.unique(values[_repeated(values)]):
        same = values == value
        ranks[same] = ranks[same].mean()
    good, bad = int(right.sum()), int((~right).sum())
    return float((ranks[right].sum() - good * (good + 1) / 2) / (good * bad)) if good and bad else float("nan")


def _repeated(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: np.ndarray = counts[inverse] > 1
    return found


def _accepted(found: Findings) -> tuple[np.ndarray, np.ndarray]:
    """Wrong and right pictures that are accepted, from the strictest threshold to the loosest."""
    order = np.argsort(-found.values, kind="stable")
    return np.cumsum(~found.right[order]), np.cumsum(found.right[order])


def _acceptance(path: Path, found: Findings) -> None:
    wrong, good = _accepted(found)
    accepted, choice = wrong + good, found.choice
    figure, axes = _drawing()
    axes.plot(100 * accepted / len(accepted), 100 * wrong / accepted, color="#2c5d8f")
    axes.axhline(100 * found.bad_rate, color="#b3392b", linestyle="--", label=f"promised: {found.bad_rate:.1%} at most")
    axes.plot(100 * choice.accepted / len(accepted), 100 * choice.bad / choice.accepted, "o", color="#1d1d1d",
              label=f"chosen: {choice.threshold:.3f}")  # fmt: skip
    highest = 100 * min(SHOWN_MAX * found.bad_rate, 1.05 * float((wrong / accepted).max()) + found.bad_rate)
    axes.set(xlabel="accepted, % of labelled pictures", ylabel="bad among the accepted, %", ylim=(0, highest))
    _save(figure, axes, path)


def _roc(path: Path, found: Findings) -> None:
    wrong, good = _accepted(found)
    across, up = wrong / max(1, wrong[-1]), good / max(1, good[-1])
    figure, axes = _drawing()
    axes.plot(across, up, color="#2c5d8f", label=f"area {area(found.values, found.right):.3f}")
    axes.plot([0, 1], [0, 1], ":", color="#999999")
    at = found.choice.accepted - 1
    axes.plot(across[at], up[at], "o", color="#1d1d1d", label="chosen")
    axes.set(xlabel="wrong ones accepted", ylabel="right ones accepted", xlim=(0, 1), ylim=(0, 1.02))
    _save(figure, axes, path)


def _reliability(path: Path, values: np.ndarray, right: np.ndarray) -> None:
    edges = np.linspace(min(0.0, float(values.min())), max(1.0, float(values.max())), BINS + 1)
    place = np.clip(np.digitize(values, edges) - 1, 0, BINS - 1)
    used = [number for number in range(BINS) if (place == number).any()]
    means = [values[place == number].mean() for number in used]
    shares = [right[place == number].mean() for number in used]
    counts = [int((place == number).sum()) for number in used]
    figure, axes = _drawing()
    axes.plot([0, 1], [0, 1], ":", color="#999999")
    axes.plot(means, shares, "o-", color="#2c5d8f", label="labelled pictures, and how many")
    for mean, share, count in zip(means, shares, counts, strict=True):
        axes.annotate(str(count), (mean, share), textcoords="offset points", xytext=(0, 6), fontsize=7, ha="center")
    axes.set(xlabel="measured value", ylabel="share that is right", ylim=(-0.03, 1.12))
    _save(figure, axes, path)


def _dimensions(path: Path, kept_out: Counter[str]) -> None:
    names = [name for name, _ in kept_out.most_common()] or ["none"]
    figure, axes = _drawing()
    bars = axes.barh(names[::-1], [kept_out[name] for name in names[::-1]], color="#2c5d8f")
    axes.bar_label(bars, padding=3, fontsize=8)
    axes.margins(x=0.12)
    axes.set_ylim(-0.6, max(len(names), BARS_MIN) - 0.4)
    axes.set(xlabel="pictures")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def _drawing() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN))
    FigureCanvasAgg(figure)  # no window, no global state
    return figure, figure.subplots()


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


_PAGE = """<!doctype html><html lang=en><meta charset=utf-8><title>Calibration: {title}</title>
<meta name=viewport content="width=device-width"><style>
body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#1d1d1d}}
table{{border-collapse:collapse}} th{{text-align:left;padding:.15rem 1rem .15rem 0;font-weight:600;vertical-align:top}}
main{{display:grid;grid-template-columns:repeat(auto-fit,minmax(26rem,1fr));gap:1.5rem;margin-top:1.5rem}}
figure{{margin:0}} img{{max-width:100%}} figcaption{{color:#555}}
</style><h1>Calibration: {title}</h1><table>{rows}</table><main>{plots}</main></html>
"""
