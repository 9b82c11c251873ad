"""The shelf: a hop gets exactly the model it pins, and a folder must hold exactly what its manifest says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from giclee.gpu_worker import warm
from giclee.gpu_worker.provider import ModelUnusable, NotMade
from giclee.gpu_worker.shelf import Shelf, shape_of, verified
from giclee.schemas import models
from giclee.schemas.models import Model
from giclee.schemas.parts import Hop
from giclee.schemas.strict import InvalidInput
from tests.kit.candidates import hop, model

ROW = model(size_min=64, size_max=128, steps_max=10)
SHELF = Shelf({ROW.name: ROW})


def hop_of(**fields: Any) -> Hop:
    return Hop.model_validate(hop(ROW, **fields))


def test_a_hop_finds_its_model_and_shape() -> None:
    """What the caller left open is the model's own."""
    assert SHELF.find(hop_of()) is ROW
    shape = shape_of(ROW, hop_of(params={"steps": 4, "guidance_scale": 0}), negative=True)
    assert (shape.steps, shape.guidance_scale, shape.negative) == (4, 0.0, True)
    assert shape_of(ROW, hop_of(), negative=False).steps == ROW.steps


@pytest.mark.parametrize(
    ("fields", "outcome", "code"),
    [
        ({"model": {"name": "shapes-final", "revision": "r2"}}, "transient", "provider_transient"),
        ({"model": {"name": "unheard-of", "revision": "r1"}}, "transient", "provider_transient"),
        ({"provider": "diffusion"}, "transient", "provider_transient"),
        ({"width": 256}, "invalid", "size_unsupported"),
        ({"height": 70}, "invalid", "size_unsupported"),
        ({"params": {"steps": 11}}, "invalid", "param_unsupported"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], outcome: str, code: str) -> None:
    """Another revision or an absent model may be there after a restart; a size will never fit."""
    found = SHELF.find(hop_of(**fields))
    assert isinstance(found, NotMade)
    assert (found.outcome, found.code) == (outcome, code)


def test_a_model_without_guidance_refuses_one() -> None:
    """Never ignored: contract 3.1."""
    row = model(takes_guidance=False)
    found = Shelf({row.name: row}).find(Hop.model_validate(hop(row, params={"guidance_scale": 3})))
    assert isinstance(found, NotMade) and found.code == "param_unsupported"


# ---- folders ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A demo model's folder under `models/`, with a right manifest."""
    made = tmp_path / "models" / "shapes-final"
    (made / "unet").mkdir(parents=True)
    (made / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    (made / "model_index.json").write_text("{}")
    manifest(made)
    return made


def manifest(folder: Path, **fields: Any) -> None:
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    said = {"name": folder.name, "revision": "r1", "steps": 8, "guidance_scale": 2.0, "width": 64, "height": 64}
    (folder / "manifest.json").write_text(json.dumps({**said, "files": files, **fields}))


def row_of(folder: Path) -> Model:
    return model(location=str(folder), provider="diffusion")


def test_a_right_folder_is_named_by_the_hash_of_its_weights(folder: Path) -> None:
    """Other files do not change it, weights do."""
    first = verified(row_of(folder), folder)
    (folder / "model_index.json").write_text("{ }")
    manifest(folder)
    assert verified(row_of(folder), folder) == first
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"other")
    manifest(folder)
    assert verified(row_of(folder), folder) != first


def test_a_flipped_byte_a_missing_and_an_added_file_and_another_revision_are_all_named(folder: Path) -> None:
    """One message says everything that is wrong."""
    (folder / "more.bin").write_bytes(b"x")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weightz")
    (folder / "model_index.json").unlink()
    with pytest.raises(ModelUnusable) as said:
        verified(model(location=str(folder), revision="r9"), folder)
    text = str(said.value)
    assert "model_index.json is missing" in text and "more.bin is not in manifest.json" in text
    assert "diffusion_pytorch_model.safetensors has sha256" in text and "r9 is pinned" in text


def test_a_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    """Only safetensors are loaded."""
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelUnusable, match="other formats"):
        verified(row_of(tmp_path), tmp_path)


def test_the_rows_of_a_pool_come_from_manifests_and_the_operators_file(folder: Path, tmp_path: Path) -> None:
    """Demo models need no row of their own; a missing sibling folder is said; other pools' rows are left out."""
    draft = folder.with_name("shapes-draft")
    (draft / "unet").mkdir(parents=True)
    (draft / "unet" / "x.safetensors").write_bytes(b"w")
    manifest(draft)
    config = tmp_path / "giclee.toml"
    config.write_text(
        '[[models]]\nname="sdxl"\nrevision="462165984030d82259a11f4367a4eed129e94a7b"\nlocation="stabilityai/sdxl"\n'
        'pool="big"\nprice_usd="0.01"\nsteps=20\nwidth=1024\nheight=1024\nsize_min=512\nsize_max=1536\n'
    )
    root = folder.parent
    assert set(warm.rows_of(["local"], str(config), root)) == set(models.BUILTIN)
    assert set(warm.rows_of(["big"], str(config), root)) == {"sdxl"}
    assert warm.rows_of(["local"], None, root)["shapes-final"].revision == "r1"


def test_a_worker_without_a_model_or_with_half_of_the_demo_says_so(folder: Path, tmp_path: Path) -> None:
    """The process exits with this message."""
    with pytest.raises(ModelUnusable, match="shapes-draft is missing"):
        warm.rows_of(["local"], None, folder.parent)
    with pytest.raises(ModelUnusable, match="no model of the pool hosted"):
        warm.rows_of(["hosted"], None, tmp_path / "nowhere")


def test_a_manifest_that_cannot_be_read_is_named(folder: Path) -> None:
    """Router and worker both refuse to guess."""
    (folder / "manifest.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"shapes-final/manifest\.json"):
        models.builtin(folder.parent)


def test_every_wrong_file_of_every_model_is_said_at_once(folder: Path) -> None:
    """Start-up reports all bad models together."""
    second = row_of(folder).model_copy(update={"name": "other", "dtype": "float16"})
    (folder / "model_index.json").unlink()
    with pytest.raises(ModelUnusable) as said:
        warm.check_files({"a": row_of(folder), "b": second})
    assert "model shapes-final" in str(said.value) and "model other" in str(said.value)
