"""Guards of the product that a run can be without, taken out of its SQL from here: histories must break then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from giclee.bus.database import Queries


@contextmanager
def _edited(name: str, guard: str, instead: str = "") -> Iterator[None]:
    """The query of that name without the text `guard`. Errors: ValueError when it is not there to be removed."""
    plain = Queries.__getattr__

    def edited(queries: Queries, asked: str) -> str:
        text = plain(queries, asked)
        if asked != name:
            return text
        if guard not in text:
            raise ValueError(f"{name} has no {guard!r}")
        return text.replace(guard, instead)

    Queries.__getattr__ = edited  # type: ignore[method-assign]
    try:
        yield
    finally:
        Queries.__getattr__ = plain  # type: ignore[method-assign]


TABLE: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "order-lock": partial(_edited, "lock_orders", "FOR NO KEY UPDATE OF o"),
    "claim-fence": partial(_edited, "finish_claims", "AND c.state = 'live' AND c.fence = n.fence"),
}
