"""HTTP: approved assets with their evidence, downloads by fresh links, and revocation. Decides nothing.

Reviews are in review_api.py.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import Body, Depends, FastAPI, Request
from fastapi.responses import RedirectResponse
from pydantic import Field

from giclee.bus.blobs import Blobs
from giclee.publisher import announce, review_api
from giclee.publisher.problems import Problem, answer_problems, bad_query, limit_of, only
from giclee.publisher.review_api import Actor
from giclee.publisher.review_queue import NOBODY
from giclee.publisher.revocation import REASON_CODES, Wish
from giclee.publisher.seal import suffix_of
from giclee.publisher.store import Store
from giclee.schemas import parts
from giclee.schemas.parts import AskedInstant, BlobRef, Id, StrictPart, Text, is_uuid

TENANT = "default"
"""The tenant of the one key of this release."""
FILTERS = ("status", "updated_after", "label", "request_id", "cursor", "limit")
STATUSES = ("approved", "revoked")
ORIGINAL = "original"
STOP_S = 3.0


def application(store: Store, blobs: Blobs, *, api_key: str, link_s: int) -> FastAPI:
    """The ASGI application. Every route asks for the bearer key; the key says whose assets are seen."""

    async def authenticated(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), api_key.encode())
        if scheme.lower() != "bearer" or not right:
            raise Problem(401, "unauthenticated")

    app = FastAPI(title="Giclee assets", version="1.0.0", dependencies=[Depends(authenticated)])
    answer_problems(app)
    _asset_routes(app, store, blobs, link_s)
    _revoking_route(app, store)
    review_api.routes(app, store, blobs, tenant=TENANT, link_s=link_s)
    return app


def _asset_routes(app: FastAPI, store: Store, blobs: Blobs, link_s: int) -> None:
    async def found(asset_id: str) -> Any:
        row = await store.one_asset(TENANT, uuid.UUID(asset_id)) if parts.is_uuid(asset_id) else None
        if row is None:
            raise Problem(404, "not_found", f"there is no asset {asset_id[:64]}")
        return row

    @app.get("/v1/assets")
    async def listed(query: Annotated[dict[str, Any], Depends(filters)]) -> dict[str, Any]:
        """A page of assets, the longest unchanged first, so that a poller can go on with the last cursor."""
        rows = await store.page_of_assets(TENANT, **query)
        more = cursor_of(rows[-1]) if len(rows) == query["limit"] else None
        return {"items": [_shown(row) for row in rows], "next_cursor": more}

    @app.get("/v1/assets/{asset_id}")
    async def shown(asset_id: str, request: Request) -> dict[str, Any]:
        """One asset: its approval and the evidence."""
        only(request, ())
        return _shown(await found(asset_id))

    @app.get("/v1/assets/{asset_id}/download")
    async def download(asset_id: str, request: Request) -> RedirectResponse:
        """A redirect to a fresh link to the bytes of a role: the original, or a derivative."""
        only(request, ("role",))
        row = await found(asset_id)
        if row["document"]["status"] == "revoked":
            raise Problem(410, "asset_revoked", row["document"]["reason"])
        role = request.query_params.get("role", ORIGINAL)
        ref = _blob_of(row["document"], role)
        name = f"{row['asset_id']}{'' if role == ORIGINAL else f'-{role}'}{suffix_of(ref.content_type)}"
        link = await blobs.presign(ref, link_s, filename=name)
        return RedirectResponse(link, 307, headers={"Cache-Control": "no-store"})


class RevocationAsked(StrictPart):
    """Why an asset must not be used any more."""

    reason_code: Literal[REASON_CODES]  # type: ignore[valid-type]
    reason: Annotated[Text, Field(min_length=1, max_length=1000)]
    take_down_by: AskedInstant | None = None
    replaced_by: Id | None = None


def _revoking_route(app: FastAPI, store: Store) -> None:
    @app.post("/v1/assets/{asset_id}/revoke")
    async def revoke(asset_id: str, asked: Annotated[RevocationAsked, Body()], actor: Actor = NOBODY) -> dict[str, Any]:
        """Take an approval back; one that was revoked before stays as it is."""
        wish = Wish(by=actor, **dict(asked))
        found = await store.reviews.revoke(TENANT, uuid.UUID(asset_id), wish) if is_uuid(asset_id) else None
        if found is None:
            raise Problem(404, "not_found", f"there is no asset {asset_id[:64]}")
        if found.is_new:
            announce.revoked(asked.reason_code)
        return found.document


def _shown(row: Any) -> dict[str, Any]:
    return {**row["document"], "updated_at": row["updated_at"].isoformat()}


def _blob_of(document: Mapping[str, Any], role: str) -> BlobRef:
    refs = {ORIGINAL: document["image"]} | {one["role"]: one for one in document.get("derivatives", ())}
    if role not in refs:
        raise Problem(404, "not_found", f"the asset has no {role[:64]}; it has {', '.join(refs)}")
    return BlobRef.model_validate(refs[role])


def filters(request: Request) -> dict[str, Any]:
    """The filters of a list, checked. Errors: Problem naming the first bad parameter."""
    only(request, FILTERS)
    given = request.query_params
    for name in FILTERS:
        if name != "label" and len(given.getlist(name)) > 1:
            raise bad_query(name, "is given more than once")
    status = given.get("status")
    if status is not None and status not in STATUSES:
        raise bad_query("status", f"must be one of {', '.join(STATUSES)}")
    cursor = given.get("cursor")
    after = given.get("updated_after")
    return {
        "status": status,
        "updated_after": None if after is None else _moment(after),
        "labels": _labels(given.getlist("label")),
        "after": None if cursor is None else position_of(cursor),
        "limit": limit_of(given.get("limit")),
        "request_id": _request_of(given.get("request_id")),
    }


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a plus that nobody escaped
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise bad_query("updated_after", "must be RFC 3339 with a time zone, for example 2026-11-21T17:00:00Z")
    return moment


def _request_of(text: str | None) -> uuid.UUID | None:
    if text is not None and not is_uuid(text):
        raise bad_query("request_id", "must be a UUID")
    return None if text is None else uuid.UUID(text)


def _labels(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition(":") for text in texts]
    if not all(key and colon and "\x00" not in value for key, colon, value in pairs):
        raise bad_query("label", "must be key:value")
    found = {key: value for key, _, value in pairs}
    if len(found) < len(pairs):
        raise bad_query("label", "names a key twice")
    return found


def cursor_of(row: Any) -> str:
    """Where a page ended, as opaque text."""
    return base64.urlsafe_b64encode(f"{row['updated_at'].isoformat()}|{row['asset_id']}".encode()).decode()


def position_of(cursor: str) -> tuple[datetime, uuid.UUID]:
    """Where the next page starts. Errors: Problem for text that is no cursor of ours."""
    try:
        moment, _, asset = base64.b64decode(cursor, altchars=b"-_", validate=True).decode().partition("|")
        return datetime.fromisoformat(moment), uuid.UUID(asset)
    except ValueError:
        raise bad_query("cursor", "is none of ours") from None


async def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve until cancelled; then what is being answered gets STOP_S seconds."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=int(STOP_S),
        limit_concurrency=200,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]  # signals are the bus' matter
    serving = asyncio.create_task(server.serve())
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await asyncio.wait({serving}, timeout=STOP_S + 1)
