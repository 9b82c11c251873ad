"""Which dead letters a verb means: the same options for all of them, from one table.

`@selecting` gives a verb these options beside its own; it receives them as one dict named `selection`, checked and in
the words of the API.
"""

from __future__ import annotations

import functools
import inspect
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, get_type_hints

import typer

from giclee.cli.output import USAGE, fail

CLASSES = ("invalid", "poison", "exhausted", "deadline", "bug")
STATES = ("open", "replaying", "replayed", "parked", "discarded")
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}

# name of the API -> what `--help` says of the option
OPTIONS: dict[str, str] = {
    "topic": "The topic it failed on.",
    "stage": "The stage that failed.",
    "class": f"{', '.join(CLASSES[:-1])} or {CLASSES[-1]}.",
    "error_type": "The error, as `dlq ls` shows it.",
    "fingerprint": "The cause, as `dlq stats` shows it.",
    "service_version": "The release that failed.",
    "provider": "The provider that failed.",
    "model": "The model that was asked for.",
    "tenant": "The tenant of the request.",
    "request": "A request id.",
    "batch": "A batch id.",
    "key": "The record's key.",
    "partition": "Partition of the record that failed.",
    "offsets": "Offsets A-B, or A, of the records that failed.",
    "state": f"{', '.join(STATES[:-1])} or {STATES[-1]}.",
    "run": "Letters of a run, or come back from one.",
    "since": "Died at or after: an RFC 3339 time, or so long ago, for example 2h.",
    "until": "Died before: the same.",
}

Limit = Annotated[int | None, typer.Option(min=1, help="At most this many, the oldest first.")]


def selecting(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with the selection options of the table; those it was given arrive as its parameter `selection`."""
    hints = get_type_hints(verb, include_extras=True)
    own = [
        one.replace(annotation=hints[one.name])
        for one in inspect.signature(verb).parameters.values()
        if one.name != "selection"
    ]
    options = [
        inspect.Parameter(
            f"{name}_",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, typer.Option(f"--{name.replace('_', '-')}", help=says, metavar="TEXT")],
        )
        for name, says in OPTIONS.items()
    ]

    @functools.wraps(verb)
    def with_options(**given: Any) -> None:
        named = {name: given.pop(f"{name}_") for name in OPTIONS}
        verb(selection=checked({name: text for name, text in named.items() if text is not None}), **given)

    parameters = [*(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own), *options]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options


def checked(named: dict[str, str]) -> dict[str, str]:
    """What was named, in the API's words; a value that cannot be meant ends the verb with exit code 2."""
    for name, allowed in (("class", CLASSES), ("state", STATES)):
        if name in named and named[name] not in allowed:
            fail(f"--{name} {named[name]}: expected one of {', '.join(allowed)}", USAGE)
    for name in ("request", "candidate", "run"):
        if name in named and not _is_uuid(named[name]):
            fail(f"--{name} {named[name]}: expected an id such as 5f0c1d7e-0d52-4a3b-9a51-0b6b0f3f8a11", USAGE)
    if "offsets" in named and not re.fullmatch(r"\d+(-\d+)?", named["offsets"]):
        fail(f"--offsets {named['offsets']}: expected A-B, for example 100-250", USAGE)
    if "partition" in named and not named["partition"].isdecimal():
        fail(f"--partition {named['partition']}: expected a number", USAGE)
    return {name: _moment(name, text) if name in ("since", "until") else text for name, text in named.items()}


def span_of(text: str) -> timedelta | None:
    """`90s`, `30m`, `2h` or `7d` as a time span; None for anything else."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    return timedelta(seconds=int(found[1]) * UNITS_S[found[2]]) if found else None


def span_named(option: str, text: str) -> timedelta:
    """The time span that an option gives, more than none; anything else is a mistake of the caller."""
    span = span_of(text)
    if not span:
        fail(f"--{option} {text}: expected a number and s, m, h or d, for example 2h", USAGE)
    return span


def hours_of(option: str, text: str) -> float:
    """The same in hours."""
    return span_named(option, text).total_seconds() / 3600


def _moment(name: str, text: str) -> str:
    span = span_of(text)
    if span is not None:
        return (datetime.now(UTC) - span).isoformat()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--{name} {text}: expected a time such as 2026-11-21T09:00:00Z, or so long ago, such as 2h", USAGE)
    if moment.tzinfo is None:
        fail(f"--{name} {text}: name the zone, for example {text}Z", USAGE)
    return moment.isoformat()


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
