"""The catalogue is the shipped models with the operator's file over them, checked as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from giclee.gpu_worker import providers as gpu_worker
from giclee.router.routes import Route, catalogue, route_of
from giclee.schemas.models import PROVIDERS
from giclee.schemas.strict import InvalidInput
from tests.unit.router.builders import model, request

MANIFEST = {"revision": "abc", "steps": 8, "guidance_scale": 1.0, "width": 64, "height": 64}
OWN = """
[[models]]
name = "sdxl"
revision = "r"
location = "org/sdxl"
price_usd = "0.01"
steps = 20
width = 1024
height = 1024
"""


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    for name, steps in (("shapes-final", 8), ("shapes-draft", 4)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps({**MANIFEST, "name": name, "steps": steps}))
    return tmp_path


def test_demo_models_come_from_their_manifests(shipped: Path) -> None:
    """Revision and steps are read, not written twice."""
    found = catalogue(None, shipped, ("local",))
    rows = {offer.model.name: offer for offer in found.offers}
    assert {name: (row.model.revision, row.model.steps, row.builtin) for name, row in rows.items()} == {
        "shapes-draft": ("abc", 4, True),
        "shapes-final": ("abc", 8, True),
    }


def test_the_operators_rows_are_no_demo_models(shipped: Path, tmp_path: Path) -> None:
    """Also where a row replaces a demo model by its name; another file is another version."""
    config = tmp_path / "giclee.toml"
    config.write_text(OWN + OWN.replace("sdxl", "shapes-final"))
    found = catalogue(str(config), shipped, ("local",))
    assert {offer.model.name: offer.builtin for offer in found.offers} == {
        "sdxl": False, "shapes-draft": True, "shapes-final": False,
    }  # fmt: skip
    assert found.version != catalogue(None, shipped, ("local",)).version


def test_no_model_and_no_pool_are_errors_at_the_start(shipped: Path, tmp_path: Path) -> None:
    """What would fail every candidate, or wait for ever, is said before anything is read."""
    with pytest.raises(InvalidInput, match="there is no model"):
        catalogue(None, tmp_path / "nothing", ("local",))
    config = tmp_path / "giclee.toml"
    config.write_text(OWN + 'pool = "mars"\n')
    with pytest.raises(InvalidInput, match="sdxl is of pool mars"):
        catalogue(str(config), shipped, ("local", "hosted"))


def test_a_provider_that_nobody_has_is_an_error_at_the_start(tmp_path: Path) -> None:
    """What it was given would wait for a worker that never comes; the names that there are, are said."""
    config = tmp_path / "giclee.toml"
    config.write_text(OWN + OWN.replace("sdxl", "other") + 'provider = "nobody"\n')
    with pytest.raises(InvalidInput, match="model other: there is no provider nobody; there are: bedrock") as caught:
        catalogue(str(config), tmp_path, ("local",))
    assert [error.pointer for error in caught.value.errors] == ["/models/1/provider"]
    assert gpu_worker.TABLE.keys() == PROVIDERS


@pytest.mark.parametrize(
    ("price", "provider", "says"),
    [
        ('"-0.01"', "fal", "greater than or equal to 0"),
        ('"900"', "fal", "900 US dollars for one image is absurd; at most 10"),
        ('"0"', "fal", "fal sends bills, and a price of nothing is no price"),
        ('"NaN"', "stub", "finite"),
        ('"0.0000001"', "stub", "decimal places"),
        ("nan", "stub", "finite"),
    ],
)
def test_a_models_own_price_must_be_one(tmp_path: Path, price: str, provider: str, says: str) -> None:
    """Negative, absurd, nothing where somebody sends bills, no number: refused by its pointer."""
    config = tmp_path / "giclee.toml"
    config.write_text(OWN.replace('"0.01"', price) + f'provider = "{provider}"\n')
    with pytest.raises(InvalidInput, match=says) as caught:
        catalogue(str(config), tmp_path, ("local",))
    assert caught.value.errors[0].pointer.startswith("/models/0")


def test_the_first_row_that_fits_is_the_route() -> None:
    """A row of an asset type comes before the general one only if it stands before it."""
    table = (
        Route(asset_type="email-hero", quality="final", serves=("final",), first=("b",)),
        Route(quality="final", serves=("final",)),
    )
    assert route_of(request(asset_type="email-hero"), table).first == ("b",)
    assert route_of(request(), table).first == ()
    assert route_of(request(quality="draft"), table).serves == ("draft",)


def test_a_routes_first_models_come_before_cheaper_ones() -> None:
    """Rank is quality, then the names a row puts first."""
    row = Route(quality="draft", serves=("draft", "final"), first=("b",))
    draft, b = model("a", qualities=["draft"]), model("b", qualities=["draft"])
    ranks = [row.rank(one) for one in (b, draft, model("c"))]
    assert ranks == [(0, 0), (0, 1), (1, 1)]
    assert Route(quality="final", serves=("final",)).rank(draft) is None
