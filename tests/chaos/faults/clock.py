"""The clock of one process is two hours off, in either direction, by libfaketime."""

from __future__ import annotations

import asyncio
import datetime
import random
import shutil
import signal
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from tests.chaos.fault import SETTLED_WITHIN_S, Draw, until
from tests.chaos.stack import Stack

OFF_H = 2
MONOTONIC = {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}


class Clock:
    """A process started anew with another time, and then again with the right one."""

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._kept = stack.kept[draw.target]
        self._right = self._kept.launch
        self._sign = random.Random(draw.seed).choice(("+", "-"))
        self._off_s = 0

    async def inject(self) -> None:
        launch = self._right()
        argv = (str(shutil.which("faketime")), "-f", f"{self._sign}{OFF_H}h", *launch.argv)
        wrong = replace(launch, argv=argv, env={**launch.env, **MONOTONIC})
        self._kept.launch = lambda: wrong
        self._kept.send(signal.SIGKILL)
        await until(lambda: asyncio.to_thread(self._measure), SETTLED_WITHIN_S)

    async def heal(self) -> None:
        self._kept.launch = self._right
        self._kept.send(signal.SIGKILL)

    def proof(self) -> dict[str, Any]:
        return {"off_s": self._off_s}

    def _measure(self) -> bool:
        """Whether what the process says in its answers' Date is far from ours."""
        try:
            with urlopen(f"http://127.0.0.1:{self._kept.record.health_port}/livez", timeout=2) as answer:
                said = parsedate_to_datetime(answer.headers["Date"])
        except (URLError, OSError):
            return False
        off_s = (said - datetime.datetime.now(datetime.UTC)).total_seconds()
        if abs(off_s) > OFF_H * 3600 / 2:
            self._off_s = round(off_s)
        return self._off_s != 0
