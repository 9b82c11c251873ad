"""A worker of the hosted pool over a shop in a file: `python -m tests.kit.shop_worker`. It runs without torch, or not
at all: importing what only devices of our own need fails.

SHOP names the file: one line a job, written before the shop answers, as a real service books first.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from giclee.gpu_worker import providers
from giclee.gpu_worker.provider import Ask, Call
from tests.kit.shop import NAME, Paid, Shop, Sold

HEAVY = {"torch", "diffusers", "transformers", "onnxruntime", "open_clip", "nudenet"}


@dataclass(slots=True)
class FileShop(Shop):
    """A shop whose book outlives whoever asks it; one process at a time."""

    book: Path = Path()

    def __post_init__(self) -> None:
        self.open.set()
        for line in self.book.read_text().splitlines() if self.book.exists() else ():
            told = json.loads(line)
            self.jobs[told["job"]] = None
            self.bill.append(Sold(told["job"], told["key"], Decimal(told["usd"])))

    def submit(self, ask: Ask, call: Call) -> str:
        job = f"job-{len(self.jobs)}"
        self.jobs[job] = None
        self.bill.append(Sold(job, call.key, self.usd))
        with self.book.open("a") as file:
            file.write(json.dumps({"job": job, "key": call.key, "usd": str(self.usd)}) + "\n")
        return job


class _Refuse:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in HEAVY:
            raise ImportError(f"{name} is for devices of our own")


if __name__ == "__main__":
    sys.meta_path.insert(0, _Refuse())
    providers.TABLE[NAME] = lambda kit: Paid(FileShop(book=Path(os.environ["SHOP"])))
    runpy.run_module("giclee.gpu_worker", run_name="__main__", alter_sys=True)
