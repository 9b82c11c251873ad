"""What policy decides about a request, as pure functions: the ruling, its version, and the event it becomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from giclee.bus.errors import Poison
from giclee.policy import asset_types, matchers, rules, templates
from giclee.policy.asset_types import AssetType
from giclee.policy.rules import Subject
from giclee.policy.templates import Assembled
from giclee.policy.wave import wave_zero
from giclee.schemas.events import CancelRequested, Cleared, ImageCleared, ImageRefused, ImageRequested
from giclee.schemas.models import Model
from giclee.schemas.parts import Copies, Part, Reason, ReviewTerms, Text, Usd, derived_id
from giclee.schemas.prompts import PromptSlots
from giclee.schemas.strict import pointer

STAGE = "policy"


class RequestIdConflict(Poison):
    """The id is known with other values. The first request is untouched; this record is a dead letter `invalid`."""

    def __init__(self, request: ImageRequested, fields: Iterable[str]) -> None:
        differ = sorted(fields)
        text = f"request {request.request_id} of {request.tenant} is known with other values of: {', '.join(differ)}"
        reasons = tuple(
            Reason(code="request_id_conflict", stage=STAGE, message=text, pointer=pointer((field,))) for field in differ
        )
        super().__init__(text, dead_class="invalid", reasons=reasons)


class Ruling(Part):
    """What was decided, as it is stored. `reasons` refuse; without any the request is cleared with the rest.

    `prompt` and `slots` are there when it was assembled from a template, `negative_prompt` whenever there is one.
    `discarded`: an operator gave the request up before it had a verdict; it keeps copies of the request out (rule 11).
    """

    policy_version: str
    reasons: tuple[Reason, ...] = ()
    discarded: bool = False
    prompt: Text | None = None
    slots: PromptSlots = ()
    negative_prompt: Text | None = None
    first_wave: int = 0
    limit_usd: Usd | None = None
    escalation_limit_usd: Usd | None = None
    copies: Copies = "order"
    review: ReviewTerms = ReviewTerms()

    @property
    def cleared(self) -> bool:
        return not self.reasons and not self.discarded

    @property
    def cause(self) -> str:
        """The rule that refused, else the code; empty for a clearance."""
        if self.discarded:
            return "discarded"
        return (self.reasons[0].rule or self.reasons[0].code) if self.reasons else ""


@dataclass(frozen=True, slots=True)
class Times:
    """When a request was accepted, and when it expires; both by the database's clock."""

    accepted_at: datetime
    closes_by: datetime


