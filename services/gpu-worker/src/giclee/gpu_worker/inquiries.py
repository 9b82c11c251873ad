"""What others ask of a worker: how claims stand, and what its pool's calls cost. Answers, changes nothing.

POST /internal/claims, by the replay service before it puts a candidate back: `{claims: [[candidate_id, hop], …]}` (at
most 1,000) -> `{claims: [{candidate_id, hop, state: live | done | none, outcome, ended, spent_usd, limit_usd}]}`;
`ended`: the request is over for the workers. Amounts in US dollars.
POST /internal/calls `{days?}` (7, at most 400) -> `{spent: […], differences: […]}`: see `calls`.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from giclee.gpu_worker.claims import Claims
from giclee.gpu_worker.outcome import Key
from giclee.schemas.parts import usd_text

ASKED_MAX = 1000
DAYS, DAYS_MAX = 7, 400
DIFFERENCES_MAX = 200


class Inquiries:
    """The endpoints, with the claims it looks at. Errors: ValueError for a body that is not one; Transient."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims

    async def claims(self, body: dict[str, Any]) -> dict[str, Any]:
        """How these claims stand."""
        rows = body.get("claims")
        if not isinstance(rows, list) or len(rows) > ASKED_MAX:
            raise ValueError(f"claims must be a list of at most {ASKED_MAX}")
        keys: list[Key] = [(uuid.UUID(str(candidate)), int(hop)) for candidate, hop in rows]
        known = await self._claims.standing(keys)
        return {"claims": [_told(key, known.get(key)) for key in keys]}

    async def calls(self, body: dict[str, Any]) -> dict[str, Any]:
        """What was spent at providers that bill, of all workers: by UTC day, provider and tenant, and the newest calls
        that cost other than expected (at most 200)."""
        days = body.get("days", DAYS)
        if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= DAYS_MAX:
            raise ValueError(f"days must be a whole number from 1 to {DAYS_MAX}")
        spent, differences = await self._claims.ledger.standing(days, DIFFERENCES_MAX)
        return {"spent": [_plain(row) for row in spent], "differences": [_plain(row) for row in differences]}


def _plain(row: Any) -> dict[str, Any]:
    """A row as JSON has it: amounts, ids and times as text."""
    return {name: _word(one) for name, one in dict(row).items()}


def _word(one: Any) -> Any:
    if isinstance(one, Decimal):
        return usd_text(one)
    if isinstance(one, (date, datetime)):
        return one.isoformat()
    return str(one) if isinstance(one, uuid.UUID) else one


def _told(key: Key, row: Any) -> dict[str, Any]:
    named = {"candidate_id": str(key[0]), "hop": key[1]}
    if row is None:
        return {**named, "state": "none", "outcome": None, "ended": False, "spent_usd": None, "limit_usd": None}
    return {
        **named, "state": row["state"], "outcome": row["outcome"], "ended": row["ended"],
        "spent_usd": usd_text(row["spent_usd"]), "limit_usd": usd_text(row["limit_usd"]),
    }  # fmt: skip
