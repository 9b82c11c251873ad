"""What the lab knows: jobs, the bill, what was asked, which faults wait, and what things cost."""

from __future__ import annotations

import asyncio
import io
import math
import time
import uuid
import zlib
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from PIL import Image

from giclee.gpu_worker.provider import Ask, Shape
from giclee.gpu_worker.providers.stub import paint

STOCK_COLOURS = ((200, 30, 30), (30, 30, 200))


@dataclass(slots=True)
class Line:
    """One entry of the bill: US dollars, and what they are for."""

    provider: str
    job: str
    key: str | None
    usd: str
    prompt: str
    seed: int


@dataclass(slots=True)
class Fault:
    """What goes wrong at a call, for how many of them."""

    name: str
    times: float
    params: dict[str, Any]


@dataclass(slots=True)
class Job:
    """One image to be made, for the `usd` of its day. `state`: waiting, running, done, failed, canceled."""

    provider: str
    prompt: str
    width: int
    height: int
    seed: int
    key: str | None
    usd: Decimal
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "done"
    error: str | None = None
    look: str = "painted"
    asks_left: int = 0
    billed: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


class Lab:
    """Everything of one run of the server."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.bill: list[Line] = []
        self.seen: list[dict[str, Any]] = []
        self.faults: dict[tuple[str, str], list[Fault]] = defaultdict(list)
        self.factor: dict[str, Decimal] = defaultdict(lambda: Decimal(1))
        self.met: Counter[str] = Counter()
        self.let_go = asyncio.Event()
        self.trapped = 0
        self.sent_bytes = 0

    # ---- faults ---------------------------------------------------------------------------------

    def inject(self, provider: str, call: str, name: str, times: float | None, params: dict[str, Any]) -> None:
        self.faults[provider, call].append(Fault(name, math.inf if times is None else times, params))

    def take(self, provider: str, call: str) -> Fault | None:
        """The fault that this call meets, used up by one."""
        waiting = self.faults[provider, call]
        if not waiting:
            return None
        waiting[0].times -= 1
        self.met[f"{provider} {call} {waiting[0].name}"] += 1
        return waiting.pop(0) if waiting[0].times <= 0 else waiting[0]

    def mend(self) -> None:
        """No fault waits any more; what stands still stays there."""
        self.faults.clear()

    # ---- jobs -----------------------------------------------------------------------------------

    def begin(self, job: Job) -> Job:
        """Take a job on. A fault of `make` says what becomes of it; else it is done, and billed, at once."""
        fault = self.take(job.provider, "make")
        if fault is not None:
            job.extra["fault"] = fault.name
            match fault.name:
                case "waiting" | "running":
                    job.state = fault.name
                case "slow-queue":
                    job.state, job.asks_left = "running", int(fault.params.get("asks", 2))
                case "failed":
                    job.state, job.error = "failed", str(fault.params.get("error", "the model fell over"))
                case look:  # blank, stock, nothing, unsafe
                    job.look = look
        self.jobs[job.id] = job
        self._charge(job)
        return job

    def price(self, provider: str, usd: Decimal) -> Decimal:
        """What something of that price costs today."""
        return usd * self.factor[provider]

    def asked(self, job: Job) -> Job:
        """Somebody asks how a job is doing: one that takes its time is done after some asks."""
        if job.asks_left:
            job.asks_left -= 1
            if not job.asks_left:
                self._finish(job)
        return job

    def release(self, provider: str) -> None:
        """Whatever stood still goes on, whether or not anybody still waits; so do answers held by any provider."""
        self.let_go.set()
        self.let_go = asyncio.Event()
        for job in self.jobs.values():
            if job.provider == provider and job.state in {"waiting", "running"}:
                self._finish(job)

    def forget(self, provider: str) -> None:
        """No job of the provider is known any more; what is on the bill stays there."""
        self.jobs = {name: job for name, job in self.jobs.items() if job.provider != provider}

    def _finish(self, job: Job) -> None:
        job.state = "done"
        self._charge(job)

    def _charge(self, job: Job) -> None:
        if job.state == "done" and not job.billed:
            job.billed = True
            usd = f"{job.usd.normalize():f}"
            self.bill.append(Line(job.provider, job.id, job.key, usd, job.prompt, job.seed))

    # ---- pictures -------------------------------------------------------------------------------

    def picture(self, job: Job) -> bytes:
        """The PNG of a job, painted from its prompt as the stub paints; or what its fault makes of it."""
        size = (job.width, job.height)
        match job.look:
            case "blank":
                image = Image.new("RGB", size, (0, 0, 0))
            case "stock":
                image = Image.new("RGB", size, STOCK_COLOURS[0])
                image.paste(STOCK_COLOURS[1], (0, 0, size[0] // 2, size[1]))
            case _:
                # two prompts never give the same picture, whatever their seed
                seed = (job.seed + zlib.crc32(job.prompt.encode())) % 2**32
                shape = Shape(model="lab", width=size[0], height=size[1], steps=1, guidance_scale=1.0)
                image = Image.fromarray(paint(Ask(shape=shape, prompt=job.prompt, seed=seed)), "RGB")
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)
        return file.getvalue()

    # ---- telling --------------------------------------------------------------------------------

    def told(self) -> dict[str, Any]:
        lines = [asdict(line) for line in self.bill]
        return {
            "bill": lines,
            "seen": self.seen,
            "met": self.met,
            "trapped": self.trapped,
            "sent_bytes": self.sent_bytes,
        }

    def note(self, provider: str, call: str, method: str, path: str, headers: dict[str, str], body: Any) -> None:
        row = {"provider": provider, "call": call, "method": method, "path": path, "headers": headers, "body": body}
        self.seen.append({**row, "at": time.time()})
