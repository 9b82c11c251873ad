"""`giclee lag`: how far each consumer group is behind on each topic."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from giclee.cli.output import AsJson, show
from giclee.infra import topics


def lag(
    json_: AsJson = False,
    all_: Annotated[bool, typer.Option("--all", help="Also groups and topics without a lag.")] = False,
) -> None:
    """Show records not yet handled, per group and topic."""
    rows = topics.lag(topics.target_from_env())
    shown = rows if all_ or json_ else [row for row in rows if row.lag or row.without_offset]
    show(map(asdict, shown), as_json=json_, empty="No group is behind.")
