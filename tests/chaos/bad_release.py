"""A release that dies of every image: `python -m tests.chaos.bad_release gpu-worker` or `scorer`.

The worker dies when its image is paid for, stored and written down, and nobody has been told; the scorer, before it
has measured anything. The bus's own guard against draining a topic into the dead letters is taken out, which a bad
release may not do: it is there so that thousands of letters come to be as real letters do.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any, NoReturn

from giclee.bus.layers import dead_letter
from giclee.gpu_worker import outcome
from giclee.schemas.events import ImageGenerated, ImageRouted
from giclee.scorer.handle import Scorer


async def _no_scores(self: Scorer, event: ImageGenerated) -> NoReturn:
    raise ValueError("this release cannot score")


def _no_news(routed: ImageRouted, told: Any) -> NoReturn:
    raise ValueError("this release cannot tell what it made")


if __name__ == "__main__":
    dead_letter.RUN_MAX = dead_letter.WINDOW_MAX = sys.maxsize
    if sys.argv[1] == "gpu-worker":
        outcome.events_of = _no_news
        runpy.run_module("tests.chaos.matrix_worker", run_name="__main__", alter_sys=True)
    else:
        Scorer.handle = _no_scores  # type: ignore[method-assign]
        runpy.run_module("tests.chaos.stub_scorer", run_name="__main__", alter_sys=True)
