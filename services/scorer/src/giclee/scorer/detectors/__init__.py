"""TABLE: what can be the second vote on safety, by the word before the colon in `GICLEE_SCORER_SECOND_VOTE`.

To add one: a file here and a row below. A row with a model imports its library when it is built.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from giclee.scorer.detector import Detector
from giclee.scorer.detectors.skin import Skin
from giclee.scorer.dimension import NotUsable


def _skin(folder: Path | None, clip_dir: Path, threads: int) -> Detector:
    return Skin()


def _clip(folder: Path | None, clip_dir: Path, threads: int) -> Detector:
    from giclee.scorer.detectors.clip import ClipVote  # noqa: PLC0415 - as its embedder
    from giclee.scorer.embed import loaded  # noqa: PLC0415 - torch is heavy

    return ClipVote(loaded(folder or clip_dir, threads))


def _onnx(folder: Path | None, clip_dir: Path, threads: int) -> Detector:
    from giclee.scorer.detectors.classifier import Classifier  # noqa: PLC0415 - as its neighbours

    if folder is None:
        raise NotUsable("safety: GICLEE_SCORER_SECOND_VOTE=onnx needs a folder: onnx:FOLDER")
    return Classifier(folder, threads=threads)


TABLE: dict[str, Callable[[Path | None, Path, int], Detector]] = {"skin": _skin, "clip": _clip, "onnx": _onnx}


def second(told: str, *, clip_dir: Path, threads: int = 1) -> Detector:
    """The detector that a setting names. Errors: NotUsable for one that does not exist or cannot vote."""
    kind, _, folder = told.partition(":")
    if kind not in TABLE:
        raise NotUsable(
            f"safety: GICLEE_SCORER_SECOND_VOTE={told}: there are {', '.join(TABLE)}, as KIND or KIND:FOLDER"
        )
    return TABLE[kind](Path(folder) if folder else None, clip_dir, threads)
