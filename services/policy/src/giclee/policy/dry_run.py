"""What policy would say, for intake's dry run: POST /internal/verdict. Nothing is stored, nothing is counted.

Takes the values of a request (contract 3.1; `request_id` may be absent). Answers
`{verdict: cleared | refused | invalid, reasons[], policy_version, cleared?}`, `cleared` being the data of the
ImageCleared that would be sent.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from giclee.policy.verdict import Judge, Times, event_of
from giclee.schemas import strict
from giclee.schemas.events import ImageCleared, ImageRequested
from giclee.schemas.parts import Reason

_NO_ID = str(UUID(int=0))


class DryRun:
    """The endpoint with the judge it asks and the hours after which a request expires."""

    def __init__(self, judge: Judge, ttl_h: int) -> None:
        self._judge = judge
        self._ttl = timedelta(hours=ttl_h)

    async def verdict(self, values: dict[str, Any]) -> dict[str, Any]:
        """The verdict on these values, by the tables of now."""
        try:
            request = strict.request_from({"request_id": _NO_ID, **values})
        except strict.InvalidInput as error:
            return self._answer("invalid", _invalid(error))
        ruling = self._judge.rule(request)
        if not ruling.cleared:
            return self._answer("refused", ruling.reasons)
        cleared = event_of(request, ruling, self._times(request))
        assert isinstance(cleared, ImageCleared)
        return self._answer("cleared", ()) | {"cleared": cleared.model_dump(mode="json", exclude_none=True)}

    def _times(self, request: ImageRequested) -> Times:
        now = datetime.now(UTC)  # of this process: the answer promises nothing
        return Times(now, request.deadline or now + self._ttl)

    def _answer(self, verdict: str, reasons: tuple[Reason, ...]) -> dict[str, Any]:
        told = [reason.model_dump(mode="json", exclude_none=True) for reason in reasons]
        return {"verdict": verdict, "reasons": told, "policy_version": self._judge.version}


def _invalid(error: strict.InvalidInput) -> tuple[Reason, ...]:
    return tuple(Reason(code=e.code, stage="policy", message=e.detail, pointer=e.pointer) for e in error.errors)
