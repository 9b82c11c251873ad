"""The end of a Kafka transaction is delayed on its way, for longer than its sender waits, and then arrives."""

from __future__ import annotations

from typing import Any

from tests.chaos.fault import Draw, until
from tests.chaos.rules import HoldEndTxn
from tests.chaos.stack import Stack

FELT_WITHIN_S = 60.0


class EndTxnDelay:
    """One frame for the whole cluster."""

    def __init__(self, stack: Stack, draw: Draw) -> None:
        self._gates = [stack.gates[name] for name in stack.brokers()]
        self._lasts_s = draw.lasts_s
        self._rule = HoldEndTxn(draw.lasts_s)

    async def inject(self) -> None:
        for gate in self._gates:
            gate.rules.append(self._rule)
        await until(lambda: self._rule.held_frames, FELT_WITHIN_S)

    async def heal(self) -> None:
        await until(lambda: self._rule.delivered_frames >= self._rule.held_frames, self._lasts_s + 5.0)
        for gate in self._gates:
            gate.rules.remove(self._rule)

    def proof(self) -> dict[str, Any]:
        return {"held_frames": self._rule.held_frames, "delivered_frames": self._rule.delivered_frames}
