"""Bodies and queries of the HTTP API, and how a row becomes one. Decides nothing; the facts decide."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from giclee.intake import status
from giclee.intake.facts import Facts, moment
from giclee.intake.status import OUTCOMES, STATES
from giclee.intake.store import Filters, Row
from giclee.schemas.parts import AssetTypeName, usd_text

PAGE, PAGE_MAX = 50, 200


class Links(BaseModel):
    """Where to go from a request; absolute."""

    self: str
    events: str
    cancel: str
    assets: str


class Accepted(BaseModel):
    """The answer to an accepted request or cancel."""

    request_id: UUID
    state: str
    links: Links


class Progress(BaseModel):
    """Candidates of a request, counted. `passed` wait for the set to be decided."""

    wanted: int | None = None
    approved: int = 0
    in_flight: int = 0
    in_review: int = 0
    rejected: int = 0
    stalled: int = 0
    passed: int = 0
    failed: int = 0


class Summary(BaseModel):
    """A request as the list shows it. Amounts in US dollars, as decimal strings."""

    request_id: UUID
    state: str
    outcome: str | None
    stalled: bool
    held: bool
    client_ref: str | None
    batch_id: str | None
    asset_type: str
    labels: dict[str, str]
    progress: Progress
    cost_usd: str
    cost_final: bool
    accepted_at: datetime
    closes_by: datetime
    closed_at: datetime | None
    links: Links


class Step(BaseModel):
    """A member of a chain, in the order of asking; from a router of this release with what spoke for its place."""

    provider: str
    model: str
    price_usd: str
    per_approved_usd: str | None = None
    acceptance: float | None = None
    why: str | None = None


class Loser(BaseModel):
    """A model that is not in the chain, and why; the message begins with its name."""

    provider: str | None = None
    code: str
    message: str


class Route(BaseModel):
    """What the router decided for a wave. `per_approved_usd` is what an approved image is expected to cost there."""

    wave: int
    asset_type: str
    quality: str
    limit_usd: str
    hedge_after_s: float | None
    chain: list[Step]
    losers: list[Loser]


class Shown(Summary):
    """A request with everything that is known of it."""

    request: dict[str, Any]
    timeline: list[dict[str, Any]]
    candidates: list[dict[str, Any]]
    routes: list[Route]
    assets: list[dict[str, Any]]
    reasons: list[dict[str, Any]]
    rejected: dict[str, int]
    cost_per_approved_usd: str | None


class Page(BaseModel):
    """One page of the list, newest first; no `next_cursor` means that there are no more."""

    items: list[Summary]
    next_cursor: str | None


class Quote(BaseModel):
    """The answer to a dry run; `expected` is null unless policy clears and a provider can make it."""

    verdict: str
    reasons: list[dict[str, Any]]
    policy_version: str | None
    routable: bool | None
    expected: dict[str, Any] | None


class Problem(BaseModel):
    """RFC 9457. `request_id` is the X-Request-Id of this answer, as our logs have it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[dict[str, str]]
    request_id: str


# ---- queries ------------------------------------------------------------------------------------


class NoQuery(BaseModel):
    """A route without query parameters."""

    model_config = ConfigDict(extra="forbid")


class PostQuery(NoQuery):
    """Query of POST /v1/requests."""

    dry_run: bool = False


def _escaped_plus(value: Any) -> Any:
    """A time whose `+` nobody escaped arrives with a space."""
    return value.replace(" ", "+") if isinstance(value, str) else value


def _number(cursor: Any) -> Any:
    if not isinstance(cursor, str):
        return cursor
    try:
        text = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        text = ""
    if not (text.startswith("n") and text[1:].isascii() and text[1:].isdigit() and len(text) <= 19):
        raise ValueError("is not a cursor of this list")
    return int(text[1:])


def cursor_of(number: int) -> str:
    """The cursor that goes on after a row; opaque to callers."""
    return base64.urlsafe_b64encode(f"n{number}".encode()).decode()


_Text = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
_Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}:[^\x00]{0,256}$")]
_Time = Annotated[AwareDatetime, BeforeValidator(_escaped_plus)]


class ListQuery(NoQuery):
    """Query of GET /v1/requests; every filter narrows."""

    state: Literal[(*STATES, *OUTCOMES)] | None = None  # type: ignore[valid-type]
    outcome: Literal[OUTCOMES] | None = None  # type: ignore[valid-type]
    batch_id: _Text | None = None
    client_ref: _Text | None = None
    asset_type: AssetTypeName | None = None
    label: Annotated[list[_Label], Field(max_length=32, description="k:v, may be repeated")] = []
    created_after: _Time | None = None
    closed_after: _Time | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = PAGE
    cursor: Annotated[int | None, BeforeValidator(_number), WithJsonSchema({"type": "string"})] = None

    def filters(self) -> Filters:
        """What the store narrows by."""
        named = self.model_dump(exclude={"label", "limit", "cursor"})
        labels = dict(label.split(":", 1) for label in self.label)
        return Filters(**named, labels=labels or None, before=self.cursor)


# ---- rows to bodies -----------------------------------------------------------------------------


