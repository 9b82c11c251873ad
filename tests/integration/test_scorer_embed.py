"""The embedder with a tiny random open_clip model: real open_clip, real torch, no network."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giclee.models import world
from giclee.scorer.dimension import NotUsable, Picture
from giclee.scorer.dimensions.alignment import Alignment
from tests.kit import tiny_models

pytestmark = pytest.mark.gpu
PROMPT = "a small red circle on a blue background"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.clip_folder(tmp_path_factory.mktemp("clip") / "tiny-clip")


@pytest.fixture(scope="session")
def clip(folder: Path) -> Any:
    from giclee.scorer.embed import Clip

    return Clip(folder)


def test_rows_have_length_one_and_do_not_depend_on_the_batch(clip: Any) -> None:
    """Pictures of other sizes are scaled; texts are remembered."""
    shown = [world.render(world.scene_of(seed), seed, width) for seed, width in ((1, 64), (2, 64), (3, 128))]
    together = clip.pictures(shown)
    alone = np.concatenate([clip.pictures([one]) for one in shown])
    assert together.shape == (3, 32) and np.allclose(together, alone, atol=1e-5)
    texts = clip.texts([PROMPT, "a large ring", PROMPT])
    assert np.allclose(np.linalg.norm(np.concatenate([together, texts]), axis=1), 1, atol=1e-4)
    assert (texts[0] == texts[2]).all()


def test_it_says_what_it_cannot_read(clip: Any) -> None:
    """Unknown words and prompts that are too long; marks and capitals are no matter."""
    assert clip.reads(PROMPT) is None
    assert clip.reads("A small, RED circle on a blue background!") is None
    assert "hat" in clip.reads("a red circle with a hat")
    assert "20 tokens" in clip.reads(" ".join(["red"] * 30))


def test_an_untrained_model_is_measured_without_an_error(clip: Any) -> None:
    """A probability of the weakest attribute for every picture."""
    shown = [
        Picture(pixels=world.render(world.scene_of(seed), seed), prompt=world.prompt_of(seed)) for seed in range(8)
    ]
    for found in Alignment(clip).measure(shown):
        assert found.value is not None and 0 < found.value < 1 and found.certain


def test_a_changed_a_missing_and_a_broken_file_are_said(folder: Path, tmp_path: Path) -> None:
    """By name; the process exits with this message."""
    from giclee.scorer.embed import Clip

    weights = "open_clip_model.safetensors"
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in changed.iterdir()}
    (changed / "manifest.json").write_text(json.dumps({"files": {**files, "gone.json": "0" * 64}}))
    body = bytearray((changed / weights).read_bytes())
    body[-1] ^= 1
    (changed / weights).write_bytes(body)
    with pytest.raises(NotUsable) as said:
        Clip(changed)
    assert f"{weights} has sha256" in str(said.value) and "gone.json is missing" in str(said.value)
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / weights).write_bytes(b"not safetensors at all")
    with pytest.raises(NotUsable, match="does not load"):
        Clip(broken)
    with pytest.raises(NotUsable, match="make models"):
        Clip(tmp_path / "nowhere")
