"""What surrounds every handler, outermost first. One file each; this table is the order.

Outside the codec a layer's result is records, inside it is events.
"""

from __future__ import annotations

from giclee.bus.layers import codec, dead_letter, deadline, retry, switches, tracing
from giclee.bus.stage import Context, Layer, Next

TABLE: tuple[tuple[str, Layer], ...] = (
    ("tracing", tracing.layer),
    ("dead_letter", dead_letter.layer),
    ("codec", codec.layer),
    ("switches", switches.layer),
    ("retry", retry.layer),
    ("deadline", deadline.layer),
)


def around(context: Context, handle: Next) -> Next:
    """The stage's handler with every layer around it."""
    for _, layer in reversed(TABLE):
        handle = layer(context, handle)
    return handle
