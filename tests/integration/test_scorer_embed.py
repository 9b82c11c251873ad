"""The embedder with a tiny random open_clip model: real open_clip, real torch, no network."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giclee.models import world
from giclee.scorer.detectors import second
from giclee.scorer.detectors.clip import ClipVote
from giclee.scorer.dimension import Dimension, Measured, NotUsable, Picture
from giclee.scorer.dimensions.alignment import Alignment
from giclee.scorer.dimensions.safety import Safety
from giclee.scorer.lane import Lane
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


def test_a_picture_is_embedded_once_for_all_who_ask(clip: Any) -> None:
    """Alignment and a vote on safety in lanes of their own, at the same time; kept no longer than the picture."""

    class Reader:
        """The model, as if it knew the captions."""

        def __getattr__(self, name: str) -> Any:
            return getattr(clip, name)

        def reads(self, text: str) -> None:
            return None

    async def score(pictures: list[Picture]) -> list[Measured]:
        dimensions: dict[str, Dimension] = {"alignment": Alignment(clip), "safety": Safety(ClipVote(Reader()))}
        lanes = [Lane(name, one, batch_max=3) for name, one in dimensions.items()]
        running = [asyncio.create_task(lane.run()) for lane in lanes]
        try:
            return await asyncio.gather(*(lane.measure(picture) for picture in pictures for lane in lanes))
        finally:
            for task in running:
                task.cancel()

    pictures = [Picture(pixels=decoded(seed), prompt=world.prompt_of(seed)) for seed in range(12)]
    before = clip.embedded
    found = asyncio.run(score(pictures))
    assert all(one.value is not None for one in found)
    assert clip.embedded - before == len(pictures)
    clip.pictures([pictures[0].pixels.copy()])  # one that could be written to is not the same picture for long
    assert clip.embedded - before == len(pictures) + 1
    assert len(clip._seen) == len(pictures)
    del pictures
    gc.collect()
    assert not clip._seen


def decoded(seed: int) -> np.ndarray:
    """A render as the decoder gives it: over bytes, read-only."""
    raw = world.render(world.scene_of(seed), seed).tobytes()
    found: np.ndarray = np.frombuffer(raw, np.uint8).reshape(64, 64, 3)
    return found


def test_a_model_with_byte_pairs_says_what_is_too_long(tmp_path: Path) -> None:
    """The usual open_clip tokenizer reads every word, but silently cuts a text at the model's length."""
    from giclee.scorer.embed import Clip

    clip = Clip(tiny_models.byte_pair_clip_folder(tmp_path / "tiny-openai"))
    assert clip.reads("a naked person, photographed") is None
    assert "77 tokens, the text has 102" in (clip.reads("cat " * 100) or "")
    risks = [vote.risk for vote in ClipVote(clip).votes([decoded(1), decoded(2)])]
    assert all(risk is not None and 0 < risk < 1 for risk in risks)


def test_the_demo_model_cannot_be_the_second_vote() -> None:
    """It knows thirty words, none of them about bodies: the process would exit with this message."""
    with pytest.raises(NotUsable, match="shapes-clip cannot be the second vote"):
        second("clip", clip_dir=Path(__file__).parents[2] / "models" / "shapes-clip")


def test_a_second_vote_that_cannot_vote_ends_the_process() -> None:
    """Exit code 3 and one line that says what to do: it never starts with one vote."""
    unreachable = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "DATABASE_URL": "postgresql://127.0.0.1:9/none",
        "GICLEE_BUCKET": "none",
        "GICLEE_MODELS_DIR": str(Path(__file__).parents[2] / "models"),
        "GICLEE_SCORER_SECOND_VOTE": "clip",
    }
    command = [sys.executable, "-m", "giclee.scorer"]
    done = subprocess.run(command, env={**os.environ, **unreachable}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3, done.stderr[-2000:]
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("giclee.scorer: safety: ") and "GICLEE_SCORER_SECOND_VOTE=clip:FOLDER" in said


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
