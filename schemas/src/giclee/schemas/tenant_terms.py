"""What tenants demand of whoever is sent their prompts: `[[tenant-terms]]` rows of `GICLEE_CONFIG`.

A row that names no tenant is for all of them, beside a tenant's own. What a model's row does not say it does not keep:
a demand is met only by what is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from giclee.schemas import config
from giclee.schemas.models import Model, Region
from giclee.schemas.parts import StrictPart, Tenant
from giclee.schemas.strict import FieldError, InvalidInput

TABLE = "tenant-terms"
ALL = ""
"""The name under which demands of all tenants are kept."""


class TenantTerms(StrictPart):
    """One row: `data_terms` is the most that a provider may do with prompts and pictures, `regions` where it may."""

    tenant: Tenant | None = None
    data_terms: Literal["nothing-kept", "kept"] | None = None
    regions: Annotated[list[Region], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _demands_something(self) -> TenantTerms:
        if self.data_terms is None and self.regions is None:
            raise ValueError("demands nothing: say data_terms, regions or both")
        return self


class Demand(NamedTuple):
    """What a model must be known to keep: `data_terms`, any of them, and a region of these; None: no matter."""

    data_terms: frozenset[str] | None = None
    regions: frozenset[str] | None = None

    def broken_by(self, model: Model) -> str | None:
        """What of it a model does not keep, or is not known to keep; None where all is well."""
        if self.data_terms is not None and model.terms not in self.data_terms:
            said = "of unknown data terms" if model.terms is None else f"one where what it is sent is {model.terms}"
            return f"is {said}, and the tenant demands {' or '.join(sorted(self.data_terms, reverse=True))}"
        if self.regions is not None and model.region not in self.regions:
            said = "an unknown region" if model.region is None else f"region {model.region}"
            return f"is in {said}, and the tenant demands {' or '.join(sorted(self.regions)) or 'what no region is'}"
        return None

    def with_(self, other: Demand) -> Demand:
        """Both at once."""
        return Demand(_both(self.data_terms, other.data_terms), _both(self.regions, other.regions))


class Demands:
    """Those of every tenant. `rows` as `load` gives them."""

    def __init__(self, rows: Mapping[str, Demand] | None = None) -> None:
        found = dict(rows or {})
        self._all = found.pop(ALL, None)
        self._by_tenant = {tenant: one if self._all is None else one.with_(self._all) for tenant, one in found.items()}

    def of(self, tenant: str) -> Demand | None:
        return self._by_tenant.get(tenant, self._all)


def load(path: str | None) -> dict[str, Demand]:
    """The demands of the file by tenant. Errors: InvalidInput naming every bad row by JSON pointer, and a tenant's
    second one."""
    found: dict[str, Demand] = {}
    errors = []
    for at, row in enumerate(config.rows_of(path, TABLE, TenantTerms)):
        tenant = row.tenant or ALL
        if tenant in found:
            errors.append(FieldError(f"/{TABLE}/{at}/tenant", "has a row before it", "invalid_field"))
        allowed = {"nothing-kept": {"nothing-kept"}, "kept": {"nothing-kept", "kept"}, None: None}[row.data_terms]
        regions = None if row.regions is None else frozenset(row.regions)
        found[tenant] = Demand(None if allowed is None else frozenset(allowed), regions)
    if errors:
        raise InvalidInput(errors)
    return found


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    return one & other if one is not None and other is not None else one if other is None else other
