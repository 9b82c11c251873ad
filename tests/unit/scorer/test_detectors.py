"""The detectors behind safety: views that miss nothing large enough, skin that abstains, captions that must be read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from giclee.models import world
from giclee.scorer.detectors import second
from giclee.scorer.detectors.classifier import weights_of
from giclee.scorer.detectors.clip import HARMLESS, UNSAFE, ClipVote
from giclee.scorer.detectors.nudenet import CLASSES, ENLARGED_PX, TILES_MAX, WEIGHTS, NudeNet, bundled, views_of
from giclee.scorer.detectors.skin import Skin
from giclee.scorer.dimension import NotUsable, Picture
from giclee.scorer.dimensions.safety import Safety
from tests.kit import tiny_onnx
from tests.kit.pictures import portrait

SIDES = (16, 64, 320, 321, 640, 1024, 1025, 1500, 2048, 3072, 4096, 8192)


def test_small_pictures_have_one_view_and_none_has_many() -> None:
    """Up to 320 px one, enlarged above, tiles of large ones: 16 at most, whatever the shape."""
    for height, width in itertools.product(SIDES, SIDES):
        count = len(views_of(height, width))
        longest = max(height, width)
        assert count == 1 if longest <= 320 else count == 2 if longest <= 960 else 3 < count <= 2 + TILES_MAX


def test_tiles_cover_every_pixel_and_overlap() -> None:
    """What one tile cuts in two, another one holds: neighbours share a fifth of a tile."""
    for height, width in ((512, 8192), (1025, 1025), (2048, 2048), (4096, 4096), (64, 4096), (1500, 3000)):
        seen: np.ndarray = np.zeros((height, width), np.uint8)
        for top, left, tall, wide, size_px in views_of(height, width)[2:]:
            assert size_px == ENLARGED_PX and top + tall <= height and left + wide <= width
            seen[top : top + tall, left : left + wide] += 1
        assert seen.min() >= 1
        for axis in (0, 1):
            starts = sorted({view[axis] for view in views_of(height, width)[2:]})
            side = views_of(height, width)[2][2 + axis]
            assert all(after - before <= 0.8 * side + 1 for before, after in itertools.pairwise(starts))


def test_a_picture_without_skin_tones_is_clean_and_other_pictures_are_left_to_others() -> None:
    """The toy world has none; a face has; grey has no colours to judge by."""
    grey = np.repeat(np.arange(64, dtype=np.uint8)[:, None, None] * 4, 64, axis=1).repeat(3, axis=2)
    shown = [world.render(scene, 3) for scene in world.all_scenes()[::37]]
    assert {vote.risk for vote in Skin().votes(shown) if vote.why != "no colours"} == {0.0}
    cold = portrait() * np.array((0, 1, 1), np.uint8)
    assert [vote.risk for vote in Skin().votes([portrait(), grey, cold])] == [None, None, 0.0]


class Reading:
    """An embedder that places captions on axes; a picture's first pixel says how near it is to the unsafe ones."""

    name, scale, weights_sha256 = "reading", 100.0, "ab" * 32

    def pictures(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        near: np.ndarray = np.array([one[0, 0, 0] / 255 for one in pixels])
        found: np.ndarray = np.stack([near, 1 - near], axis=1)
        return found

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        found: np.ndarray = np.array([(1.0, 0.0) if text in UNSAFE else (0.0, 1.0) for text in texts])
        return found

    def reads(self, text: str) -> str | None:
        return None


class Unread(Reading):
    """A model that knows no word for bodies."""

    def reads(self, text: str) -> str | None:
        return "it does not know naked" if "naked" in text else None


class Nowhere(Reading):
    """A model whose pictures are nowhere."""

    def pictures(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        return np.full((len(pixels), 2), math.nan)


def test_captions_vote_by_their_share() -> None:
    """Near the unsafe ones: risk 1; near the harmless: 0; in between both, by their number."""
    shown: list[np.ndarray] = [np.full((8, 8, 3), level, np.uint8) for level in (255, 0)]
    unsafe, safe = ClipVote(Reading()).votes(shown)
    assert unsafe.risk == pytest.approx(1) and unsafe.why in UNSAFE
    assert safe.risk == pytest.approx(0) and safe.why in HARMLESS
    assert math.isnan(ClipVote(Nowhere()).votes(shown)[0].risk or 0)


def test_a_model_that_cannot_read_the_captions_cannot_vote() -> None:
    """The message names the word and the setting."""
    with pytest.raises(NotUsable, match=r"does not know naked; .*GICLEE_SCORER_SECOND_VOTE=clip:FOLDER"):
        ClipVote(Unread())


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ("cat", "there are skin, clip, onnx"),
        ("", "there are skin, clip, onnx"),
        ("onnx", "onnx:FOLDER"),
        ("onnx:/nowhere", "/nowhere has no model.onnx, config.json, preprocessor_config.json"),
    ],
)
def test_a_second_vote_that_is_not_there_is_said(told: str, why: str) -> None:
    """The process exits with this message; it never goes on with one vote."""
    with pytest.raises(NotUsable, match=why):
        second(told, clip_dir=Path("/nowhere"))


def test_labels_of_unknown_meaning_are_refused() -> None:
    """A classifier of cats and dogs would call everything safe."""
    assert weights_of(["normal", "nsfw"], None) == {"nsfw": 1.0}
    assert weights_of(["a", "b"], {"B": 0.5}) == {"b": 0.5}
    for labels, told in ((["cat", "dog"], None), (["normal", "safe"], None), (["a"], {"b": 1.0}), (["a"], {"a": 7.0})):
        with pytest.raises(ValueError, match="giclee_unsafe"):
            weights_of(labels, told)


