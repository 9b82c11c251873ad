"""G5, the CPU form: images per second through a worker against a raw diffusers loop with the same pipeline."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from giclee.infra import migrate, topics
from tests.bench import sides
from tests.bench.measure import Result, Row, Wrong, cores, load, median, pin, shown
from tests.kit.stack import Stack, stack

PREFIX = "worker."
CHECKOUT = Path(__file__).parents[2]
GPU_PYTHON = CHECKOUT / ".venv-gpu/bin/python"
SIDES = (
    "Ours: routed candidates from Kafka, claims and leases in Postgres (fsync), batches, denoising and decoding, "
    "lossless WebP, PUT to the bucket, the stored outcome, the event acknowledged. Bare: the same pipeline object in "
    'the same process, full batches, `output_type="pt"`, nothing encoded or stored. Both: model shapes-final, '
    "float32 on the CPU, the same prompts, seeds, batch size and threads, the same two cores; in each round first the "
    "raw loop, then the worker. Every image was read back and its hash checked."
)


def _rounds(running: Stack, rounds: int, images: int, folder: Path) -> list[dict[str, Any]]:
    """One line a round. Errors: Wrong."""
    asyncio.run(migrate.migrate(running.database_url))
    topics.apply(topics.Target(running.bootstrap_servers, PREFIX, 1))
    env = sides.environment(running, PREFIX, folder, running.database_url)
    del env["GICLEE_CONFIG"]
    env["GICLEE_MODELS_DIR"] = str(CHECKOUT / "models")
    argv = [str(GPU_PYTHON), "-m", "tests.bench.worker", str(rounds), str(images)]
    done = subprocess.run(argv, env=env, cwd=CHECKOUT, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode != 0:
        raise Wrong(f"G5 ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    lines = (line for line in done.stdout.splitlines() if line.startswith('{"raw"'))
    return [json.loads(line) for line in lines]


def run(rounds: int, *, quick: bool) -> Result:
    """Measure G5. Errors: Wrong."""
    before = load()
    pin(cores())
    images = 16 if quick else 96
    with stack(durable=True) as running, tempfile.TemporaryDirectory(prefix="giclee-bench-") as folder:
        found = _rounds(running, rounds, images, Path(folder))
    (ours_s, ours_ms), (bare_s, bare_ms) = (zip(*(one[side] for one in found), strict=True) for side in ("ours", "raw"))
    ratio = median(ours_s) / median(bare_s)
    rows = [
        Row(goal="G5", says="images per second", unit="1/s", ours=ours_s, bare=bare_s, ratio=ratio,
            aim="ratio at least 0.85 (goal 0.90)", met=ratio >= 0.85),
        Row(goal="G5", says="CPU of the process per image", unit="ms", ours=ours_ms, bare=bare_ms,
            ratio=median(bare_ms) / median(ours_ms)),
    ]  # fmt: skip
    batch, threads = found[0]["batch"], found[0]["threads"]
    equal = sum(one["equal"] for one in found)
    said = (
        f"{SIDES} {images} images a round, batch {batch}, {threads} thread(s). {equal} of {images * len(found)} were "
        "made in a full batch and equal the raw loop's pixel by pixel."
    )
    more_ms = median(ours_ms) - median(bare_ms)
    costs = (
        f"Everything around the model costs {shown(more_ms)} ms of CPU per image, mostly beside it on the other core."
    )
    return Result(goal="G5", title="A worker on the CPU", sides=said, rows=rows, costs=costs,
                  load=f"{before} before, {load()} after")  # fmt: skip
