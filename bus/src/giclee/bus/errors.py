"""How a handler says no. Two words: Transient (try again) and Poison (never). Anything else is a bug.

Transient(scope="record")      this record only; tried 5 times over 30 s, then a dead letter `exhausted`
Transient(scope="dependency")  the world behind us is away; the stage pauses, turns unready and tries
                               again without limit; nothing is dead-lettered
Poison                         this record can never succeed; a dead letter at once
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from giclee.schemas.parts import Reason

Scope = Literal["record", "dependency"]


class Transient(Exception):
    """The world was not ready; the bus tries again."""

    def __init__(self, message: str, *, scope: Scope = "dependency") -> None:
        super().__init__(message)
        self.scope = scope


class Poison(Exception):
    """This record can never succeed. `dead_class` is a class of contract section 6."""

    def __init__(self, message: str, *, dead_class: str = "poison", reasons: tuple[Reason, ...] = ()) -> None:
        super().__init__(message)
        self.dead_class = dead_class
        self.reasons = reasons


class Exhausted(Poison):
    """Everything that could be tried for now was tried; a replay may succeed. `paid_usd` was spent on it."""

    def __init__(self, message: str, *, reasons: tuple[Reason, ...] = (), paid_usd: Decimal = Decimal(0)) -> None:
        super().__init__(message, dead_class="exhausted", reasons=reasons)
        self.paid_usd = paid_usd


class Fenced(Exception):
    """The group moved on while we worked; what this member finished is someone else's now."""


class DeliveryFailed(Exception):
    """The broker did not acknowledge in time or refused: the outcome of that send is unknown."""
