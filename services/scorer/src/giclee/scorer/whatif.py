"""`python -m giclee.scorer.whatif ls|diff|compare`: the gate as it is, and stored verdicts under other ones.

Started by `giclee gate` and `giclee scorer compare`. Reads one JSON object from stdin, `{"live": [GateSet, …],
"other": [row, …], "since_h": n}`, for compare `{"live", "history", "a", "b", "since_h", "asset_type"}`, and writes one
to stdout. GICLEE_CONFIG names the operator's file, DATABASE_URL the verdicts; exits 2 for what it cannot use.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
VERSION_MIN = 6
"""Digits of a version that name it."""


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


async def compared(asked: Mapping[str, Any], config: str | None, url: str) -> dict[str, Any]:
    """What the verdicts of the last hours come to under gate A and under gate B."""
    gates = {name: gate_named(str(asked[name]), asked, config) for name in ("a", "b")}
    async with database.connect(DatabaseSettings(url=url), schema=SCHEMA) as pool:
        verdicts = await Store(pool).since(float(asked.get("since_h", 24)), VERDICTS_MAX, asked.get("asset_type"))
    found = compare(verdicts, gates["a"], gates["b"])
    types = sorted({kind for kind, _, _ in found.by_type})
    return {
        **{name: {"gate": asked[name], "version": gate.version} for name, gate in gates.items()},
        "looked_at": found.looked_at,
        "asset_types": [
            {"asset_type": kind, "before": a, "after": b, "count": n}
            for (kind, a, b), n in sorted(found.by_type.items())
        ],
        "acceptance": [_acceptance(found, kind) for kind in types],
        "newly_approved": [{"dimension": name, "count": n} for name, n in found.approved.most_common()],
        "newly_refused": [{"dimension": name, "count": n} for name, n in found.refused.most_common()],
        "changes": found.changes,
    }


def _acceptance(found: Comparison, kind: str) -> dict[str, Any]:
    """The share of an asset type's images that passes, under A and under B."""
    mine = {(a, b): n for (name, a, b), n in found.by_type.items() if name == kind}
    total = sum(mine.values())
    before, after = (sum(n for pair, n in mine.items() if pair[at] == "pass") for at in (0, 1))
    return {"asset_type": kind, "images": total, "a": round(before / total, 4), "b": round(after / total, 4)}


def gate_named(name: str, asked: Mapping[str, Any], config: str | None) -> Gate:
    """`now`, a file whose [[gate]] rows lie over what is now, or a version that was in force before.

    Errors: InvalidInput, ValueError with what there is.
    """
    file, live = configured.read(config).gate, _live(asked)
    if name == "now":
        return Gate(overlaid(TABLE, file, live))
    if Path(name).is_file():
        rows = configured.read(name).gate
        if not rows:
            raise ValueError(f"{name} has no [[gate]] row")
        return Gate(overlaid(TABLE, file, live, rows))
    versions = {gate.version: gate for gate in _before(asked, file, live)}
    fitting = [gate for version, gate in versions.items() if len(name) >= VERSION_MIN and version.startswith(name)]
    if len(fitting) != 1:
        known = ", ".join(versions) or "none"
        raise ValueError(f"{name}: no file, not `now`, and no version that was in force with this file: {known}")
    return fitting[0]


def _before(asked: Mapping[str, Any], file: Sequence[GateRow], live: Sequence[GateRow]) -> Iterator[Gate]:
    """The gates that were in force, the newest first: what was set, undone step by step."""
    state = {row.place(): row for row in live}
    yield Gate(overlaid(TABLE, file, state.values()))
    for step in asked.get("history", ()):
        state.pop(step["place"], None)
        if step.get("before"):
            state[step["place"]] = GateRow.model_validate({"doubt_at": None, **step["before"]})
        yield Gate(overlaid(TABLE, file, state.values()))


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
            work = {"diff": differing, "compare": compared}[verb]
            answer = asyncio.run(work(asked, config, os.environ["DATABASE_URL"]))
    except (ValueError, Transient, KeyError) as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
