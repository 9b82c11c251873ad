"""What a run asks for and what goes wrong in it, drawn by its seed. Pure.

A fault is injected when so many requests have been sent, and met by the next call that it fits; what nobody has met at
the end is told as such.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from giclee.models import world

PROVIDERS = ("fal", "replicate", "openai")
TENANTS = ("default", "acme", "globex", "initech")
"""The third has a cap of its own at fal."""
PINNED = {"flux-dev": "final", "sdxl": "draft"}
"""Models that some requests insist on, with their quality: a chain of one, whose failures become dead letters."""
BY_IMAGE = ("fal", "replicate")
"""Providers with jobs, and pictures at an address of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a run is asked to be. `rounds`: how often each fault is injected at each call that it fits, 0: each kind
    once, somewhere; `open_max`: requests open at once, since the line sets the pace; `real`: with the project's models.
    """

    requests: int
    seed: int
    rounds: int = 3
    open_max: int = 60
    real: bool = True
    closed_within_s: float = 600.0
    """After the last request."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault: at which provider and call, as which kind it is counted; `name` is the lab's word for it."""

    kind: str
    provider: str
    call: str
    name: str
    times: int = 1
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Price:
    """A provider's prices change. `told`: its operator hears of it before and sets the new price."""

    provider: str
    factor: str
    told: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """What stood still at a provider goes on, whoever still waits."""

    provider: str


Deed = Cell | Price | Release

_SUBMIT: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("429", "rate", {}),
    ("429 with Retry-After", "rate", {"retry_after": 2}),
    ("500", "error", {}),
    ("503", "unavailable", {}),
    ("silence until the deadline", "hang", {}),
    ("made and billed, never answered", "late", {}),
    ("made and billed, connection broken", "gone", {}),
    ("one byte a second", "slow", {}),
    ("truncated", "truncated", {}),
    ("wrong bytes", "wrong", {}),
    ("HTML", "html", {}),
    ("empty answer", "empty", {}),
    ("redirect", "redirect", {}),
    ("out of credit", "no-credit", {}),
)
_IMAGE: tuple[tuple[str, str], ...] = (
    ("500", "error"),
    ("one byte a second", "slow"),
    ("truncated", "truncated"),
    ("wrong bytes", "wrong"),
    ("HTML", "html"),
    ("redirect", "redirect"),
    ("bytes without end", "endless"),
)
_STATUS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("429 with Retry-After", "rate", {"retry_after": 1}),
    ("503", "unavailable", {}),
    ("HTML", "html", {}),
    ("truncated", "truncated", {}),
)
_REFUSALS: tuple[tuple[str, str, str, int, dict[str, Any]], ...] = (
    ("fal", "result", "refused", 1, {}),
    ("fal", "make", "unsafe", 1, {}),
    ("openai", "submit", "refused", 1, {}),
    ("replicate", "make", "failed", 1, {"error": "NSFW content detected. Try running it again."}),
)


def cells() -> tuple[Cell, ...]:
    """Every fault of the run once, for every call that it can meet."""
    found = [Cell(kind, at, "submit", name, 1, params) for at in PROVIDERS for kind, name, params in _SUBMIT]
    for at in BY_IMAGE:
        found += [Cell(kind, at, "image", name) for kind, name in _IMAGE]
        found += [Cell(kind, at, "status", name, 1, params) for kind, name, params in _STATUS]
        found += [Cell("queue that stands still", at, "make", name) for name in ("waiting", "running")]
        found += [Cell("slow queue", at, "make", "slow-queue", 1, {"asks": 3})]
        found += [Cell("failed job", at, "make", "failed")]
    for at in PROVIDERS:
        found += [Cell("flat colour", at, "make", "blank"), Cell("stock frame", at, "make", "stock", 2)]
        found += [Cell("no image in the answer", at, "make", "nothing")]
    return (*found, *(Cell("content refusal", *place) for place in _REFUSALS))


