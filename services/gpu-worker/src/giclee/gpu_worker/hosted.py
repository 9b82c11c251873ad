"""A hosted provider as the worker sees it: what its file says (a Trade), and around it what is the same for all.

A file in providers/ sends, waits and reads; that a key is there, that failures become outcomes, that a deadline holds
and that nobody is asked after the end is written here, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from giclee.gpu_worker.attempt import Access, Attempt, Attempts, Failed, GiveUp
from giclee.gpu_worker.http import Caller
from giclee.gpu_worker.provider import Answer, Ask, Capabilities, Closed, Description, Made, ModelUnusable
from giclee.schemas.models import Model


class Trade(Protocol):
    """What one provider's file says. `name` is that of the table; `needs_key`: nothing can be asked without one."""

    name: str
    needs_key: bool
    caller: Caller

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def give_up(self) -> GiveUp | None:
        """Tells the provider that nobody waits for a job; None where there are no jobs."""
        ...

    def where(self, model: Model) -> str:
        """What a row leads to, in a few words. Errors: ModelUnusable for a row that leads nowhere."""
        ...

    async def one(self, attempt: Attempt) -> Made:
        """Make one image, or find it. Errors: Failed, ModelUnusable."""
        ...


class Hosted:
    """A provider over a trade: one call per ask, never a batch."""

    def __init__(self, trade: Trade, access: Access) -> None:
        self._trade, self._attempts = trade, Attempts(access)
        self.capabilities = trade.capabilities
        self._no_key = trade.needs_key and access.key is None
        self._closed = False

    async def make(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
        self._check_open()
        return await self._attempts.make(model, asks, self._one, give_up=self._trade.give_up)

    async def describe(self, model: Model) -> Description:
        self._check_open()
        if self._no_key:
            variable = f"{self._trade.name.upper()}_API_KEY"
            raise ModelUnusable(f"model {model.name}: provider {self._trade.name} has no key; set {variable}")
        where = f"{self._trade.name} {self._trade.where(model)}"
        return Description(weights_sha256=None, where=where, resident=False)

    async def close(self) -> None:
        self._closed = True
        await self._trade.caller.close()

    async def _one(self, attempt: Attempt) -> Made:
        if self._no_key:
            raise Failed("auth", f"there is no key for {self._trade.name}", billed=False)
        return await self._trade.one(attempt)

    def _check_open(self) -> None:
        """Errors: Closed."""
        if self._closed:
            raise Closed(f"the provider {self._trade.name} is closed")
