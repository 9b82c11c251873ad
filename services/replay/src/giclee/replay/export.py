"""Dead letters as a stream of lines, oldest first: a page is read, written and forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator

from giclee.replay import shapes
from giclee.replay.preflight import Preflight
from giclee.replay.selection import Selection
from giclee.replay.store import Row, Store

PAGE = 500


async def lines(
    store: Store, preflight: Preflight, wanted: Selection, *, form: str, limit: int
) -> AsyncIterator[bytes]:
    """`form`: `jsonl` and `records` with values, `csv` without. Errors: Transient, in mid-stream too."""
    if form == "csv":
        yield shapes.csv_line(None)
    after: Row | None = None
    while limit > 0 and (rows := await store.oldest(wanted, after, min(PAGE, limit))):
        found = {} if form == "csv" else await preflight.records(rows)
        for row in rows:
            if form == "csv":
                yield shapes.csv_line(shapes.letter(row))
            else:
                line = shapes.json_line if form == "jsonl" else shapes.record_line
                yield line(row, found.get(row["dlq_id"]))
        after, limit = rows[-1], limit - len(rows)
