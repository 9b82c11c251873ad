"""The bare side of G11: the scorer's two models over tensors that are ready, each in a thread of its own.

`python -m tests.bench.raw_scorer CLIP_FOLDER THREADS BATCH` in `.venv-gpu`. Reads `FIRST COUNT` a line and answers
with seconds, CPU seconds and the memory it ever held: pictures of the prompts from that seed on, CANDIDATES of each.
Nothing is decoded, scaled, judged or stored; the captions of a prompt are encoded once, as the scorer does.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import open_clip
import torch

from giclee.models import judge, world

CANDIDATES = 4
"""Pictures of one prompt, as the line has them."""
SIDE_PX = 320


class Raw:
    """Both models, loaded."""

    def __init__(self, folder: str, threads: int, batch: int) -> None:
        self.threads, self.batch = threads, batch
        torch.set_num_threads(threads)
        self.clip = open_clip.create_model(f"local-dir:{folder}").eval()
        self.tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        found = importlib.util.find_spec("nudenet")
        assert found is not None and found.origin is not None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        weights = str(Path(found.origin).parent / "320n.onnx")
        self.nude = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        self.pool = ThreadPoolExecutor(2)

    def round(self, first: int, count: int) -> dict[str, float]:
        """Figures of `count` pictures."""
        prompts = [world.prompt_of(first + number) for number in range(count // CANDIDATES)]
        pictures = np.stack([picture_of(first, number) for number in range(count)])
        seen, large = judge.pixels_of(pictures), _enlarged(pictures)
        began, cpu_began = time.perf_counter(), _cpu_s()
        works = [self.pool.submit(self._clip, seen, prompts), self.pool.submit(self._nude, large)]
        for work in works:
            work.result()
        seconds, cpu_s = time.perf_counter() - began, _cpu_s() - cpu_began
        return {"seconds": seconds, "cpu_s": cpu_s, "memory_mib": _used().ru_maxrss / 1024}

    @torch.inference_mode()
    def _clip(self, pixels: torch.Tensor, prompts: list[str]) -> None:
        torch.set_num_threads(self.threads)
        for part in pixels.split(self.batch):
            self.clip.encode_image(part, normalize=True)
        for prompt in prompts:
            captions = {one for several in world.alternatives_of(prompt).values() for one in several}
            self.clip.encode_text(self.tokenize(sorted(captions)), normalize=True)

    def _nude(self, pixels: np.ndarray) -> None:
        name = self.nude.get_inputs()[0].name
        for one in pixels:
            self.nude.run(None, {name: one[None]})


def picture_of(first: int, number: int) -> np.ndarray:
    """Picture `number` of a round: (64, 64, 3) uint8."""
    return world.render(world.scene_of(first + number // CANDIDATES), first * CANDIDATES + number)


def _enlarged(pictures: np.ndarray) -> np.ndarray:
    """(n, 3, 320, 320) floats in [0, 1]."""
    times = SIDE_PX // pictures.shape[1]
    large = pictures.repeat(times, axis=1).repeat(times, axis=2).transpose(0, 3, 1, 2)
    scaled: np.ndarray = np.ascontiguousarray(large, dtype=np.float32) / 255
    return scaled


def _used() -> Any:
    return resource.getrusage(resource.RUSAGE_SELF)


def _cpu_s() -> float:
    used = _used()
    return float(used.ru_utime + used.ru_stime)


def main(folder: str, threads: int, batch: int) -> None:
    """Answer until the input ends."""
    raw = Raw(folder, threads, batch)
    raw.round(0, 2 * batch)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        first, count = map(int, line.split())
        print(json.dumps(raw.round(first, count)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
