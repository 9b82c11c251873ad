"""`python -m giclee.scorer.whatif ls|diff`: the gate as it is, and what stored verdicts would be under another one.

Started by `giclee gate`. Reads one JSON object from stdin, `{"live": [GateSet, …], "other": [row, …], "since_h": n}`,
and writes one to stdout. GICLEE_CONFIG names the operator's file, DATABASE_URL the verdicts; exits 2 for what it
cannot use.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from giclee.bus import database
from giclee.bus.errors import Transient
from giclee.bus.settings import DatabaseSettings
from giclee.schemas.gates import GateRow
from giclee.schemas.strict import FieldError, InvalidInput
from giclee.scorer import configured
from giclee.scorer.compare import Comparison, compare
from giclee.scorer.gate import TABLE, Gate, overlaid
from giclee.scorer.store import SCHEMA, Store

USAGE = 2
VERDICTS_MAX = 100_000
"""The newest so many are looked at."""


def listed(asked: Mapping[str, Any], config: str | None) -> dict[str, Any]:
    """Every row in force, with where it comes from, and the version that verdicts carry."""
    file, live = configured.read(config).gate, _live(asked)
    gate = Gate(overlaid(TABLE, file, live))
    places = {"set": {row.place() for row in live}, "file": {row.place() for row in file}}
    rows = [{**row.model_dump(), "source": _source(row, places)} for row in gate.table]
    return {"version": gate.version, "rows": rows}


def _source(row: GateRow, places: Mapping[str, set[str]]) -> str:
    return next((name for name, some in places.items() if row.place() in some), "built in")


async def differing(asked: Mapping[str, Any], config: str | None, url: str) -> dict[str, Any]:
    """What the rows of `other`, set as well, would change in the verdicts of the last hours."""
    own = configured.read(config)
    file, live, other = own.gate, _live(asked), _rows(asked)
    for row in other:
        if (why := configured.trouble(row, own.measured())) is not None:
            raise InvalidInput([FieldError("/dimension", why)])
    now, then = Gate(overlaid(TABLE, file, live)), Gate(overlaid(TABLE, file, live, other))
    async with database.connect(DatabaseSettings(url=url), schema=SCHEMA) as pool:
        verdicts = await Store(pool).since(float(asked.get("since_h", 24)), VERDICTS_MAX)
    found = compare(verdicts, now, then)
    return {"version": now.version, "other_version": then.version, **_plain(found)}


def _live(asked: Mapping[str, Any]) -> list[GateRow]:
    return [GateRow.model_validate(one["row"]) for one in asked.get("live", ()) if one.get("row")]


def _rows(asked: Mapping[str, Any]) -> list[GateRow]:
    return [GateRow.model_validate(row) for row in asked.get("other", ())]


def _plain(found: Comparison) -> dict[str, Any]:
    return {
        "looked_at": found.looked_at,
        "verdicts": [{"before": a, "after": b, "count": n} for (a, b), n in sorted(found.verdicts.items())],
        "dimensions": [
            {"dimension": name, "before": a, "after": b, "count": n}
            for (name, a, b), n in sorted(found.dimensions.items())
        ],
        "changes": found.changes,
    }


def main(verb: str) -> int:
    """Answer one question."""
    asked = json.load(sys.stdin)
    config = os.environ.get("GICLEE_CONFIG") or None
    try:
        if verb == "ls":
            answer = listed(asked, config)
        else:
            answer = asyncio.run(differing(asked, config, os.environ["DATABASE_URL"]))
    except (InvalidInput, ValidationError, Transient, KeyError) as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
