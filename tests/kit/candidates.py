"""Routed candidates for tests: the example of the schemas, plus what a test cares about."""

from __future__ import annotations

import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

from giclee.schemas import envelope as wire
from giclee.schemas import models, parts
from giclee.schemas.events import ImageRouted, RequestClosed
from giclee.schemas.models import Model

_EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"


def model(name: str = "shapes-final", **fields: Any) -> Model:
    """A row of the models table; makes 64 x 64 with the stub unless told otherwise."""
    said = {"name": name, "revision": "r1", "location": f"models/{name}", "provider": "stub", "price_usd": "0.0004"}
    size = {"width": 64, "height": 64, "size_min": 64, "size_max": 64, "steps": 8, "guidance_scale": 2.0}
    return models.Model.model_validate({**said, **size, **fields})


def hop(of: Model, **fields: Any) -> dict[str, Any]:
    """One provider of a chain, for a row of models."""
    used = {"name": of.name, "revision": of.revision}
    said = {"provider": of.provider, "pool": of.pool, "model": used, "price_usd": str(of.price_usd)}
    return {**said, "width": of.width, "height": of.height, **fields}


def routed(
    *hops: dict[str, Any],
    offset: int = 0,
    headers: wire.Headers = (),
    request: dict[str, Any] | None = None,
    **fields: Any,
) -> ImageRouted:
    """A candidate of a request of its own, delivered at `offset`; by default one hop on the stub's model."""
    example = ImageRouted.model_validate_json((_EXAMPLES / "ImageRouted.json").read_text())
    request_id = fields.get("request_id", uuid.uuid4())
    found = {
        **example.model_dump(),
        "request_id": request_id,
        "tenant": "acme",
        "candidate_id": parts.candidate_id("acme", request_id, fields.get("index", 0)),
        "chain": list(hops) or [hop(model())],
        "limit_usd": Decimal("0.0012"),
        "request": {**example.request.model_dump(), **(request or {})},
        **fields,
    }
    return delivered(ImageRouted.model_validate(found), offset=offset, headers=headers)


def delivered(event: ImageRouted, *, offset: int, headers: wire.Headers = ()) -> ImageRouted:
    """The same event as another record brings it."""
    again = ImageRouted.model_validate(event.model_dump())
    value = again.model_dump_json(exclude_none=True, by_alias=True).encode()
    at = wire.read(headers).at(f"image.routed.{event.pool()}.v1:0:{offset}", 1_700_000_000_000, value)
    again.delivered(at)
    return again


def replay(event: ImageRouted, *, offset: int, discard: bool = False) -> ImageRouted:
    """A replay of the event for its stage, or its discard."""
    headers: wire.Headers = ((wire.REPLAY_FOR, f"gpu-worker.{event.pool()}".encode()),)
    return delivered(event, offset=offset, headers=(*headers, (wire.DISCARD, b"1")) if discard else headers)


def closing(event: ImageRouted) -> RequestClosed:
    """The end of the candidate's request."""
    example = RequestClosed.model_validate_json((_EXAMPLES / "RequestClosed.json").read_text())
    closed = RequestClosed.model_validate({**example.model_dump(), **event.echo()})
    closed.delivered(wire.read(()).at("image.closed.v1:0:0", 1_700_000_000_000))
    return closed
