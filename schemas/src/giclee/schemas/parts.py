"""Value objects that events are made of: money, sizes, blob references, prompts, scores, reasons.

All are frozen. What a caller may send is closed (`extra="forbid"`: a misspelt `budget_usd` must not
mean "no budget"); what we publish is open for readers, because events only ever gain optional fields.
"""

from __future__ import annotations

import math
import re
import uuid
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from giclee.schemas.ids import asset_id as asset_id
from giclee.schemas.ids import candidate_id as candidate_id
from giclee.schemas.ids import derived_id as derived_id


class Part(BaseModel):
    """A frozen value that readers may meet with fields they do not know yet."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class StrictPart(BaseModel):
    """A frozen value that a caller sends: unknown fields are errors, numbers are finite, no type is guessed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


# ---- text ---------------------------------------------------------------------------------------


NO_NUL = r"^[^\x00]*$"
"""What Postgres cannot hold is refused. Lone surrogates are no strings to pydantic in the first place."""

Text = Annotated[str, StringConstraints(pattern=NO_NUL)]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=NO_NUL)]
Tenant = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Pool = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,24}$")]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
LabelText = Annotated[str, StringConstraints(max_length=256, pattern=NO_NUL)]
Labels = Annotated[dict[LabelKey, LabelText], Field(max_length=32)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


Id = Annotated[uuid.UUID, Field(strict=False)]
"""A UUID; strict models take its text form too, since JSON has no other."""
Instant = AwareDatetime
"""A moment with its zone."""


def _parse_time(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value[:-1] + "+00:00" if value[-1:] in "zZ" else value
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("must be RFC 3339 with a time zone, for example 2026-11-21T17:00:00Z")
    return moment


AskedInstant = Annotated[
    AwareDatetime,
    BeforeValidator(_parse_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A moment as a caller writes it: RFC 3339, and no number of seconds is guessed to be one."""

# ---- money --------------------------------------------------------------------------------------

USD_PLACES = 6
"""Smallest amount that is kept: one millionth of a dollar."""


def _parse_usd(value: Any) -> Any:
    """Take a decimal string or a number; refuse what is not finite or finer than a millionth."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise ValueError('must be an amount in US dollars, as a decimal string such as "0.0004" or a number')
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise ValueError('must be a decimal string such as "0.0004"') from None
    if not amount.is_finite() or abs(amount) > 1_000_000:
        raise ValueError("must be finite and at most 1000000")
    if amount != round(amount, USD_PLACES):
        raise ValueError(f"must have at most {USD_PLACES} decimal places")
    return amount


def usd_text(amount: Decimal) -> str:
    """An amount as it stands on the wire: plain digits, no exponent, no trailing zeros."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") or "0" if "." in text else text


Usd = Annotated[
    Decimal,
    Field(ge=0, le=1_000_000, decimal_places=USD_PLACES, allow_inf_nan=False, strict=False),
    PlainSerializer(usd_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,6})?$"}),
]
"""An amount of ours, in US dollars."""

AskedUsd = Annotated[
    Decimal,
    BeforeValidator(_parse_usd),
    Field(ge=0),
    PlainSerializer(usd_text, return_type=str, when_used="json"),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,6})?$"}, {"type": "number", "minimum": 0}]}
    ),
]
"""An amount as a caller writes it: a decimal string or a number."""


# ---- enums that may grow ------------------------------------------------------------------------


def _or_other(known: Any) -> BeforeValidator:
    words = frozenset(get_args(known))
    return BeforeValidator(lambda value: value if value in words else "other")


AssetTypeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Selection = Literal["best", "first"]
Quality = Literal["draft", "final"]
Priority = Literal["interactive", "standard", "bulk"]
Privacy = Literal["public", "confidential"]
Copies = Literal["allow", "order", "tenant"]
ReviewRule = Literal["doubts", "all", "never"]

_Outcome = Literal["approved", "partial", "refused", "failed", "cancelled", "expired", "other"]
Outcome = Annotated[_Outcome, _or_other(_Outcome)]
_Judgement = Literal["pass", "fail", "unsure", "other"]
Judgement = Annotated[_Judgement, _or_other(_Judgement)]
"""What a gate says about one dimension. Anything but `pass` keeps an image from being approved."""
_DeadClass = Literal["invalid", "poison", "exhausted", "deadline", "bug", "other"]
DeadClass = Annotated[_DeadClass, _or_other(_DeadClass)]
_Change = Literal["created", "metadata", "derivatives", "replaced", "other"]
Change = Annotated[_Change, _or_other(_Change)]
_OutcomeClass = Literal[
    "made", "refused-content", "invalid", "auth", "budget", "rate", "transient", "timeout", "unusable", "other"
]
OutcomeClass = Annotated[_OutcomeClass, _or_other(_OutcomeClass)]
_CancelReason = Literal["user", "expired", "discarded", "other"]
CancelReason = Annotated[_CancelReason, _or_other(_CancelReason)]
_SwitchMode = Literal["hold", "refuse", "clear", "other"]
SwitchMode = Annotated[_SwitchMode, _or_other(_SwitchMode)]

# ---- what a caller names ------------------------------------------------------------------------


class Size(StrictPart):
    """Width and height in pixels."""

    width: Annotated[int, Field(ge=16, le=4096)]
    height: Annotated[int, Field(ge=16, le=4096)]


TemplateValue = Annotated[str, StringConstraints(max_length=1024, pattern=NO_NUL)] | bool | int | float


class TemplateUse(StrictPart):
    """A versioned prompt template and the values of its named slots (at most 64)."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    version: Annotated[int, Field(ge=1, le=2**31 - 1)]
    variables: Annotated[dict[LabelKey, TemplateValue], Field(max_length=64)] = {}


class ModelPin(StrictPart):
    """A model by name and, where given, the exact revision of its weights."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=NO_NUL)]
    revision: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=NO_NUL)] | None = None


class Params(StrictPart):
    """Sampler settings that a caller may fix; what is absent is the model's own."""

    steps: Annotated[int, Field(ge=1, le=200)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=50, strict=False)] | None = None


# ---- what we say --------------------------------------------------------------------------------


class BlobRef(Part):
    """A pointer to bytes in the object store; images are never in Kafka. `width`, `height` in pixels."""

    bucket: str
    key: str
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]
    content_type: str
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]


class Derivative(BlobRef):
    """A blob made from an approved original: a thumbnail, later a crop or another format."""

    role: str


class Score(Part):
    """One dimension of one image: what was measured (the lowest of its votes, and the `highest`) and what it means."""

    value: float | None
    threshold: float | None = None
    verdict: Judgement
    evaluator: str
    evaluator_version: str
    reason: str | None = None
    highest: float | None = None

    def passes(self) -> bool:
        """Whether this dimension lets an image be approved: a finite value and a `pass`, nothing less."""
        return self.verdict == "pass" and self.value is not None and math.isfinite(self.value)


class Adjustment(Part):
    """A difference between what was asked and what a provider could do."""

    field: str
    asked: str
    used: str
    reason: str


class Reason(Part):
    """Why something was refused, failed, rejected or stalled; `code` is a row of `reasons.TABLE`."""

    code: str
    stage: str
    message: str
    pointer: str | None = None
    rule: str | None = None
    dimension: str | None = None
    provider: str | None = None
    retryable: bool = False
    count: int = 1


class ModelUsed(Part):
    """The model that made an image, by the hash of its weights."""

    name: str
    revision: str
    weights_sha256: str | None = None


class Hop(Part):
    """One provider of a chain: who is asked, with which model, for which price in US dollars an image."""

    provider: str
    pool: Pool
    model: ModelUsed
    price_usd: Usd
    params: Params = Params()
    width: int
    height: int
    adjustments: tuple[Adjustment, ...] = ()


class Position(Part):
    """A record's place in Kafka."""

    topic: str
    partition: int
    offset: int


class AssetName(Part):
    """An approved asset as a closing lists it."""

    asset_id: Id
    version: int
    format: str | None = None


class ReviewTerms(Part):
    """What people look at of a request's images.

    `rule`: the gate's `doubts`, where the order would otherwise end short; `all` that may be approved; `never`.
    `share` of what the gate passes is drawn at random and looked at after its approval, before it where
    `share_blocks`.
    """

    rule: ReviewRule = "doubts"
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    share_blocks: bool = False


class Approval(Part):
    """Who let an image through, and under which rules."""

    by: str
    reviewer: str | None = None
    reason_codes: tuple[str, ...] = ()
    note: str | None = None
    sampled: bool = False
    policy_version: str
    gate_version: str
    approved_at: Instant


class AltText(Part):
    """A description for people who cannot see the image. `source` says who wrote it."""

    lang: str
    text: str
    source: str


class Links(Part):
    """Stable links; `download` redirects to a fresh presigned URL."""

    self: str
    download: str


_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def is_tenant(text: str) -> bool:
    """Whether `text` may name a tenant."""
    return _TENANT.fullmatch(text) is not None


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its usual form."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
