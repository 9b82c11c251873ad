"""What others ask of a worker: how claims stand, and what its pool's calls cost. Answers, changes nothing.

POST /internal/claims, by the replay service before it puts a candidate back: `{claims: [[candidate_id, hop], …]}` (at
most 1,000) -> `{claims: [{candidate_id, hop, state: live | done | none, outcome, ended, spent_usd, limit_usd}]}`;
`ended`: the request is over for the workers. Amounts in US dollars.
POST /internal/calls, by the replay service for `giclee providers calls`: `{since?, provider?, request_id?,
candidate_id?, state?: open | lost | again | untold | differs, limit?}` -> `{calls: […], spent: […]}`: see `calls`.
"""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from giclee.gpu_worker.claims import Claims
from giclee.gpu_worker.ledger import STATES, CallsAsked
from giclee.gpu_worker.outcome import Key
from giclee.schemas.parts import usd_text

ASKED_MAX = 1000
CALLS, CALLS_MAX, CALLS_SINCE = 50, 1000, timedelta(days=7)


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
        """The newest calls that were asked for, of all workers (50, at most 1,000), and what all calls since then cost,
        by UTC day, provider and tenant. `since` is an RFC 3339 time; a week ago where it is not said."""
        spent, calls = await self._claims.ledger.standing(_asked(body))
        return {"calls": [_plain(row) for row in calls], "spent": [_plain(row) for row in spent]}


def _asked(body: dict[str, Any]) -> CallsAsked:
    """Errors: ValueError."""
    limit, state, said = body.get("limit", CALLS), body.get("state"), body.get("since")
    since = datetime.now(UTC) - CALLS_SINCE if said is None else datetime.fromisoformat(str(said))
    if since.tzinfo is None:
        raise ValueError("since must name its zone")
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= CALLS_MAX:
        raise ValueError(f"limit must be a whole number from 1 to {CALLS_MAX}")
    if state is not None and state not in STATES:
        raise ValueError(f"state must be one of {', '.join(STATES)}")
    ids = {name: body.get(name) for name in ("request_id", "candidate_id")}
    return CallsAsked(
        since=since,
        provider=None if body.get("provider") is None else str(body["provider"]),
        **{name: None if one is None else uuid.UUID(str(one)) for name, one in ids.items()},
        state=state,
        limit=limit,
    )


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
