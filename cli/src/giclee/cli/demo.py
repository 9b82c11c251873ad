"""The main job once, on real parts: a handful of requests, what each promised, what came of it, as a page.

Exit code 0 only if every request ended as its row promises. A stack that was not running is started and
stopped again; one that was running is left alone.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from giclee.bus import kafka
from giclee.bus.settings import KafkaSettings
from giclee.bus.transport import Record
from giclee.cli import assets, dev, environment, page, requests
from giclee.cli.http import ASSETS, INTAKE, call, pages, tell_service
from giclee.cli.output import BAD, show, tell
from giclee.infra.local.folder import folder_from_env
from giclee.infra.trouble import Trouble

FOLDER = Path("demo")
APPEARS_S = 30.0
"""How long a request that came over Kafka may take to show up in the API."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request of the demo: what is asked, how it is sent, and which ends keep the promise."""

    title: str
    body: dict[str, Any]
    promise: tuple[str, ...]
    over: str = "http"
    cancel: bool = False


@dataclass(slots=True)
class Ended:
    """What came of a row."""

    row: Row
    found: dict[str, Any]
    seconds: float
    files: list[Path] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        return self.found["state"] in self.row.promise


# fmt: off
ROWS: tuple[Row, ...] = (
    Row("two of a prompt", {"prompt": "a small red circle on a blue background", "wanted": 2}, ("approved",)),
    Row("from a shell, over Kafka", {"prompt": "large white ring , black background"}, ("approved",), over="kafka"),
    Row("three for a campaign", {"prompt": "a green cross , medium , on orange", "wanted": 3,
                                 "asset_type": "paid-social", "labels": {"campaign": "autumn"}},
        ("approved", "partial")),
    Row("a cheap draft", {"prompt": "a large yellow square on a purple background", "quality": "draft",
                          "max_candidates": 16}, ("approved", "failed")),
    Row("a tile from a template", {"asset_type": "product-tile", "template": {"id": "shape", "version": 1,
        "variables": {"size": "medium", "colour": "blue", "shape": "diamond", "background": "white"}}}, ("approved",)),
    Row("a tiny budget", {"prompt": "a small black triangle on a yellow background", "wanted": 4,
                          "budget_usd": "0.0016"}, ("approved", "partial", "failed")),
    Row("something policy refuses", {"prompt": "a graphic beheading"}, ("refused",)),
    Row("a change of mind", {"prompt": "a large orange diamond on a white background", "wanted": 20,
                             "max_candidates": 80}, ("cancelled",), cancel=True),
)
# fmt: on


async def _publish(body: dict[str, Any]) -> None:
    """What `kcat -P` does: a bare JSON value, no headers, no key."""
    settings = KafkaSettings(bootstrap_servers=environment.needed("KAFKA_BOOTSTRAP_SERVERS"))
    writer = kafka.KafkaTransport(settings, client_id="giclee-demo").writer("demo")
    await writer.start()
    try:
        await writer.send([Record(topic="image.requested.v1", value=json.dumps(body).encode())])
    finally:
        await writer.stop()


def _send(row: Row) -> str:
    """The id of the request, once the API knows it."""
    reference = f"demo-{uuid.uuid4().hex[:8]}"
    body = {**row.body, "client_ref": reference}
    if row.over == "http":
        return str(call(INTAKE, "POST", "/v1/requests", json=body)["request_id"])
    asyncio.run(_publish(body))
    deadline = time.monotonic() + APPEARS_S
    while time.monotonic() < deadline:
        items = call(INTAKE, "GET", "/v1/requests", params={"client_ref": reference})["items"]
        if items:
            return str(items[0]["request_id"])
        time.sleep(0.2)
    raise Trouble(f"{row.title}: the record was sent, but no request appeared within {APPEARS_S:.0f} s.")


def _run(row: Row) -> Ended:
    """Send, wait for the end, fetch what was approved."""
    began = time.monotonic()
    request_id = _send(row)
    if row.cancel:
        call(INTAKE, "POST", f"/v1/requests/{request_id}/cancel")
    found: dict[str, Any] = {}
    for found in requests.events(request_id):
        if found["state"] == "in-review":
            _turn_down_doubts(request_id)
    ended = Ended(row, found, time.monotonic() - began)
    for one in found.get("assets") or ():
        ended.files.append(assets.download(one["asset_id"], FOLDER))
    return ended


def _turn_down_doubts(request_id: str) -> None:
    """Reject what an order asks people about: nobody sits before a demo, and the order would wait for them."""
    for one in pages(ASSETS, "/v1/reviews", {"state": "pending"}, limit=200):
        if one["request_id"] == request_id and one["kind"] != "sample":
            body = {"verdict": "fail", "sha256": one["sha256"], "reason_codes": ["other"], "note": "nobody looked"}
            tell_service("POST", f"/v1/reviews/{one['candidate_id']}", service=ASSETS, json=body)


def _line(ended: Ended) -> dict[str, Any]:
    found = ended.found
    return {
        "request": ended.row.title,
        "promised": " or ".join(ended.row.promise),
        "outcome": found["state"] + ("" if ended.kept else "  (not kept)"),
        "candidates": len(found.get("candidates") or ()),
        "approved": found["progress"]["approved"],
        "cost_usd": found.get("cost_usd"),
        "time_s": round(ended.seconds, 1),
        "file": str(ended.files[0]) if ended.files else None,
    }


def run() -> bool:
    """Run every row at once on the running stack; whether all promises were kept."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.webp"):
        old.unlink()
    with ThreadPoolExecutor(len(ROWS)) as side_by_side:
        ended = list(side_by_side.map(_run, ROWS))
    (FOLDER / "index.html").write_text(page.html([(_line(one), one.found, one.files) for one in ended]))
    show([_line(one) for one in ended], as_json=False)
    tell(f"{FOLDER / 'index.html'} has the pictures.")
    return all(one.kept for one in ended)


Keep = Annotated[bool, typer.Option("--keep", help="Leave a stack that the demo started running.")]


def demo(keep: Keep = False) -> None:
    """Start what is not running, send a handful of requests, show what came of them."""
    began = time.monotonic()
    ours = not folder_from_env().is_locked()
    try:
        dev.ensure_up()
        good = run()
    finally:
        if ours and not keep:
            dev.down()
    tell(f"{time.monotonic() - began:.0f} s in all.")
    if not good:
        raise typer.Exit(BAD)
