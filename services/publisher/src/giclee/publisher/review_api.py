"""HTTP of the review queue: what waits, leases, verdicts and undo, and putting a failed image to people.

Decides nothing; who wins is the queue's matter. A reviewer is who `X-Giclee-Actor` names.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Body, FastAPI, Header, Request
from fastapi.responses import RedirectResponse
from pydantic import Field, model_validator

from giclee.bus.blobs import Blobs
from giclee.publisher.facts import NOBODY as NONE_OF_IT
from giclee.publisher.facts import index_of, override_fact
from giclee.publisher.problems import Problem, bad_query, limit_of, only
from giclee.publisher.review import NOTE_MAX, REASON_CODES
from giclee.publisher.review_queue import NOBODY, Filters, Said
from giclee.publisher.seal import suffix_of
from giclee.publisher.store import Lesson, Store
from giclee.schemas.parts import AssetTypeName, BlobRef, Id, Sha256, StrictPart, Text, is_uuid

Actor = Annotated[str, Header(alias="X-Giclee-Actor", min_length=1, max_length=128)]
FILTERS = ("state", "asset_type", "kind", "cursor", "limit")
ANY = "any"
STATES = ("pending", "given", "done", "withdrawn", ANY)
KINDS = ("doubt", "required", "sample", "override")
LEASE_MAX = 50
TOLD = ("state", "kind", "asset_type", "sha256", "leased_by", "verdict", "reviewer", "reason_codes", "note", "seconds")
TIMES = ("asked_at", "due_at", "leased_until", "given_at", "effective_at", "ended_at")


class LeaseAsked(StrictPart):
    """The next images for a reviewer; or, with `renew`, more time for those."""

    count: Annotated[int, Field(ge=1, le=LEASE_MAX)] = 1
    asset_type: AssetTypeName | None = None
    kind: Literal[KINDS] | None = None  # type: ignore[valid-type]
    renew: Annotated[tuple[Id, ...], Field(max_length=LEASE_MAX, strict=False)] = ()


class VerdictAsked(StrictPart):
    """What a reviewer says about the bytes of `sha256`; `seconds` is how long they looked."""

    verdict: Literal["pass", "fail"]
    sha256: Sha256
    reason_codes: Annotated[tuple[str, ...], Field(max_length=len(REASON_CODES), strict=False)] = ()
    note: Annotated[Text, Field(min_length=1, max_length=NOTE_MAX)] | None = None
    seconds: Annotated[float, Field(ge=0, le=86_400, strict=False)] | None = None

    @model_validator(mode="after")
    def _has_reasons(self) -> VerdictAsked:
        unknown = [code for code in self.reason_codes if code not in REASON_CODES]
        if unknown:
            raise ValueError(f"reason_codes: {unknown[0][:64]!r} is none; there are {', '.join(REASON_CODES)}")
        if self.verdict == "fail" and not self.reason_codes:
            raise ValueError(f"reason_codes: a fail says why, by one of {', '.join(REASON_CODES)}")
        return self


class OverrideAsked(StrictPart):
    """A candidate that the gate did not let through and that people should look at."""

    request_id: Id
    candidate_id: Id


def routes(app: FastAPI, store: Store, blobs: Blobs, *, tenant: str, link_s: int) -> None:
    """Add them to the assets API. `link_s`: life of a link to an image, in seconds."""
    _looking_routes(app, store, blobs, tenant, link_s)
    _judging_routes(app, store, tenant)

    @app.post("/v1/reviews")
    async def override(asked: Annotated[OverrideAsked, Body()], actor: Actor = NOBODY) -> dict[str, Any]:
        """Put an image that the gate did not let through to people, while its request is open."""
        key = tenant, asked.request_id
        state, _ = (await store.standing([key])).get(key, ("unheard", None))
        index = index_of(*key, asked.candidate_id)
        if state == "unheard" or index == NONE_OF_IT:
            raise Problem(404, "not_found", "there is no such request, or the candidate is none of it")
        lesson = Lesson(tenant=tenant, request_id=asked.request_id, facts=[override_fact(index, actor)])
        if state == "closed" or await store.learn(lesson) is None:
            raise Problem(409, "request_ended")
        row = await store.reviews.one(tenant, asked.candidate_id)
        if row is None:
            raise Problem(409, "review_not_possible")
        return shown(row)


def _looking_routes(app: FastAPI, store: Store, blobs: Blobs, tenant: str, link_s: int) -> None:
    @app.get("/v1/reviews")
    async def listed(request: Request) -> dict[str, Any]:
        """A page of reviews, the soonest due first; those that wait, unless `state` says otherwise."""
        which = _filters(request)
        rows = await store.reviews.page(tenant, which)
        more = _cursor_of(rows[-1]) if len(rows) == which.limit else None
        return {"items": [shown(row) for row in rows], "next_cursor": more}

    @app.get("/v1/reviews/{candidate_id}")
    async def one(candidate_id: str, request: Request) -> dict[str, Any]:
        """One review with what was asked for and what was measured."""
        only(request, ())
        return shown(await _found(store, tenant, candidate_id))

    @app.get("/v1/reviews/{candidate_id}/image")
    async def image(candidate_id: str, request: Request) -> RedirectResponse:
        """A redirect to a fresh link to the bytes that are to be judged."""
        only(request, ())
        ref = BlobRef.model_validate((await _found(store, tenant, candidate_id))["document"]["image"])
        link = await blobs.presign(ref, link_s, filename=f"{candidate_id}{suffix_of(ref.content_type)}")
        return RedirectResponse(link, 307, headers={"Cache-Control": "no-store"})


def _judging_routes(app: FastAPI, store: Store, tenant: str) -> None:
    @app.post("/v1/reviews/lease")
    async def lease(asked: Annotated[LeaseAsked, Body()], actor: Actor = NOBODY) -> dict[str, Any]:
        """The next images, which nobody else gets for five minutes; or more time for those of `renew`."""
        if asked.renew:
            rows = await store.reviews.renew(tenant, actor, asked.renew)
        else:
            which = Filters(asset_type=asked.asset_type, kind=asked.kind, limit=asked.count)
            rows = await store.reviews.lease(tenant, actor, which)
        return {"items": [shown(row) for row in rows]}

    @app.post("/v1/reviews/{candidate_id}")
    async def judge(candidate_id: str, asked: Annotated[VerdictAsked, Body()], actor: Actor = NOBODY) -> dict[str, Any]:
        """A verdict; it takes effect ten seconds later and can be undone until then."""
        there = await store.reviews.give(tenant, _id(candidate_id), Said(reviewer=actor, **dict(asked)))
        return shown(await _found(store, tenant, candidate_id, there=there))

    @app.post("/v1/reviews/{candidate_id}/undo")
    async def undo(candidate_id: str, actor: Actor = NOBODY) -> dict[str, Any]:
        """Take one's own verdict back, before it takes effect."""
        there = await store.reviews.undo(tenant, _id(candidate_id), actor)
        return shown(await _found(store, tenant, candidate_id, there=there))


