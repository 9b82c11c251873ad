"""`python -m giclee.scorer.held ls|clear`: what drift holds back, and an operator's word that it may pass again.

Started by `giclee scorer drift`. Reads one JSON object from stdin, `{"all": bool, "limit": n}` or `{"asset_type",
"model", "dimension", "actor", "reason"}`, and writes `{"items": […]}` to stdout. DATABASE_URL names where it is kept;
exits 2 for what it cannot use.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from giclee.bus import database
from giclee.bus.errors import Transient
from giclee.bus.settings import DatabaseSettings
from giclee.schemas.strict import InvalidInput
from giclee.scorer import configured
from giclee.scorer.reference import References
from giclee.scorer.store import SCHEMA, Drifts

USAGE = 2


async def listed(asked: Mapping[str, Any], url: str, config: str | None) -> list[dict[str, Any]]:
    """What is held back. `in_force`: against the very calibration that GICLEE_CONFIG names now."""
    known = References(configured.read(config).reference)
    async with database.connect(DatabaseSettings(url=url), schema=SCHEMA) as pool:
        rows = await Drifts(pool).listed(cleared=bool(asked.get("all")), limit=int(asked.get("limit", 50)))
    return [{**row, "in_force": _in_force(row, known)} for row in rows]


def _in_force(row: Mapping[str, Any], known: References) -> bool:
    yardstick = known.of(row["asset_type"], row["model"])
    return row["cleared_at"] is None and yardstick is not None and yardstick.version == row["reference"]


async def cleared(asked: Mapping[str, Any], url: str) -> list[dict[str, Any]]:
    """The rows that were cleared. Errors: ValueError without a reason."""
    if not str(asked["reason"]).strip():
        raise ValueError("--reason is empty; say why these images may pass again")
    async with database.connect(DatabaseSettings(url=url), schema=SCHEMA) as pool:
        return await Drifts(pool).clear(
            asked["asset_type"], asked["model"], asked.get("dimension"), actor=asked["actor"], reason=asked["reason"]
        )


def main(verb: str) -> int:
    """Answer one question."""
    asked, url = json.load(sys.stdin), os.environ["DATABASE_URL"]
    try:
        work = listed(asked, url, os.environ.get("GICLEE_CONFIG")) if verb == "ls" else cleared(asked, url)
        rows = asyncio.run(work)
    except (InvalidInput, Transient, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    json.dump({"items": rows}, sys.stdout, default=str)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