class Linker:
    """Makes links from the addresses that callers see."""

    def __init__(self, requests_url: str, assets_url: str) -> None:
        self._requests = f"{requests_url}/v1/requests"
        self._assets = f"{assets_url}/v1/assets"

    def of(self, request_id: UUID) -> Links:
        own = f"{self._requests}/{request_id}"
        assets = f"{self._assets}?request_id={request_id}"
        return Links(self=own, events=f"{own}/events", cancel=f"{own}/cancel", assets=assets)


def _summary(row: Row, linker: Linker) -> dict[str, Any]:
    names = ("request_id", "state", "outcome", "stalled", "held", "client_ref", "batch_id", "asset_type", "labels")
    told = row["shown"]
    wanted = {"wanted": json.loads(row["request"])["wanted"]}
    return {
        **{name: row[name] for name in (*names, "accepted_at", "closes_by", "closed_at")},
        "progress": wanted | told.get("progress", {}),
        "cost_usd": told.get("cost_usd", "0"),
        "cost_final": told.get("cost_final", False),
        "links": linker.of(row["request_id"]),
    }


def summary(row: Row, linker: Linker) -> Summary:
    """A request's row as the list shows it."""
    return Summary.model_validate(_summary(row, linker))


def shown(row: Row, candidates: Sequence[Row], routes: Sequence[Row], linker: Linker) -> Shown:
    """A request's row, its candidates and its routes as GET shows them."""
    facts: Facts = row["facts"]
    closing = facts.get("closed", {}).get("closing", {})
    return Shown(
        **_summary(row, linker),
        request=json.loads(row["request"]),
        timeline=_timeline(row, candidates),
        candidates=[_candidate(one) for one in candidates],
        routes=[Route(wave=one["wave"], **one["decision"]) for one in routes],
        assets=_assets(facts, candidates),
        reasons=closing.get("reasons") or facts.get("refused", {}).get("reasons", []),
        rejected=closing.get("rejected", {}),
        cost_per_approved_usd=closing.get("cost_per_approved_usd"),
    )


_MOMENTS = {"routed": "routed", "made": "generated", "scores": "scored", "failed": "failed", "stalls": "stalled"}


def _timeline(row: Row, candidates: Sequence[Row]) -> list[dict[str, Any]]:
    """When each step was first reached."""
    facts: Facts = row["facts"]
    first = {"accepted": moment(row["accepted_at"])}
    first |= {("published" if n == "seen" else n): facts[n]["at"] for n in ("seen", "cleared", "refused") if n in facts}
    found: dict[str, list[str]] = {"stalled": [stall["at"] for stall in facts.get("stalls", {}).values()]}
    for one in candidates:
        for kind, name in _MOMENTS.items():
            found.setdefault(name, []).extend(fact["at"] for fact in one["facts"].get(kind, {}).values())
        if asset := one["facts"].get("asset"):
            found.setdefault("approved", []).append(asset["at"])
    first |= {name: min(times) for name, times in found.items() if times}
    if "cancel" in facts:
        first["cancel-requested"] = facts["cancel"]["at"]
    if row["closed_at"]:
        first["closed"] = moment(row["closed_at"])
    return [{"at": at, "event": name} for name, at in sorted(first.items(), key=lambda pair: pair[1])]


def _candidate(row: Row) -> dict[str, Any]:
    facts: Facts = row["facts"]
    image, score = status.image_of(facts), status.score_of(facts)
    routed = facts.get("routed") or {}
    last = routed[max(routed, key=int)] if routed else {}
    failed = facts.get("failed") or {}
    return {
        "candidate_id": str(row["candidate_id"]),
        "index": row["index"],
        "state": row["state"],
        "stalled": row["stalled"],
        "wave": status.wave_of(facts),
        "hops": [
            {name: told.get(name) for name in ("at", "provider", "model", "reason")}
            for _, told in sorted(routed.items(), key=lambda one: int(one[0]))
        ],
        "provider": (image or last).get("provider"),
        "model": image["model"] if image else {"name": last.get("model")} if last else None,
        "seed": image["seed"] if image else None,
        "sha256": image["sha256"] if image else None,
        "verdict": score["verdict"] if score else None,
        "scores": score["scores"] if score else {},
        "cost_usd": usd_text(row["spent_usd"]),
        "asset_id": facts["asset"]["asset_id"] if "asset" in facts else None,
        "reasons": [reason for fact in failed.values() for reason in fact["reasons"]],
    }


def _assets(facts: Facts, candidates: Sequence[Row]) -> list[dict[str, Any]]:
    """Approved assets; those that only the closing has named so far are listed too."""
    named = {asset["asset_id"]: dict(asset) for asset in facts.get("closed", {}).get("closing", {}).get("assets", ())}
    for one in candidates:
        if asset := one["facts"].get("asset"):
            own = {name: asset[name] for name in ("asset_id", "version", "format", "links") if name in asset}
            named[asset["asset_id"]] = own | {"candidate_id": str(one["candidate_id"])}
    for asset_id, revoked in facts.get("revoked", {}).items():
        if asset_id in named and revoked["version"] > named[asset_id]["version"]:
            named[asset_id] |= {"version": revoked["version"], "revoked": revoked["reason_code"]}
    return [{**asset, "status": "revoked" if "revoked" in asset else "approved"} for asset in named.values()]
