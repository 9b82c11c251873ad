"""What the replay service asks before it puts a candidate back: POST /internal/claims. Answers, changes nothing.

`{claims: [[candidate_id, hop], …]}` (at most 1,000) -> `{claims: [{candidate_id, hop, state: live | done | none,
outcome, ended, spent_usd, limit_usd}]}`; `ended`: the request is over for the workers. Amounts in US dollars.
"""

from __future__ import annotations

import uuid
from typing import Any

from giclee.gpu_worker.claims import Claims
from giclee.gpu_worker.outcome import Key
from giclee.schemas.parts import usd_text

ASKED_MAX = 1000


class Inquiries:
    """The endpoint, with the claims it looks at. Errors: ValueError for a body that is not one; Transient."""

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


def _told(key: Key, row: Any) -> dict[str, Any]:
    named = {"candidate_id": str(key[0]), "hop": key[1]}
    if row is None:
        return {**named, "state": "none", "outcome": None, "ended": False, "spent_usd": None, "limit_usd": None}
    return {
        **named, "state": row["state"], "outcome": row["outcome"], "ended": row["ended"],
        "spent_usd": usd_text(row["spent_usd"]), "limit_usd": usd_text(row["limit_usd"]),
    }  # fmt: skip
