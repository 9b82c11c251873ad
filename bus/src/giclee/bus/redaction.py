"""Keeps secrets out of whatever is written about an error: dead letters, log lines, tracebacks, traces.

What a process knows to be secret, because it is the value of a secret setting, is hidden wherever it turns up; what
looks like a secret (tokens, passwords, presigned queries, connection strings) is hidden as well.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from types import TracebackType
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

MESSAGE_MAX_BYTES = 1024
HIDDEN_MIN_CHARS = 10
"""A shorter secret would hide parts of ordinary words."""
CAUSES_MAX = 6
FRAMES_MAX = 20

_SHAPES = re.compile(
    r"(?i)(bearer\s+|authorization[\"']?\s*[=:]\s*[\"']?(?:basic\s+|bearer\s+)?)[^\s\"']+"
    r"|((?:x-amz-[a-z-]+|signature|password|passwd|secret|token|api[_-]?key|access[_-]?key(?:[_-]?id)?)"
    r"[\"']?\s*[=:]\s*[\"']?)[^\s&\"',;]+"
    r"|(://[^/\s:@]*:)[^\s/]+(?=@)"
)
_HIDDEN: set[str] = set()
_known: re.Pattern[str] | None = None

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def hide_secrets_of(settings: BaseModel) -> None:
    """From here on every secret of these settings is hidden, a password within an address too."""
    for text in _secrets_in(settings):
        hidden(text)


def hidden(secret: str | None) -> str | None:
    """The same secret, which from here on is hidden wherever it turns up."""
    global _known
    if secret is not None and len(secret) >= HIDDEN_MIN_CHARS:
        _HIDDEN.update((secret, unquote(secret), quote(unquote(secret), safe="")))
        longest_first = sorted(_HIDDEN, key=len, reverse=True)
        _known = re.compile("|".join(map(re.escape, longest_first)))
    return secret


def _secrets_in(settings: BaseModel) -> Iterator[str]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        if isinstance(text, str) and "://" in text:
            yield urlsplit(text).password or ""
        elif isinstance(value, BaseModel):
            yield from _secrets_in(value)


def redact(text: str) -> str:
    """`text` without what is, or looks like, a secret."""
    if _known is not None:
        text = _known.sub("***", text)
    return _SHAPES.sub(lambda match: f"{next(g for g in match.groups() if g)}***", text)


def message_of(error: BaseException) -> str:
    """An error's message as it may be stored: redacted, one line without NUL, at most 1 KiB of UTF-8."""
    line = " ".join(redact(_said_by(error)).replace("\x00", "\ufffd").split())
    return line.encode(errors="replace")[:MESSAGE_MAX_BYTES].decode(errors="ignore")


def _said_by(error: BaseException) -> str:
    """What an error says; of values that did not fit their model only where and why, since callers wrote them."""
    if not isinstance(error, ValidationError):
        return str(error)
    rows = error.errors(include_url=False, include_context=False, include_input=False)
    return f"{error.title}: " + "; ".join(f"/{'/'.join(map(str, row['loc']))}: {row['msg']}" for row in rows[:5])


def traceback_of(exc_info: ExcInfo) -> str:
    """An error and what led to it as a log line may carry it: places in the code, and messages as above."""
    lines: list[str] = []
    error: BaseException | None = exc_info[1]
    seen: set[int] = set()
    while error is not None and id(error) not in seen and len(seen) < CAUSES_MAX:
        seen.add(id(error))
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
        lines += [f"{type(error).__name__}: {message_of(error)}"]
        lines += [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        if isinstance(error, BaseExceptionGroup):
            lines += [f"  of which {type(one).__name__}: {message_of(one)}" for one in error.exceptions[:CAUSES_MAX]]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(lines)
