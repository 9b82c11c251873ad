"""The object store answers, and wrongly: slowly, with half of a body, or with 503."""

from __future__ import annotations

from typing import Any

from tests.chaos.fault import Draw
from tests.chaos.rules import Refuse, Slow, Truncate
from tests.chaos.stack import Stack

DELAY_S = 0.4


class S3Slow:
    """Every piece of every answer comes late."""

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._rules = stack.gates["s3"].rules
        self._rule = Slow(DELAY_S)

    async def inject(self) -> None:
        self._rules.append(self._rule)

    async def heal(self) -> None:
        self._rules.remove(self._rule)

    def proof(self) -> dict[str, Any]:
        return {"delayed_pieces": self._rule.delayed}


class S3Truncated:
    """Bodies of answers end half-way."""

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._rules = stack.gates["s3"].rules
        self._rule = Truncate()

    async def inject(self) -> None:
        self._rules.append(self._rule)

    async def heal(self) -> None:
        self._rules.remove(self._rule)

    def proof(self) -> dict[str, Any]:
        return {"truncated": self._rule.truncated, "withheld_bytes": self._rule.withheld_bytes}


class S3Refuses:
    """Nothing but 503 Slow Down."""

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._rules = stack.gates["s3"].rules
        self._rule = Refuse()

    async def inject(self) -> None:
        self._rules.append(self._rule)

    async def heal(self) -> None:
        self._rules.remove(self._rule)

    def proof(self) -> dict[str, Any]:
        return {"refused": self._rule.refused}
