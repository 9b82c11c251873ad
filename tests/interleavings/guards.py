"""Guards of the product that a run can be without, taken out of its SQL from here: histories must break then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from giclee.bus.database import Queries


@contextmanager
def _without(**guards: str) -> Iterator[None]:
    """Queries by name, each without the text given. Errors: ValueError where it is not there to be removed."""
    plain = Queries.__getattr__

    def edited(queries: Queries, name: str) -> str:
        text, guard = plain(queries, name), guards.get(name, "")
        if guard not in text:
            raise ValueError(f"{name} has no {guard!r}")
        return text.replace(guard, "")

    Queries.__getattr__ = edited  # type: ignore[method-assign]
    try:
        yield
    finally:
        Queries.__getattr__ = plain  # type: ignore[method-assign]


TABLE: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "order": partial(_without, lock_orders="FOR NO KEY UPDATE OF o", close_orders="AND o.closed_at IS NULL"),
    "claim-fence": partial(_without, finish_claims="AND c.state = 'live' AND c.fence = n.fence"),
}
