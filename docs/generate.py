"""Writes the docs that follow from the code: topics, settings, metrics, policy rules, reasons (`make docs`).

Committed, and compared by a test: a topic, setting, metric or rule that they do not name fails it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from giclee.bus import failpoints, settings, telemetry
from giclee.bus.setting_names import SHARED
from giclee.policy import asset_types, rules, templates
from giclee.publisher import review
from giclee.schemas import reasons, topics

ROOT = Path(__file__).parent
NOTE = "<!-- written by `make docs`; change the code instead -->\n\n"

SETTINGS = {
    "intake": "IntakeSettings",
    "policy": "PolicySettings",
    "router": "RouterSettings",
    "gpu_worker": "GpuWorkerSettings",
    "scorer": "ScorerSettings",
    "publisher": "PublisherSettings",
    "replay": "ReplaySettings",
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; pipes and line ends in cells are escaped."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for row in rows:
        cells = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def topics_page() -> str:
    """Every topic, from the one table."""
    rows = []
    for row in topics.TABLE:
        kept = "for ever, compacted" if row.compacted else f"{row.retention_days} days"
        readers = ", ".join(row.readers) or "–"
        public = {"in": "public in", "out": "public out", None: ""}[row.public]
        rows.append(
            (
                f"`{row.name}`",
                ", ".join(row.events),
                row.key,
                row.partitions,
                kept,
                ", ".join(row.written_by),
                readers,
                public,
            )
        )
    head = ("topic", "events", "key", "partitions", "kept", "written by", "read by", "")
    beside = (
        "\nBeside every topic that a stage reads lie `<topic>.dlq` (dead letters) and `<topic>.held` (what a switch holds): "
        "same partitions, 30 days, records up to 1.25 MiB. Public out topics are gzip, so that every client can read them.\n"
    )
    return f"# Topics\n\n{NOTE}{table(head, rows)}{beside}"


def settings_page() -> str:
    """Every setting of every service, with its default and sentence."""
    shared = [(f"`{name}`", _shown(row.default), row.unit, row.says) for name, row in SHARED.items()]
    parts = [
        f"# Settings\n\n{NOTE}Any secret may also come as `<NAME>_FILE`. A bad or unknown name stops the start, with all errors at once.\n\n"
    ]
    parts.append("## Shared\n\n" + table(("name", "default", "unit", "what"), shared))
    for service, name in SETTINGS.items():
        cls = getattr(importlib.import_module(f"giclee.{service}.settings"), name)
        own = [one for one in settings.describe(cls) if one.env not in SHARED]
        rows = [
            (f"`{one.env}`", "required" if one.default is None else _shown(one.default), one.unit, one.says)
            for one in own
        ]
        if rows:
            parts.append(f"\n## {service}\n\n" + table(("name", "default", "unit", "what"), rows))
    return "".join(parts)


def _shown(default: object) -> str:
    text = str(default)
    return "required" if "PydanticUndefined" in text else "–" if text in ("None", "", "()") else f"`{text}`"


def metrics_page() -> str:
    """Every metric, from the one table."""
    rows = [(f"`{name}`", row.kind, ", ".join(row.labels), row.says) for name, row in telemetry.METRICS.items()]
    return f"# Metrics\n\n{NOTE}Served on `/metrics` of every process's health port.\n\n" + table(
        ("name", "kind", "labels", "what"), rows
    )


def failpoints_page() -> str:
    """Every failpoint, from the one table."""
    modes = table(("mode", "what happens"), [(f"`{mode}`", says) for mode, says in failpoints.MODES.items()])
    rows = [(f"`{name}`", ", ".join(row.stages), row.says) for name, row in failpoints.TABLE.items()]
    return (
        f"# Failpoints\n\n{NOTE}Named places before and after every effect outside a process, for tests that kill it there. "
        "`GICLEE_FAILPOINT=<stage>.<point>:<mode>[:nth=N]`, several separated by commas, fails once per process, when the "
        "point is reached for the Nth time (default the first). It is refused at start unless `GICLEE_ALLOW_FAILPOINTS=1`. "
        "`giclee dev failpoints` lists the whole names. `make kill-matrix` runs every point in the modes kill, stop (12 s, "
        "with a second replica that takes over) and raise, three seeds each, on real parts and processes; "
        '`make kill-matrix ARGS="--only publisher. --modes kill --seeds 1"` runs some, `ARGS=--zombie` stops each service '
        "for a minute where it holds most. `make hosted-matrix` kills at the points of paid calls, and at their providers. "
        "Exit 0 all green, 1 any red, 2 a fault that did not happen.\n\n"
        + modes
        + "\n"
        + table(("point", "stages", "what is true there"), rows)
    )


def policy_page() -> str:
    """Every rule, asset type and template."""
    rule_rows = [(f"`{row.name}`", row.version, row.message) for row in rules.TABLE]
    type_rows = [
        (f"`{name}`", row.wanted_max, row.candidates_max, row.first_wave or "as wanted", row.limit_usd, _reviewed(row))
        for name, row in asset_types.TABLE.items()
    ]
    template_rows = [
        (f"`{name}@{version}`", ", ".join(sorted(row.slots)), row.text)
        for (name, version), row in templates.TABLE.items()
    ]
    return (
        f"# Policy\n\n{NOTE}The first rule that matches refuses the request; its name is the refusal's `rule`.\n\n"
        + table(("rule", "version", "what the caller is told"), rule_rows)
        + "\n## Asset types\n\n"
        + table(
            (
                "name",
                "wanted at most",
                "candidates at most",
                "first wave",
                "limit for one candidate, US dollars",
                "people look at",
            ),
            type_rows,
        )
        + "\n## Templates\n\n"
        + table(("template", "slots", "text"), template_rows)
    )


def _reviewed(row: asset_types.AssetType) -> str:
    terms = row.review
    drawn = f"{terms.share:.0%} of what passes, {'before' if terms.share_blocks else 'after'} approval"
    return ", ".join([f"`{terms.rule}`", *([drawn] if terms.share else [])])


def reasons_page() -> str:
    """Every code of a reason or problem, and what reviewers say."""
    said = [(f"`{code}`", row.says, f"`{row.revokes_as}`") for code, row in review.REASON_CODES.items()]
    return (
        f"# Reasons\n\n{NOTE}"
        + table(("code", "what it means"), [(f"`{code}`", text) for code, text in reasons.TABLE.items()])
        + "\n## What reviewers say\n\nThe `reason_codes` of a verdict; a random sample that fails revokes its asset.\n\n"
        + table(("code", "what it means", "a failed sample is revoked for"), said)
    )


PAGES = {
    "topics.md": topics_page,
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "failpoints.md": failpoints_page,
    "policy.md": policy_page,
    "reasons.md": reasons_page,
}


def main() -> int:
    """Write what differs; with `--check` only say so (exit code 1)."""
    different = {name: page() for name, page in PAGES.items() if _old(name) != page()}
    for name, text in different.items():
        if "--check" in sys.argv:
            sys.stderr.write(f"docs/{name} is not what `make docs` writes\n")
        else:
            (ROOT / name).write_text(text)
            sys.stdout.write(f"wrote docs/{name}\n")
    return 1 if different and "--check" in sys.argv else 0


def _old(name: str) -> str:
    path = ROOT / name
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
