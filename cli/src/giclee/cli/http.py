"""How verbs talk to the services: one client per service, a deadline on everything, problems as sentences."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from giclee.infra.trouble import Trouble

INTAKE, ASSETS, OPERATIONS = "GICLEE_API_URL", "GICLEE_ASSETS_URL", "GICLEE_OPS_URL"
TIMEOUT_S = 30.0
COMES_BACK = (429, 502, 503, 504)


class Away(Trouble):
    """The service does not answer now; a little later it may."""


def actor() -> str:
    """Who acts, for the audit: GICLEE_ACTOR, else the user of the operating system."""
    try:
        return os.environ.get("GICLEE_ACTOR") or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _url_of(service: str) -> str:
    url = os.environ.get(service)
    if not url:
        raise Trouble(f"{service} is not set; start the stack with `make up`, or name a dotenv file with --env-file.")
    return url.rstrip("/")


def _key() -> str:
    file = os.environ.get("GICLEE_API_KEY_FILE")
    try:
        key = Path(file).read_text().strip() if file else os.environ.get("GICLEE_API_KEY")
    except OSError as error:
        raise Trouble(f"GICLEE_API_KEY_FILE cannot be read: {error}.") from error
    if not key:
        raise Trouble("GICLEE_API_KEY is not set.")
    return key


def client(service: str) -> httpx2.Client:
    """A client of one service, authenticated. Errors: Trouble when its URL or key is not known."""
    headers = {"Authorization": f"Bearer {_key()}"}
    return httpx2.Client(base_url=_url_of(service), headers=headers, timeout=TIMEOUT_S, trust_env=False)


def call(service: str, method: str, path: str, **options: Any) -> Any:
    """The JSON answer of one call. Errors: Trouble with the service's own words for what is wrong; Away."""
    with client(service) as connection:
        try:
            answer = connection.request(method, path, **options)
        except httpx2.HTTPError as error:
            raise Away(f"{connection.base_url} does not answer ({error}); `giclee dev status` says why.") from error
    return read(answer)


def tell_service(method: str, path: str, *, service: str = OPERATIONS, **options: Any) -> dict[str, Any]:
    """One call in the name of who acts, of the operators' API unless another is named. Errors: as `call`."""
    name = actor().encode("ascii", "backslashreplace").decode()[:128]
    found: dict[str, Any] = call(service, method, path, headers={"X-Giclee-Actor": name}, **options)
    return found


def read(answer: httpx2.Response) -> Any:
    """The body of an answer. Errors: Trouble for every status of 400 and above; Away where it may come back."""
    if answer.status_code >= 400:
        raise (Away if answer.status_code in COMES_BACK else Trouble)(_sentence(answer))
    try:
        return answer.json()
    except ValueError as error:
        raise Trouble(f"{answer.url} answered no JSON; is that our service?") from error


def _sentence(answer: httpx2.Response) -> str:
    """A problem as one sentence with every field that is wrong."""
    try:
        body = answer.json()
    except ValueError:
        return f"{answer.status_code} from {answer.url}"
    if not isinstance(body, dict):
        return f"{answer.status_code} from {answer.url}"
    fields = "; ".join(f"{one.get('pointer') or '/'} {one.get('detail', '')}" for one in body.get("errors") or ())
    return f"{fields or body.get('detail') or body.get('title')} ({answer.status_code} {body.get('code', '')})"


def pages(service: str, path: str, params: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    """Items of a list, page after page, at most `limit`."""
    cursor: str | None = None
    while limit > 0:
        asked = {**params, "limit": min(limit, 100), **({"cursor": cursor} if cursor else {})}
        page = call(service, "GET", path, params=asked)
        yield from page["items"]
        limit -= len(page["items"])
        cursor = page.get("next_cursor")
        if not cursor:
            return
