"""What every provider of the lab does with a call: note it, meet its fault, answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from tests.lab import faults
from tests.lab.state import Lab

SHOWN_HEADERS = (
    "authorization",
    "cancel-after",
    "x-fal-request-timeout",
    "x-fal-object-lifecycle-preference",
    "idempotency-key",
    "content-type",
    "accept",
)


class Desk:
    """Where one provider answers. `own` are the faults it has words of its own for."""

    def __init__(self, lab: Lab, provider: str, own: Mapping[str, tuple[int, Any]]) -> None:
        self.lab, self.provider, self._own = lab, provider, own

    async def answer(self, request: web.Request, call: str, good: faults.Good) -> web.StreamResponse:
        """The answer to a call, or what its fault makes of it."""
        body = await request.read()
        headers = {name: request.headers[name] for name in SHOWN_HEADERS if name in request.headers}
        self.lab.note(self.provider, call, request.method, request.path_qs, headers, _json(body))
        fault = self.lab.take(self.provider, call)
        if fault is None:
            return await good()
        if fault.name in self._own:
            status, said = self._own[fault.name]
            return web.json_response(said, status=status, headers=_error_type(said))
        return await faults.TABLE[fault.name](self.lab, fault, request, good)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return repr(body[:200])


def _error_type(said: Any) -> dict[str, str]:
    """AWS names an error in a header of its own."""
    kind = said.get("__type") if isinstance(said, dict) else None
    return {"x-amzn-errortype": kind} if kind else {}


def problem(status: int, **said: Any) -> web.Response:
    return web.json_response(said, status=status)


def png(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="image/png")
