"""The network of one process is cut from all parts; half of the time one-way: it is heard and gets no answer."""

from __future__ import annotations

import random
from typing import Any

from tests.chaos.fault import Draw
from tests.chaos.rules import Cut
from tests.chaos.stack import Stack


class Partition:
    """Alone, and perhaps not knowing it."""

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._gates = list(stack.gates.values())
        self._one_way = random.Random(draw.seed).random() < 0.5
        self._rule = Cut(draw.target, one_way=self._one_way)

    async def inject(self) -> None:
        for gate in self._gates:
            gate.rules.append(self._rule)

    async def heal(self) -> None:
        for gate in self._gates:
            gate.rules.remove(self._rule)
        self._rule.mend()

    def proof(self) -> dict[str, Any]:
        return {"dropped": self._rule.dropped, **({"one_way": True} if self._one_way and self._rule.dropped else {})}
