"""Whether an image can be made again, as one word, and what was recorded for it, as an object beside the word.

Two fields, because subscribers keep or drop assets by the word: `reproducibility` was a string before it was a grade,
and stays one, while whatever else is worth recording is an optional field of the object.
"""

from __future__ import annotations

from typing import Literal

from giclee.schemas.parts import Part

Grade = Literal["exact", "perceptual", "none"]
"""What making the image again from its event gives.

`exact`: the same pixels, on the same kind of device with the same versions and batch: the seed was used, weights are
pinned and the arithmetic is deterministic (32 bits on a CPU). `perceptual`: a picture that looks the same: a GPU or
half precision, or a hosted model whose revision is pinned and that takes the seed. `none`: another picture, since the
seed was not used or nobody knows which revision answered.
"""


class Reproduction(Part):
    """How an image was computed, beside the model, seed, prompts, size and parameters that its event has anyway.

    `batch` is the padded size of the batch, which changes the arithmetic; `seed` the one that was used, absent where
    none was; `note` is for people.
    """

    backend: str
    device: str | None = None
    dtype: str | None = None
    batch: int | None = None
    threads: int | None = None
    versions: dict[str, str] = {}
    seed: int | None = None
    note: str | None = None