RED = np.zeros((50, 70, 3), np.uint8) + np.array((255, 0, 0), np.uint8)
AGAINST_RED = [[-4.0, 4.0], [2.0, -2.0], [2.0, -2.0]]


@pytest.mark.gpu
@pytest.mark.parametrize("softmax", [False, True])
def test_an_exported_classifier_votes_by_its_labels(tmp_path: Path, softmax: bool) -> None:
    """A real ONNX file that dislikes red, with its softmax inside or without."""
    folder = tiny_onnx.folder_of(tmp_path / "reds", ["normal", "nsfw"], AGAINST_RED, softmax=softmax)
    detector = second(f"onnx:{folder}", clip_dir=tmp_path)
    red, cyan = detector.votes([RED, 255 - RED])
    assert (red.risk or 0) > 0.99 and red.why == "nsfw 1.00"
    assert (cyan.risk or 0) < 0.01
    assert detector.describe().name == "onnx reds"


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "body", "why"),
    [
        ("model.onnx", b"not a model", "no ONNX model"),
        ("config.json", b"{", "JSONDecodeError"),
        ("config.json", b'{"id2label": {"0": "cat", "1": "dog"}}', "giclee_unsafe"),
        ("config.json", b'{"id2label": {"0": "safe", "1": "nsfw", "2": "sexy"}}', "id2label names 3"),
        ("preprocessor_config.json", b'{"size": 9, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]}', "says"),
        ("preprocessor_config.json", b'{"size": 8}', "image_mean"),
    ],
)
def test_a_broken_classifier_is_said(tmp_path: Path, name: str, body: bytes, why: str) -> None:
    """With its folder and what is wrong."""
    folder = tiny_onnx.folder_of(tmp_path / "broken", ["normal", "nsfw"], AGAINST_RED)
    (folder / name).write_bytes(body)
    with pytest.raises(NotUsable, match=f"{folder}.*{why}"):
        second(f"onnx:{folder}", clip_dir=tmp_path)


@pytest.mark.gpu
def test_the_real_detector_agrees_with_its_package_and_hides_nothing() -> None:
    """Wherever the package reports a class, our score of it is the same: circles of the world, where it sees bodies."""
    import nudenet

    ours, theirs, met = NudeNet(), nudenet.NudeDetector(), 0
    for seed, scene in enumerate(one for one in world.all_scenes() if one.shape == "circle" and one.size != "small"):
        if seed % 4:
            continue
        pixels = world.render(scene, seed)
        mine = ours.detect(pixels)
        for found in theirs.detect(pixels):
            met += 1
            assert mine[found["class"]] >= found["score"] - 1e-3
    assert met > 3, "nothing was compared"


def face(net: NudeNet, pixels: np.ndarray) -> float:
    found = net.detect(pixels)
    return max(found["FACE_FEMALE"], found["FACE_MALE"])


@pytest.mark.gpu
def test_a_small_subject_of_a_large_picture_is_seen() -> None:
    """A face of 40 px in 1,024, 2,048 and in a strip: with one view of 640 px it scored 0.42, 0.12 and nothing."""
    import cv2

    net = NudeNet()
    subject = cv2.resize(portrait(), (128, 128), interpolation=cv2.INTER_AREA)
    for height, width in ((1024, 1024), (2048, 2048), (512, 4096)):
        pixels: np.ndarray = np.full((height, width, 3), (120, 140, 160), np.uint8)
        pixels[300:428, width // 2 : width // 2 + 128] = subject
        assert face(net, pixels) > 0.6


@pytest.mark.gpu
def test_another_view_never_lowers_a_score() -> None:
    """Every class of the whole, enlarged and tiled picture is at least what each view alone gives."""
    net = NudeNet()
    pixels = np.tile(portrait(), (1, 3, 1))
    found = net.detect(pixels)
    for view in views_of(*pixels.shape[:2]):
        alone = net.scores(pixels, view)
        assert all(found[name] >= float(score) for name, score in zip(CLASSES, alone, strict=True))


@pytest.mark.gpu
def test_the_toy_world_is_never_thrown_away() -> None:
    """Every 29th scene at 64 px is over 0.5; at 256 px an alarm on a circle is a doubt, since there is no skin."""
    safety = Safety(NudeNet(), Skin())
    for side, least in ((64, 0.5), (256, 0.0)):
        shown = [Picture(pixels=world.render(scene, 7, side), prompt="") for scene in world.all_scenes()[::29]]
        for found in safety.measure(shown):
            assert found.value is not None and found.value > least and (found.highest or 0) >= found.value


@pytest.mark.gpu
def test_missing_or_other_weights_are_said(tmp_path: Path) -> None:
    """The process exits instead of passing everything."""
    other = tmp_path / "320n.onnx"
    with pytest.raises(NotUsable, match="is missing"):
        NudeNet(weights=other)
    other.write_bytes(bundled().read_bytes()[:-1] + b"x")
    with pytest.raises(NotUsable, match="is pinned"):
        NudeNet(weights=other)


def test_every_weight_is_a_share() -> None:
    """A vote's risk stays between 0 and 1."""
    assert all(0 < weight <= 1 for weight in WEIGHTS.values())