def _id(text: str) -> uuid.UUID:
    if not is_uuid(text):
        raise Problem(404, "not_found", f"there is no review of {text[:64]}")
    return uuid.UUID(text)


async def _found(store: Store, tenant: str, candidate_id: str, *, there: bool = True) -> Any:
    row = await store.reviews.one(tenant, _id(candidate_id)) if there else None
    if row is None:
        raise Problem(404, "not_found", f"there is no review of {candidate_id[:64]}")
    return row


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A review as the API shows it. `overdue`: nobody has judged it by the time when somebody should have."""
    document, scored, cleared = row["document"], row["scored"] or {}, row["cleared"] or {}
    return {
        "candidate_id": str(row["candidate_id"]),
        "request_id": str(row["request_id"]),
        **{name: row[name] for name in TOLD},
        **{name: row[name].isoformat() if row[name] else None for name in TIMES},
        "age_s": round((row["now"] - row["asked_at"]).total_seconds(), 1),
        "overdue": row["state"] == "pending" and row["now"] > row["due_at"],
        "reviewers_needed": row["eyes"],
        "passed_by": row["seconded_by"],
        "prompt": cleared.get("prompt"),
        "reasons": document["reasons"],
        "scores": scored.get("scores", {}),
        "provider": scored.get("provider"),
        "model": scored.get("model"),
        "long_side_px": scored.get("long_side_px"),
        "image": document["image"],
        "labels": document.get("labels", {}),
    }


def _filters(request: Request) -> Filters:
    only(request, FILTERS)
    given = request.query_params
    for name in FILTERS:
        if len(given.getlist(name)) > 1:
            raise bad_query(name, "is given more than once")
    state, kind, cursor = given.get("state", "pending"), given.get("kind"), given.get("cursor")
    if state not in STATES:
        raise bad_query("state", f"must be one of {', '.join(STATES)}")
    asset_type = given.get("asset_type")
    if asset_type is not None and not (asset_type.isascii() and asset_type.isprintable()):
        raise bad_query("asset_type", "is the name of none")
    if kind is not None and kind not in KINDS:
        raise bad_query("kind", f"must be one of {', '.join(KINDS)}")
    return Filters(
        state=None if state == ANY else state,
        asset_type=asset_type,
        kind=kind,
        after=None if cursor is None else _position_of(cursor),
        limit=limit_of(given.get("limit")),
    )


def _cursor_of(row: Mapping[str, Any]) -> str:
    text = f"{row['due_at'].isoformat()}|{row['place']!r}|{row['candidate_id']}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def _position_of(cursor: str) -> tuple[datetime, float, uuid.UUID]:
    try:
        moment, place, candidate = base64.b64decode(cursor, altchars=b"-_", validate=True).decode().split("|")
        return datetime.fromisoformat(moment).astimezone(UTC), float(place), uuid.UUID(candidate)
    except ValueError:
        raise bad_query("cursor", "is none of ours") from None
