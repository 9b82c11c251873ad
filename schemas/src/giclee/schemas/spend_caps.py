"""The operator's caps on a day's spending at hosted providers: `[[spend-cap]]` rows of `GICLEE_CONFIG`.

A day is a UTC day of the database. A row that names no provider caps all of them together, one that names no tenant
all tenants together; every row that fits a call must have room for it.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import Annotated, NamedTuple

from pydantic import Field, field_validator

from giclee.schemas import config
from giclee.schemas.models import OWN_PROVIDERS
from giclee.schemas.parts import StrictPart, Tenant, Usd
from giclee.schemas.strict import FieldError, InvalidInput

TABLE = "spend-cap"
ALL = ""
"""The name under which a cap that names no provider, or no tenant, is kept."""


class SpendCap(StrictPart):
    """One row: at most `daily_usd` US dollars a day. 0 stops all calls that it fits."""

    provider: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    tenant: Tenant | None = None
    daily_usd: Usd

    @field_validator("provider")
    @classmethod
    def _bills(cls, name: str | None) -> str | None:
        if name in OWN_PROVIDERS:
            raise ValueError(f"{name} makes images on devices of our own and bills nothing")
        return name


class Cap(NamedTuple):
    """A cap as a call looks for it; ALL stands for what its row does not name."""

    provider: str
    tenant: str
    daily_usd: Decimal


def load(path: str | None, providers: Collection[str] | None) -> tuple[Cap, ...]:
    """The caps of the file. `providers` are those that rows of models name; None: nobody can say.

    Errors: InvalidInput naming every bad row by JSON pointer: a name that no model has (a cap that never caps), a
    provider that bills nothing, a second row for the same pair.
    """
    rows = config.rows_of(path, TABLE, SpendCap)
    found = [Cap(row.provider or ALL, row.tenant or ALL, row.daily_usd) for row in rows]
    errors = []
    for at, cap in enumerate(found):
        if cap.provider != ALL and providers is not None and cap.provider not in providers:
            known = ", ".join(sorted(set(providers) - OWN_PROVIDERS)) or "none that bills"
            errors.append(_wrong(at, "provider", f"no model has the provider {cap.provider}; there are: {known}"))
        if cap[:2] in [earlier[:2] for earlier in found[:at]]:
            errors.append(_wrong(at, "tenant", "the same provider and tenant have a row before it"))
    if errors:
        raise InvalidInput(errors)
    return tuple(found)


def fitting(caps: Collection[Cap], provider: str, tenant: str) -> list[Cap]:
    """The caps that a call of `tenant` at `provider` must fit, always in the same order: they are locked in it."""
    return sorted(cap for cap in caps if cap.provider in (ALL, provider) and cap.tenant in (ALL, tenant))


def _wrong(at: int, field: str, detail: str) -> FieldError:
    return FieldError(f"/{TABLE}/{at}/{field}", detail, "invalid_field")