Key = tuple[str, UUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that wants a verdict, with the ruling that is its own if it is the first of its id."""

    tenant: str
    request_id: UUID
    origin: str
    asked: dict[str, str]
    ruling: Ruling
    recorded_at: datetime
    deadline: datetime | None
    ttl_h: int

    @property
    def key(self) -> Key:
        return (self.tenant, self.request_id)

    def row(self) -> dict[str, Any]:
        """As a statement reads it."""
        return {
            "tenant": self.tenant,
            "request_id": str(self.request_id),
            "origin": self.origin,
            "asked": self.asked,
            "ruling": self.ruling.model_dump(mode="json", exclude_none=True),
            "recorded_at": self.recorded_at.isoformat(),
            "deadline": self.deadline.isoformat() if self.deadline else None,
            "ttl_h": self.ttl_h,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The verdict that counts for a request. `asked` are the digests of its values, `origin` where it came from."""

    origin: str
    asked: dict[str, str]
    ruling: Ruling
    times: Times


def policy_version(types: Mapping[str, AssetType] = asset_types.TABLE) -> str:
    """Twelve hex digits that change whenever a rule, a word list, a template or an asset type does."""
    lists = sorted((path.name, path.read_text()) for path in matchers.WORDS.glob("*.txt"))
    rows = [(rule.name, rule.version, rule.message) for rule in rules.TABLE]
    prompts = [(name, row.text, row.negative_prompt, dict(row.slots)) for name, row in templates.TABLE.items()]
    tables = (lists, rows, prompts, dict(types))
    return hashlib.sha256(repr(tables).encode()).hexdigest()[:12]


class Judge:
    """Decides requests by the tables. `models` are all that can be asked for; their prices make the limit.

    `config_version` is that of the operator's file, where there is one; it is stamped on verdicts too. `types` are the
    kinds of assets, the operator's among them.
    """

    def __init__(
        self,
        models: Iterable[Model] = (),
        config_version: str = "",
        types: Mapping[str, AssetType] = asset_types.TABLE,
    ) -> None:
        self._models, self._types = tuple(models), types
        self.version = "+".join(filter(None, (policy_version(types), config_version)))

    def rule(self, request: ImageRequested) -> Ruling:
        """The ruling on a request; the same for the same tables, whenever it is asked."""
        row = self._types.get(request.asset_type)
        if row is None:
            return self.refused(_unknown_type(request, self._types))
        asked = Assembled(request.prompt or "", request.negative_prompt)
        if request.template is not None:
            assembled = templates.assemble(request.template, request.negative_prompt)
            if not isinstance(assembled, Assembled):
                return self.refused(*assembled)
            asked = assembled
        reason = rules.first_match(Subject(request, row, asked.prompt))
        if reason is not None:
            return self.refused(reason)
        return self._cleared(request, row, asked)

    def discarded(self) -> Ruling:
        """The ruling on a request that an operator gave up."""
        return Ruling(policy_version=self.version, discarded=True)

    def refused(self, *reasons: Reason) -> Ruling:
        """The ruling on a request that must not be made, for these reasons."""
        return Ruling(policy_version=self.version, reasons=reasons)

    def _cleared(self, request: ImageRequested, row: AssetType, asked: Assembled) -> Ruling:
        wave = wave_zero(request, row, self._models)
        return Ruling(
            policy_version=self.version,
            prompt=None if request.template is None else asked.prompt,
            slots=asked.slots,
            negative_prompt=asked.negative_prompt,
            first_wave=wave.candidates,
            limit_usd=wave.limit_usd,
            escalation_limit_usd=wave.escalation_usd,
            # whoever names a seed wants that picture, also when it was made before
            copies="order" if request.seed is not None and row.copies == "tenant" else row.copies,
            review=row.review,
        )


def _unknown_type(request: ImageRequested, types: Iterable[str]) -> Reason:
    names = ", ".join(types)
    text = f"there is no asset type {request.asset_type}; there are: {names}"
    return Reason(code="asset_type_unknown", stage=STAGE, message=text, pointer="/asset_type")


def event_of(request: ImageRequested, ruling: Ruling, times: Times) -> ImageCleared | ImageRefused | CancelRequested:
    """The event that a stored ruling becomes, the same however often it is made."""
    if ruling.discarded:
        return CancelRequested(**request.echo(), reason="discarded", request=request, accepted_at=times.accepted_at)
    if ruling.cleared:
        return _clearance(request, ruling, times)
    return ImageRefused(
        **request.echo(),
        reasons=ruling.reasons,
        policy_version=ruling.policy_version,
        asset_type=request.asset_type,
        wanted=request.wanted,
        accepted_at=times.accepted_at,
    )


_CARRIED = (
    "template", "locale", "asset_type", "size", "wanted", "selection", "budget_usd", "quality", "priority", "privacy",
    "model", "params", "strict",
)  # fmt: skip
"""Fields that a clearance repeats as they were asked."""


def _clearance(request: ImageRequested, ruling: Ruling, times: Times) -> ImageCleared:
    cleared = Cleared(
        **{name: getattr(request, name) for name in _CARRIED},
        prompt=ruling.prompt or request.prompt or "",
        slots=ruling.slots,
        negative_prompt=ruling.negative_prompt,
        max_candidates=request.candidate_cap(),
        seed=seed_of(request),
        seed_asked=request.seed is not None,
        limit_usd=ruling.limit_usd,
        escalation_limit_usd=ruling.escalation_limit_usd,
        copies=ruling.copies,
        review=ruling.review,
        policy_version=ruling.policy_version,
        accepted_at=times.accepted_at,
        closes_by=times.closes_by,
    )
    return ImageCleared(
        **request.echo(),
        request=cleared,
        first_wave=ruling.first_wave,
        limit_usd=cleared.limit_usd,
        closes_by=times.closes_by,
    )


def seed_of(request: ImageRequested) -> int:
    """The seed a request asked for, else one that follows from its id: 0 to 2^32 - 1."""
    if request.seed is not None:
        return request.seed
    return int.from_bytes(derived_id("seed", request.tenant, request.request_id).bytes[:4], "big")


def digests(request: ImageRequested) -> dict[str, str]:
    """A short hash of every value that was asked, after defaults.

    Two requests of one id must agree in it. Kept instead of the values: a prompt need not be stored for 400 days.
    """
    return {name: _digest(value) for name, value in request.values().items()}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(request: ImageRequested, first: dict[str, str]) -> set[str]:
    """The fields in which a request differs from the first one of its id."""
    now = digests(request)
    return {name for name in now.keys() | first.keys() if now.get(name) != first.get(name)}
