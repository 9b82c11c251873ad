"""Moves events: one loop, two transports, layers around every handler. Knows no domain."""
