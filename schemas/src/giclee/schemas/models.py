"""The models that can be asked for: one row each, built in or from the operator's file.

Router and workers read the same rows: what the router offers is what a worker has on its shelf. A user's
own SDXL or FLUX is one `[[models]]` row in the TOML file named by `GICLEE_CONFIG`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from giclee.schemas import config
from giclee.schemas.parts import Pool, Priority, Quality, StrictPart, Usd
from giclee.schemas.prices import UNIT_MAX_USD
from giclee.schemas.strict import FieldError, InvalidInput

DataTerms = Literal["nothing-kept", "kept", "trained-on"]
Region = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]

OWN_PROVIDERS = frozenset({"diffusion", "stub"})
"""Providers that make images on devices of our own. Every other one sends bills: what is not known costs money."""

PROVIDERS = OWN_PROVIDERS | {"fal", "replicate", "openai", "bedrock", "comfyui"}
"""Everybody whom a worker of this release can ask (`gpu_worker/providers/__init__.py`): a model of anybody else would
be routed to, and wait for a worker that never comes."""


class Model(StrictPart):
    """One model as it is offered.

    `location` is a pipeline folder or, for a hosted model, a file (relative ones are looked up beside the file that
    names them, built-in ones under `models/`), a repository name or a provider's name for it, pinned by `revision`.
    `price_usd` is for one image at the model's own steps; `seconds` is what one image is expected to take; sizes are
    in pixels and must be multiples of `size_multiple`. `priorities` are those it works for: a pool of its own for
    interactive work, another for bulk. `per_minute` calls are allowed by the provider at this `location`, to all
    workers and all rows that name it together. `data_terms` says what the provider may do with prompts and pictures;
    what it keeps or learns from is not private. A hosted row that does not say `data_terms` has unknown ones, and is
    private only where it says so. `region` is where it computes, in the operator's words.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    revision: Annotated[str, Field(min_length=1, max_length=64)]
    location: Annotated[str, Field(min_length=1)]
    provider: str = "diffusion"
    pool: Pool = "local"
    qualities: Annotated[list[Quality], Field(min_length=1)] = ["final"]
    private: bool = True
    price_usd: Usd
    seconds: Annotated[float, Field(gt=0, strict=False)] = 1.0
    steps: Annotated[int, Field(ge=1, le=200)]
    steps_max: Annotated[int, Field(ge=1, le=200)] = 50
    guidance_scale: Annotated[float, Field(ge=0, le=50, strict=False)] = 0.0
    takes_guidance: bool = True
    takes_negative_prompt: bool = True
    width: Annotated[int, Field(ge=16, le=4096)]
    height: Annotated[int, Field(ge=16, le=4096)]
    size_min: Annotated[int, Field(ge=16, le=4096)] = 64
    size_max: Annotated[int, Field(ge=16, le=4096)] = 1024
    size_multiple: Annotated[int, Field(ge=1, le=64)] = 8
    batch_max: Annotated[int, Field(ge=1, le=64)] = 4
    dtype: Annotated[str, Field(pattern=r"^(float32|float16|bfloat16)$")] = "float32"
    takes_seed: bool = True
    priorities: Annotated[list[Priority], Field(min_length=1)] = ["interactive", "standard", "bulk"]
    per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    data_terms: DataTerms = "nothing-kept"
    region: Region | None = None

    @property
    def weights(self) -> tuple[str, str, str, str]:
        """What rows that need loading only once have in common."""
        return self.provider, self.location, self.revision, self.dtype

    @property
    def terms(self) -> DataTerms | None:
        """The data terms as far as they are known: nothing leaves devices of our own, of others the row must say."""
        known = self.provider in OWN_PROVIDERS or "data_terms" in self.model_fields_set
        return self.data_terms if known else None

    @model_validator(mode="before")
    @classmethod
    def _hosted_is_private_where_it_says_so(cls, row: Any) -> Any:
        hosted = isinstance(row, dict) and row.get("provider", "diffusion") not in OWN_PROVIDERS
        return {"private": False, **row} if hosted else row

    @model_validator(mode="after")
    def _private_means_that_nothing_is_kept(self) -> Model:
        if self.private and self.data_terms != "nothing-kept":
            raise ValueError(f"private = true does not go with data_terms = {self.data_terms!r}; say private = false")
        return self

    @model_validator(mode="after")
    def _somebody_can_mean_the_price(self) -> Model:
        most = UNIT_MAX_USD["image"]
        if self.price_usd > most:
            raise ValueError(f"price_usd: {self.price_usd} US dollars for one image is absurd; at most {most}")
        if self.price_usd.is_zero() and self.provider not in OWN_PROVIDERS:
            raise ValueError(f"price_usd: {self.provider} sends bills, and a price of nothing is no price")
        return self


BUILTIN: dict[str, dict[str, Any]] = {
    "shapes-final": {"qualities": ["final"], "price_usd": "0.0004", "seconds": 0.5},
    "shapes-draft": {"qualities": ["draft"], "price_usd": "0.0001", "seconds": 0.2},
}
"""The demo models: what their manifests do not say. Prices are made up, so that routes differ."""

_SAID_BY_MANIFEST = ("name", "revision", "steps", "guidance_scale", "width", "height")


def builtin(root: Path) -> tuple[Model, ...]:
    """The rows of the demo models under `root`, each from its folder's manifest.json; an absent folder has no row.

    Errors: InvalidInput naming every manifest that is missing from its folder or cannot be used.
    """
    rows: list[Model] = []
    errors: list[FieldError] = []
    for name, ours in BUILTIN.items():
        manifest = root / name / "manifest.json"
        if not manifest.parent.is_dir():
            continue
        try:
            told = json.loads(manifest.read_text())
            said = {field: told[field] for field in _SAID_BY_MANIFEST if field in told}
            size = {"size_min": told["width"], "size_max": told["width"]}
            rows.append(Model.model_validate({**said, **size, "location": str(manifest.parent), **ours}))
        except (OSError, ValueError, TypeError, KeyError) as error:
            errors.append(FieldError("", f"{manifest}: {type(error).__name__}: {error}", "invalid_field"))
    if errors:
        raise InvalidInput(errors)
    return tuple(rows)


def load(path: str | None, builtin: tuple[Model, ...]) -> tuple[dict[str, Model], str]:
    """All models by name (a row of the file replaces a built-in of its name) and the tables' version.

    The version is the first 12 hex digits of the sha256 of the rows. Errors: InvalidInput naming every bad row by
    JSON pointer.
    """
    rows = {model.name: model for model in builtin}
    for model in _rows_of(Path(path)) if path else ():
        rows[model.name] = model
    text = "\n".join(rows[name].model_dump_json() for name in sorted(rows))
    return rows, hashlib.sha256(text.encode()).hexdigest()[:12]


def check_providers(path: str | None) -> None:
    """Errors: InvalidInput naming every row of a provider that nobody has here, by JSON pointer."""
    known = ", ".join(sorted(PROVIDERS))
    errors = [
        FieldError(
            f"/models/{at}/provider", f"model {row.name}: there is no provider {row.provider}; there are: {known}"
        )
        for at, row in enumerate(config.rows_of(path, "models", Model))
        if row.provider not in PROVIDERS
    ]
    if errors:
        raise InvalidInput(errors)


def _rows_of(path: Path) -> list[Model]:
    found = config.rows_of(path, "models", Model)
    return [
        row.model_copy(update={"location": str(where)}) if (where := path.parent / row.location).exists() else row
        for row in found
    ]