OUTAGES = tuple(Cell("503", at, "submit", "unavailable", 6) for at in PROVIDERS)
"""Long enough that the router sets the provider aside."""
PRICES = (
    Price("replicate", "1.5"), Price("openai", "1.5"), Price("fal", "1.4", told=True), Price("replicate", "1"),
    Price("openai", "1"), Price("fal", "0.8"), Price("fal", "1", told=True),
)  # fmt: skip
"""In their order: dearer and back at those that tell what a call cost; at fal, which never does, dearer as it had
announced, cheaper without a word, and back as announced."""


def deeds(wish: Wish) -> dict[int, list[Deed]]:
    """What is done when so many requests have been sent."""
    chance, requests, rounds = random.Random(f"faults {wish.seed}"), wish.requests, wish.rounds
    found = [*cells() * rounds, *OUTAGES * 2]
    if not rounds:
        kinds = sorted({one.kind for one in cells()})
        found = [chance.choice([one for one in cells() if one.kind == kind]) for kind in kinds]
    chance.shuffle(found)
    plan: dict[int, list[Deed]] = {}
    first, last = requests // 20, requests * 17 // 20
    for at, deed in enumerate(found):
        plan.setdefault(first + (last - first) * at // len(found), []).append(deed)
    for at, price in enumerate(PRICES if rounds else PRICES[:2]):
        plan.setdefault(requests * (at + 2) // 10, []).append(price)
    for at in range(3 * max(rounds, 1)):
        plan.setdefault(requests * (at + 1) // (3 * max(rounds, 1)), []).extend(Release(name) for name in BY_IMAGE)
    return plan


def asked(wish: Wish) -> list[dict[str, Any]]:
    """The requests, none with another's prompt, so that a provider's bill tells whose image it is for."""
    chance = random.Random(f"requests {wish.seed}")
    whole = [(scene, phrasing) for scene in world.all_scenes() for phrasing in range(len(world.PHRASINGS))]
    prompts = [world.phrase(scene, phrasing) for scene, phrasing in chance.sample(whole, wish.requests)]
    open_ones = _partial(chance)
    return [_request(chance, prompt, open_ones) for prompt in prompts]


def _request(chance: random.Random, prompt: str, open_ones: list[str]) -> dict[str, Any]:
    wanted = chance.choices((1, 2, 3), (85, 11, 4))[0]
    body: dict[str, Any] = {
        "request_id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
        "tenant": chance.choice(TENANTS),
        # several images of one scene resemble each other; what leaves something open is drawn differently each time
        "prompt": open_ones.pop() if wanted > 1 and open_ones else prompt,
        "wanted": wanted,
        # one that names its seed is compared with its own images only: the world has but 1,008 scenes
        "seed": chance.getrandbits(32),
        "quality": chance.choices(("final", "draft"), (65, 35))[0],
        "priority": chance.choices(("interactive", "standard", "bulk"), (25, 55, 20))[0],
        "labels": {"run": "lab-line"},
    }
    drawn = chance.random()
    if drawn < 0.05:
        body["privacy"] = "confidential"
    elif drawn < 0.11:
        model, body["quality"] = chance.choice(list(PINNED.items()))
        body |= {"model": {"name": model}, "tenant": TENANTS[0]}  # whom no cap of its own stops for a day
    elif drawn < 0.25:
        body["budget_usd"] = chance.choice(("0.03", "0.08", "0.4"))
    if chance.random() < 0.1:
        body["selection"] = "first"
    return body


def _partial(chance: random.Random) -> list[str]:
    """Prompts that leave the size, the background or both open, in any order."""
    found = {
        world.phrase_part(scene._replace(**dict.fromkeys(left_out)))
        for scene in world.all_scenes()
        for left_out in (("size",), ("background",), ("size", "background"))
    }
    return chance.sample(sorted(found), len(found))


def budget_of(body: dict[str, Any]) -> Decimal | None:
    """US dollars, where the request names a budget."""
    return Decimal(body["budget_usd"]) if "budget_usd" in body else None
