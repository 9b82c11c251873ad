"""multipart/form-data (RFC 7578) in memory: the parts of a form whose size the door has bounded already.

Strict, since only programs send forms to us: what is not a well-made form of a few named parts is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message

from giclee.schemas.strict import FieldError, InvalidInput

PARTS_MAX = 16
HEADERS_MAX_BYTES = 4096
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")


@dataclass(frozen=True, slots=True)
class Part:
    """One field: its name, its bytes, and the content type it was sent with, if any."""

    name: str
    body: bytes
    content_type: str | None = None


def is_form(content_type: str) -> bool:
    """Whether a Content-Type says multipart/form-data."""
    return content_type.lower().partition(";")[0].strip() == "multipart/form-data"


def parts_of(raw: bytes, content_type: str) -> dict[str, Part]:
    """The parts of a body by name. Errors: InvalidInput."""
    boundary = _parameter("content-type", content_type, "boundary")
    if boundary is None or not _BOUNDARY.fullmatch(boundary):
        raise _malformed("its Content-Type names no usable boundary")
    delimiter = b"\r\n--" + boundary.encode()
    at = 0 if raw.startswith(delimiter[2:]) else raw.find(delimiter) + 2  # what precedes the first one is a preamble
    if at == 1:
        raise _malformed("the boundary of its Content-Type does not occur")
    at += len(delimiter) - 2
    found: dict[str, Part] = {}
    while not raw.startswith(b"--", at):
        line_end = raw.find(b"\r\n", at)
        end = raw.find(delimiter, at)
        if line_end < 0 or end < 0 or raw[at:line_end].strip(b" \t"):
            raise _malformed("it ends in the middle of a part")
        # the empty line behind the headers; a part without any starts with it
        part = _part(raw, line_end, end)
        if part.name in found or len(found) == PARTS_MAX:
            what = "is given twice" if part.name in found else f"is one part too many; at most {PARTS_MAX} are read"
            raise InvalidInput([FieldError(f"/{part.name[:64]}", what, "duplicate_key")])
        found[part.name] = part
        at = end + len(delimiter)
    return found


def _part(raw: bytes, start: int, end: int) -> Part:
    """The part between the line end of its delimiter and the next delimiter."""
    blank = raw.find(b"\r\n\r\n", start, min(end, start + HEADERS_MAX_BYTES))
    if blank < 0:
        raise _malformed(f"a part has no headers, or more than {HEADERS_MAX_BYTES} bytes of them")
    headers: dict[str, str] = {}
    for line in raw[start + 2 : blank].split(b"\r\n"):
        name, colon, text = line.decode("utf-8", "replace").partition(":")
        if not colon:
            raise _malformed("a header of a part has no colon")
        headers[name.strip().lower()] = text.strip()
    disposition = headers.get("content-disposition", "")
    own = _parameter("content-disposition", disposition, "name")
    if disposition.lower().partition(";")[0].strip() != "form-data" or not own:
        raise _malformed('a part is not `Content-Disposition: form-data; name="…"`')
    if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        raise _malformed("a part has a Content-Transfer-Encoding; send bytes as they are")
    return Part(own, raw[blank + 4 : end], headers.get("content-type"))


def _parameter(header: str, text: str, name: str) -> str | None:
    message = Message()
    message[header] = text.replace("\r", " ").replace("\n", " ")
    found = message.get_param(name, header=header)
    return found if isinstance(found, str) else None


def _malformed(why: str) -> InvalidInput:
    return InvalidInput([FieldError("", f"is no multipart/form-data: {why}", "not_json")])
