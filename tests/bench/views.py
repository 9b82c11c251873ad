"""`python -m tests.bench.views`: what the detector of bodies sees of a small subject, view by view, and what it costs.

The instrument is the score of a face in a photograph, a real class of the same network. Needs .venv-gpu and one core.
"""

from __future__ import annotations

import time

import cv2
import numpy as np

from giclee.scorer.detectors import skin
from giclee.scorer.detectors.nudenet import CLASSES, ENLARGED_PX, INPUT_PX, NudeNet, View, views_of
from giclee.scorer.dimension import Picture
from giclee.scorer.dimensions.safety import Safety
from tests.kit.pictures import portrait

FACES = [at for at, name in enumerate(CLASSES) if name.startswith("FACE")]
ROUNDS = 5


def canvas(side_px: int, subject_px: int) -> np.ndarray:
    """The photograph, `subject_px` wide, in a plain square."""
    subject = cv2.resize(portrait(), (subject_px, subject_px), interpolation=cv2.INTER_AREA)
    shown: np.ndarray = np.full((side_px, side_px, 3), (120, 140, 160), np.uint8)
    at = (side_px - subject_px) // 3
    shown[at : at + subject_px, at : at + subject_px] = subject
    return shown


def face(net: NudeNet, pixels: np.ndarray, *views: View) -> float:
    """The highest score of a face over some views."""
    return max(float(net.scores(pixels, view)[FACES].max()) for view in views)


def recall(net: NudeNet) -> None:
    """A table: subject and canvas in px, the score by views."""
    print("| subject | canvas | 320 | and 640 | and flipped | all views | number of views |\n" + "| --- " * 7 + "|")
    for side in (512, 1024, 2048, 3072):
        for subject in (512, 256, 128):
            if subject == side:
                continue
            shown, all_views = canvas(side, subject), views_of(side, side)
            small, large = (0, 0, side, side, INPUT_PX), (0, 0, side, side, ENLARGED_PX)
            whole = face(net, shown, small, large)
            flipped = max(whole, face(net, np.ascontiguousarray(shown[:, ::-1]), small, large))
            scores = (face(net, shown, small), whole, flipped, face(net, shown, *all_views))
            print(f"| {subject} | {side} | {' | '.join(f'{one:.2f}' for one in scores)} | {len(all_views)} |")


def cost(net: NudeNet) -> None:
    """A table: milliseconds a picture by size, the median of some rounds, processor time of one thread beside it."""
    safety = Safety(net, skin.Skin())
    print("| side | views | ms | of them the second vote |\n" + "| --- " * 4 + "|")
    for side in (64, 320, 512, 1024, 2048):
        shown = cv2.resize(portrait(), (side, side), interpolation=cv2.INTER_AREA)
        both = _milliseconds(lambda shown=shown: safety.measure([Picture(pixels=shown, prompt="")]))
        other = _milliseconds(lambda shown=shown: skin.Skin().votes([shown]))
        print(f"| {side} | {len(views_of(side, side))} | {both:.0f} | {other:.1f} |")


def _milliseconds(work: object) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        work()  # type: ignore[operator]
        took.append(time.thread_time() - began)
    return 1000 * sorted(took)[ROUNDS // 2]


if __name__ == "__main__":
    detector = NudeNet()
    recall(detector)
    cost(detector)
