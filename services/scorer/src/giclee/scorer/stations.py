"""Every place where pictures are measured, by dimension: the built-in ones, and the operator's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from giclee.schemas.strict import FieldError, InvalidInput
from giclee.scorer import dimensions, evaluators
from giclee.scorer.configured import Configured
from giclee.scorer.dimension import Dimension
from giclee.scorer.lane import Lane
from giclee.scorer.remote import Remote, key_of

Secret = Callable[[str], str | None]


def lanes(
    kit: dimensions.Kit, own: Configured = Configured(), *, batch_max: int = 8, timeout_s: float = 30.0
) -> dict[str, Lane]:
    """What is measured here, by name. Errors: NotUsable for a model that cannot be."""
    found: dict[str, tuple[Dimension, frozenset[str] | None]] = {
        name: (build(kit), None) for name, build in dimensions.TABLE.items()
    }
    for name, by_type in dimensions.BY_ASSET_TYPE.items():
        built = {asset_type: build(kit) for asset_type, build in by_type.items()}
        found[name] = dimensions.ByAssetType(name, built), frozenset(built)
    for row in own.evaluators:
        dimension = evaluators.dimension_of(row)
        if dimension is not None:
            found[row.name] = dimension, row.is_of()
    return {
        name: Lane(name, dimension, batch_max=batch_max, timeout_s=timeout_s, asset_types=types)
        for name, (dimension, types) in found.items()
    }


def groups(lanes: Mapping[str, Lane]) -> list[list[Lane]]:
    """The lanes that share a thread: each model has one of its own, all others are arithmetic and share one."""
    light = [lane for name, lane in lanes.items() if name not in dimensions.WITH_A_MODEL]
    return [*([lane] for name, lane in lanes.items() if name in dimensions.WITH_A_MODEL), *([light] if light else [])]


def remotes(own: Configured, secret: Secret) -> dict[str, Remote]:
    """What is asked elsewhere, by name; `secret` gives the value of a variable. Errors: InvalidInput naming every
    variable that is missing or cannot sign."""
    found: dict[str, Remote] = {}
    errors: list[FieldError] = []
    for at, row in enumerate(own.evaluators):
        if row.kind != evaluators.HTTP:
            continue
        name = row.parameters.secret_env
        try:
            text = secret(name)
            if text is None:
                raise ValueError("is not set, and it signs what is sent")
            found[row.name] = Remote(row.name, row.parameters, secret=key_of(text), asset_types=row.is_of())
        except ValueError as error:
            errors.append(FieldError(f"/evaluator/{at}/parameters/secret_env", f"{name} {error}"))
    if errors:
        raise InvalidInput(errors)
    return found
