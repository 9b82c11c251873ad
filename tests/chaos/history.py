"""What outside observers wrote down of one run, read for the checks. File formats: README.md beside this.

Nothing of the product is imported. Every line remembers where it stands, so that an offence can be shown.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

Fields = dict[str, Any]
Place = tuple[str, int, int]
Request = tuple[str, str]

WHERE = "_where"
APPROVED, CLOSED, REQUESTED = "image.approved.v1", "image.closed.v1", "image.requested.v1"
CLEARED, REFUSED, WAVES = "image.policy-cleared.v1", "image.refused.v1", "image.candidates-requested.v1"
GENERATED, FAILED, SCORED = "image.generated.v1", "image.generation-failed.v1", "image.scored.v1"
STALLED, CANCELS = "image.stalled.v1", "image.cancel-requested.v1"
TRANSACTIONAL = (APPROVED, CLOSED)
NEEDED = (
    "run.json", "operations.jsonl", "faults.jsonl", "log.committed.jsonl", "log.uncommitted.jsonl", "log.final.jsonl",
    "ends.jsonl", "bucket.jsonl", "blobs.jsonl", "tables/publisher.orders.jsonl", "tables/publisher.assets.jsonl",
    "tables/publisher.outbox.jsonl", "tables/policy.verdicts.jsonl",
)  # fmt: skip
SHOWN_MAX = 400


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as a live reader saw it. `body` only on the topics of approvals and closings."""

    place: Place
    digest: str
    seen_at: float
    number: str | None
    event_id: str | None
    body: Fields | None
    where: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as the final reader found it. `headers` are those with text, the last of a name; `raw` is the value."""

    place: Place
    timestamp_ms: int
    key: Any
    headers: dict[str, str]
    pairs: tuple[Any, ...]
    raw: Any
    body: Fields
    digest: str
    where: str

    @property
    def topic(self) -> str:
        return self.place[0]

    @property
    def request(self) -> Request | None:
        """(tenant, request_id) that the body names; a missing tenant is `default`."""
        rid = self.body.get("request_id")
        return (str(self.body.get("tenant") or "default"), str(rid)) if rid else None

    def show(self) -> str:
        """Where it stands and how it begins."""
        return f"{self.where} {self.place} {str(self.raw)[:SHOWN_MAX]}"


def shown(line: Fields) -> str:
    """A line as evidence."""
    return f"{line[WHERE]} {json.dumps({k: v for k, v in line.items() if k != WHERE})[:SHOWN_MAX]}"


@dataclass
class History:
    """One run folder. Lists are in the order of the files."""

    folder: Path
    missing: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.missing = [name for name in NEEDED if not (self.folder / name).exists()]

    # ---- the files ------------------------------------------------------------------------------

    @cached_property
    def run(self) -> Fields:
        path = self.folder / "run.json"
        found: Fields = json.loads(path.read_text()) if path.exists() else {}
        return found

    @cached_property
    def operations(self) -> list[Fields]:
        return self._newest("operations.jsonl")

    @cached_property
    def faults(self) -> list[Fields]:
        return self._newest("faults.jsonl")

    @cached_property
    def calls(self) -> list[Fields]:
        return list(self._lines("provider.jsonl"))

    @cached_property
    def ends(self) -> list[Fields]:
        return list(self._lines("ends.jsonl"))

    @cached_property
    def bucket(self) -> dict[str, Fields]:
        return {line["key"]: line for line in self._lines("bucket.jsonl")}

    @cached_property
    def probes(self) -> list[Fields]:
        return list(self._lines("blobs.jsonl"))

    @cached_property
    def committed(self) -> list[Seen]:
        return [_seen(line) for line in self._lines("log.committed.jsonl")]

    @cached_property
    def uncommitted(self) -> list[Seen]:
        return [_seen(line) for line in self._lines("log.uncommitted.jsonl")]

    @cached_property
    def final(self) -> list[Entry]:
        return [_entry(line) for line in self._lines("log.final.jsonl")]

    def table(self, name: str) -> list[Fields]:
        """Rows of `<schema>.<table>`; none when it was not dumped."""
        return list(self._lines(f"tables/{name}.jsonl"))

    def _lines(self, name: str) -> Iterator[Fields]:
        path = self.folder / name
        if not path.exists():
            return
        with path.open(encoding="utf-8") as lines:
            for number, text in enumerate(lines, 1):
                if text.endswith("\n"):  # a writer that was killed leaves half a line
                    found = json.loads(text)
                    found[WHERE] = f"{name}:{number}"
                    yield found

    def _newest(self, name: str) -> list[Fields]:
        """The last line of each id; fields of earlier lines are kept where the last does not name them."""
        found: dict[str, Fields] = {}
        for line in self._lines(name):
            found[line["id"]] = {**found.get(line["id"], {}), **line}
        return list(found.values())

    # ---- what the checks ask for ----------------------------------------------------------------

    @property
    def quiet(self) -> bool:
        """Whether the line had time to finish, so that what is open is lost."""
        return bool(self.run.get("quiet"))

    @cached_property
    def entries(self) -> dict[Place, Entry]:
        return {entry.place: entry for entry in self.final}

    @cached_property
    def _by_topic(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.final:
            found[entry.topic].append(entry)
        return found

    def on(self, *topics: str) -> list[Entry]:
        """Committed records of these topics."""
        return [entry for topic in topics for entry in self._by_topic.get(topic, ())]

    def routed(self) -> list[Entry]:
        """Committed ImageRouted of every pool."""
        names = [n for n in self._by_topic if n.startswith("image.routed.") and not n.endswith((".dlq", ".held"))]
        return self.on(*names)

    def letters(self) -> list[Entry]:
        """Committed dead letters of every topic."""
        return self.on(*[name for name in self._by_topic if name.endswith(".dlq")])

    def held(self) -> list[Entry]:
        return self.on(*[name for name in self._by_topic if name.endswith(".held")])

    @cached_property
    def approvals(self) -> list[Entry]:
        return [entry for entry in self.on(APPROVED) if entry.body.get("status") == "approved"]

    @cached_property
    def closings(self) -> dict[Request, list[Entry]]:
        return by_request(self.on(CLOSED))

    @cached_property
    def asked(self) -> dict[Request, list[Fields]]:
        """Operations that ask for a request, by the request they name."""
        found: dict[Request, list[Fields]] = defaultdict(list)
        refs = {entry.body["client_ref"]: entry.request for entry in self.on(CLOSED) if entry.body.get("client_ref")}
        for line in self.operations:
            if line["kind"] in ("http", "kafka"):
                rid = line.get("request_id")
                request = (line["tenant"], rid) if rid else refs.get(line.get("client_ref"))
                found[request or (line["tenant"], f"operation {line['id']}")].append(line)
        return found

    @cached_property
    def accepted(self) -> dict[Request, list[Fields]]:
        """Requests that somebody was told are accepted, with the operations that say so."""
        found = {
            request: [line for line in lines if line["result"] == "ok" and is_valid(line)]
            for request, lines in self.asked.items()
        }
        return {request: lines for request, lines in found.items() if lines}

    @cached_property
    def end_of(self) -> dict[tuple[str, str, int], int]:
        """Where (reader, topic, partition) ended, as far as the proof of that reader goes."""
        return {(line["reader"], line["topic"], line["partition"]): line["end"] for line in self.ends}

    def within(self, reader: str, place: Place) -> bool:
        """Whether a place lies before the end that was awaited for `reader`."""
        return place[2] < self.end_of.get((reader, place[0], place[1]), 0)


def is_valid(operation: Fields) -> bool:
    """Whether an operation must lead to a closing rather than to a dead letter."""
    return operation.get("valid", True) is not False and operation.get("repeats") != "conflict"


def by_request(entries: Iterable[Entry]) -> dict[Request, list[Entry]]:
    found: dict[Request, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.request:
            found[entry.request].append(entry)
    return found


def by_candidate(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if candidate := entry.body.get("candidate_id"):
            found[str(candidate)].append(entry)
    return found


def _place(line: Fields) -> Place:
    return line["topic"], line["partition"], line["offset"]


def _digest(line: Fields) -> str:
    said = json.dumps([line["key"], line["headers"], line["value"]], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _texts(line: Fields) -> dict[str, str]:
    return {name: text for name, text in line["headers"] if isinstance(text, str)}


def _body(value: Any) -> Fields:
    try:
        found = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _seen(line: Fields) -> Seen:
    texts = _texts(line)
    body = _body(line["value"]) if line["topic"] in TRANSACTIONAL else None
    marks = (texts.get("giclee-number"), texts.get("ce_id"))
    return Seen(_place(line), _digest(line), line["seen_at"], *marks, body, line[WHERE])


def _entry(line: Fields) -> Entry:
    return Entry(
        place=_place(line),
        timestamp_ms=line["timestamp_ms"],
        key=line["key"],
        headers=_texts(line),
        pairs=tuple(tuple(pair) for pair in line["headers"] if isinstance(pair[1], str)),
        raw=line["value"],
        body=_body(line["value"]),
        digest=_digest(line),
        where=line[WHERE],
    )
