"""TABLE of routes: which qualities of models serve a request, which models come first. The first row that fits counts.

A model of a better quality than asked may stand in, and the chain says so; one of a lesser quality never does.
The models themselves are rows of `schemas/models.py` and of the operator's file; no route needs to name them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from giclee.schemas import models
from giclee.schemas.events import Cleared
from giclee.schemas.models import Model
from giclee.schemas.parts import Quality
from giclee.schemas.strict import FieldError, InvalidInput

ANY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Requests of one asset type and quality. `serves`: qualities of models, in order. `first`: models by name."""

    asset_type: str = ANY
    quality: Quality
    serves: tuple[Quality, ...]
    first: tuple[str, ...] = ()

    def fits(self, request: Cleared) -> bool:
        """Whether this row is about `request`."""
        return self.quality == request.quality and self.asset_type in (ANY, request.asset_type)

    def rank(self, model: Model) -> tuple[int, int] | None:
        """The model's place on this route, smaller first; None when it does not serve it."""
        for at, quality in enumerate(self.serves):
            if quality in model.qualities:
                return at, self.first.index(model.name) if model.name in self.first else len(self.first)
        return None


# fmt: off
TABLE: tuple[Route, ...] = (
    Route(quality="final", serves=("final",)),
    Route(quality="draft", serves=("draft", "final")),
)
# fmt: on


def route_of(request: Cleared, table: Sequence[Route] = TABLE) -> Route:
    """The row for a request; without one only models of its own quality serve."""
    for row in table:
        if row.fits(request):
            return row
    return Route(quality=request.quality, serves=(request.quality,))


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that can be chosen. A demo model (`builtin`) serves where none of the operator's own can."""

    model: Model
    builtin: bool = False


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All offers, by name, and the version of the tables they come from."""

    offers: tuple[Offer, ...]
    version: str


def catalogue(config: str | None, models_dir: Path, pools: Sequence[str]) -> Catalogue:
    """The demo models under `models_dir` with the operator's file over them.

    Errors: InvalidInput for rows that cannot be read, for a model of no known provider or pool, and when there is no
    model.
    """
    builtin = models.builtin(models_dir)
    rows, version = models.load(config, builtin)
    models.check_providers(config)
    errors = [
        FieldError("", f"model {row.name} is of pool {row.pool}, which GICLEE_POOLS does not name")
        for row in rows.values()
        if row.pool not in pools
    ]
    if not rows:
        errors.append(FieldError("", f"there is no model: neither under {models_dir} nor in GICLEE_CONFIG"))
    if errors:
        raise InvalidInput(errors)
    shipped = {model.name: model for model in builtin}
    offers = tuple(Offer(rows[name], builtin=shipped.get(name) is rows[name]) for name in sorted(rows))
    return Catalogue(offers, version)
