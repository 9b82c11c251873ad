"""HTTP: approved assets with their evidence, and downloads by fresh links. Decides nothing.

Reviews and revocation are refused by name; they come with a later release.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException

from giclee.bus import telemetry
from giclee.bus.blobs import Blobs
from giclee.bus.errors import Transient
from giclee.publisher.seal import suffix_of
from giclee.publisher.store import Store
from giclee.schemas import parts, reasons
from giclee.schemas.parts import BlobRef, is_uuid

TENANT = "default"
"""The tenant of the one key of this release."""
PAGE = 50
PAGE_MAX = 200
FILTERS = ("status", "updated_after", "label", "request_id", "cursor", "limit")
STATUSES = ("approved", "revoked")
ORIGINAL = "original"
STOP_S = 3.0

log = telemetry.logger(__name__)


class Problem(Exception):
    """An answer that is not what was asked for; `code` is a row of `reasons.TABLE`."""

    def __init__(self, status: int, code: str, detail: str | None = None, *, pointer: str | None = None) -> None:
        super().__init__(detail or reasons.TABLE[code])
        self.status = status
        self.code = code
        self.errors = [] if pointer is None else [{"pointer": pointer, "detail": str(self)}]

    def answer(self) -> JSONResponse:
        """The problem as RFC 9457 has it."""
        body = {
            "type": "about:blank",
            "title": self.code.replace("_", " "),
            "status": self.status,
            "code": self.code,
            "detail": str(self),
            "errors": self.errors,
            "request_id": str(uuid.uuid4()),
        }
        headers = {"Retry-After": "2"} if self.status == 503 else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status >= 500 and self.status != 501:
            log.error("a request failed", http_request_id=body["request_id"], detail=str(self))
        return JSONResponse(body, self.status, headers, media_type="application/problem+json")


def application(store: Store, blobs: Blobs, *, api_key: str, link_s: int) -> FastAPI:
    """The ASGI application. Every route asks for the bearer key; the key says whose assets are seen."""

    async def authenticated(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), api_key.encode())
        if scheme.lower() != "bearer" or not right:
            raise Problem(401, "unauthenticated")

    app = FastAPI(title="Giclee assets", version="1.0.0", dependencies=[Depends(authenticated)])
    _answer_problems(app)
    _asset_routes(app, store, blobs, link_s)
    _later_routes(app)
    return app


def _answer_problems(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def refused(_: Request, problem: Problem) -> JSONResponse:
        return problem.answer()

    @app.exception_handler(HTTPException)
    async def unrouted(_: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_field")
        return Problem(error.status_code, code).answer()

    @app.exception_handler(Transient)
    async def away(_: Request, error: Transient) -> JSONResponse:
        log.warning("a part is away", error=str(error))
        return Problem(503, "unavailable").answer()

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        return Problem(500, "internal").answer()


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
        _only(request, ())
        return _shown(await found(asset_id))

    @app.get("/v1/assets/{asset_id}/download")
    async def download(asset_id: str, request: Request) -> RedirectResponse:
        """A redirect to a fresh link to the bytes of a role: the original, or a derivative."""
        _only(request, ("role",))
        row = await found(asset_id)
        role = request.query_params.get("role", ORIGINAL)
        ref = _blob_of(row["document"], role)
        name = f"{row['asset_id']}{'' if role == ORIGINAL else f'-{role}'}{suffix_of(ref.content_type)}"
        link = await blobs.presign(ref, link_s, filename=name)
        return RedirectResponse(link, 307, headers={"Cache-Control": "no-store"})


def _later_routes(app: FastAPI) -> None:
    @app.get("/v1/reviews")
    @app.post("/v1/reviews/{candidate_id}")
    async def reviews() -> None:
        raise Problem(501, "reviews_unsupported")

    @app.post("/v1/assets/{asset_id}/revoke")
    async def revoke() -> None:
        raise Problem(501, "revocation_unsupported")


def _shown(row: Any) -> dict[str, Any]:
    return {**row["document"], "updated_at": row["updated_at"].isoformat()}


def _blob_of(document: Mapping[str, Any], role: str) -> BlobRef:
    refs = {ORIGINAL: document["image"]} | {one["role"]: one for one in document.get("derivatives", ())}
    if role not in refs:
        raise Problem(404, "not_found", f"the asset has no {role[:64]}; it has {', '.join(refs)}")
    return BlobRef.model_validate(refs[role])


def _only(request: Request, known: tuple[str, ...]) -> None:
    """Errors: Problem for a query parameter that would otherwise be ignored."""
    for name in request.query_params:
        if name not in known:
            says = f"knows only {', '.join(known)}" if known else "takes none"
            raise Problem(400, "unsupported_query", f"{name[:64]} is no query parameter here; this {says}", pointer="")


def filters(request: Request) -> dict[str, Any]:
    """The filters of a list, checked. Errors: Problem naming the first bad parameter."""
    _only(request, FILTERS)
    given = request.query_params
    for name in FILTERS:
        if name != "label" and len(given.getlist(name)) > 1:
            raise _bad(name, "is given more than once")
    status, limit = given.get("status"), given.get("limit", str(PAGE))
    if status is not None and status not in STATUSES:
        raise _bad("status", f"must be one of {', '.join(STATUSES)}")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= PAGE_MAX):
        raise _bad("limit", f"must be 1 to {PAGE_MAX}")
    cursor = given.get("cursor")
    after = given.get("updated_after")
    return {
        "status": status,
        "updated_after": None if after is None else _moment(after),
        "labels": _labels(given.getlist("label")),
        "after": None if cursor is None else position_of(cursor),
        "limit": int(limit),
        "request_id": _request_of(given.get("request_id")),
    }


def _bad(name: str, detail: str) -> Problem:
    return Problem(400, "unsupported_query", f"{name} {detail}", pointer=f"/{name}")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a plus that nobody escaped
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _bad("updated_after", "must be RFC 3339 with a time zone, for example 2026-11-21T17:00:00Z")
    return moment


def _request_of(text: str | None) -> uuid.UUID | None:
    if text is not None and not is_uuid(text):
        raise _bad("request_id", "must be a UUID")
    return None if text is None else uuid.UUID(text)


def _labels(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition(":") for text in texts]
    if not all(key and colon and "\x00" not in value for key, colon, value in pairs):
        raise _bad("label", "must be key:value")
    found = {key: value for key, _, value in pairs}
    if len(found) < len(pairs):
        raise _bad("label", "names a key twice")
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
        raise _bad("cursor", "is none of ours") from None


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
