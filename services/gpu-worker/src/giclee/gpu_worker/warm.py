"""Loads the models before the first candidate comes and makes one image with each; until then, not ready.

Models of providers that bill are only asked for: no image is paid for that nobody wants.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from giclee.bus import failpoints, telemetry
from giclee.bus.errors import Transient
from giclee.gpu_worker.provider import Ask, ModelUnusable, NotMade, Provider, Shape
from giclee.gpu_worker.shelf import verified
from giclee.schemas import models
from giclee.schemas.models import OWN_PROVIDERS, Model

log = telemetry.logger(__name__)


def rows_of(pools: Collection[str], config: str | None, models_dir: Path) -> dict[str, Model]:
    """The models of these pools by name. Errors: ModelUnusable for a pool without any, or for a demo model whose folder
    is gone; InvalidInput for rows that cannot be read."""
    builtin = models.builtin(models_dir)
    rows, _ = models.load(config, builtin)
    gone = [str(models_dir / name) for name in models.BUILTIN if builtin and name not in rows]
    if gone:
        raise ModelUnusable(f"the folder {' and the folder '.join(gone)} is missing; `make models` makes it")
    mine = {name: row for name, row in rows.items() if row.pool in pools}
    empty = sorted(set(pools) - {row.pool for row in mine.values()})
    if empty:
        named = " and of the pool ".join(empty)
        raise ModelUnusable(f"no model of the pool {named}: neither under {models_dir} nor in GICLEE_CONFIG")
    return mine


def providers_of(config: str | None, models_dir: Path) -> set[str]:
    """Every provider that a model of any pool has: one file of an operator serves all pools."""
    return {row.provider for row in models.load(config, models.builtin(models_dir))[0].values()}


def check_providers(rows: Mapping[str, Model], known: Collection[str]) -> None:
    """Errors: ModelUnusable naming every model whose provider this release does not have."""
    wrong = [
        f"model {row.name}: there is no provider {row.provider}" for row in rows.values() if row.provider not in known
    ]
    if wrong:
        raise ModelUnusable(f"{'; '.join(wrong)}; there are: {', '.join(sorted(known))}")


def check_files(rows: Mapping[str, Model]) -> None:
    """Hash the folder of every model that has one. Errors: ModelUnusable naming every file of every model at once."""
    wrong: list[str] = []
    for model in distinct(rows.values()):
        folder = Path(model.location)
        if model.provider == "diffusion" and folder.is_dir():
            try:
                verified(model, folder)
            except ModelUnusable as error:
                wrong.append(str(error))
    if wrong:
        raise ModelUnusable("; ".join(wrong))


def distinct(rows: Iterable[Model]) -> list[Model]:
    """The first row of each that use the same weights: a model may be offered by a pool for each priority."""
    return list({row.weights: row for row in reversed(list(rows))}.values())[::-1]


class WarmUp:
    """The models that shall be resident (at most `resident_max`), those of providers that bill, and whether all are
    there."""

    def __init__(self, rows: Sequence[Model], providers: Mapping[str, Provider], *, resident_max: int) -> None:
        self._rows = distinct(row for row in rows if row.provider in OWN_PROVIDERS)[:resident_max]
        self._hosted = [row for row in rows if row.provider not in OWN_PROVIDERS]
        self._providers = providers
        self._waits_for: str | None = "models are not loaded yet"

    async def load(self) -> None:
        """Load every model. Errors: ModelUnusable, of hosted ones naming every one at once."""
        await failpoints.reach("before-model-load")
        for model in self._rows:
            await self._describe(model)
        wrong = []
        for model in self._hosted:
            try:
                await self._describe(model)
            except ModelUnusable as error:
                wrong.append(str(error))
        if wrong:
            raise ModelUnusable("; ".join(wrong))

    async def _describe(self, model: Model) -> None:
        found = await self._providers[model.provider].describe(model)
        await failpoints.reach("after-model-load")
        log.info("model loaded", model=model.name, revision=model.revision, where=found.where)

    async def run(self) -> None:
        """One image of each model, then wait until cancelled: a background function must not end."""
        for model in self._rows:
            self._waits_for = f"{model.name} makes its first image"
            shape = Shape(
                model=model.name,
                width=model.width,
                height=model.height,
                steps=model.steps,
                guidance_scale=model.guidance_scale,
            )
            ask = Ask(shape=shape, prompt="a large red circle on a white background", seed=0)
            answer = (await self._providers[model.provider].make(model, [ask], 1))[0]
            if isinstance(answer, NotMade):
                log.warning("the first image failed", model=model.name, why=answer.message)
            else:
                log.info("model is warm", model=model.name, seconds=round(answer.seconds, 3))
        self._waits_for = None
        await asyncio.Event().wait()

    async def check(self) -> None:
        """For /readyz. Errors: Transient until every model made its first image."""
        if self._waits_for is not None:
            raise Transient(self._waits_for)
