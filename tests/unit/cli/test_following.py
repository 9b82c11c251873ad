"""Following a request: whatever the service does meanwhile, its end is seen, and nobody is hammered."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from giclee.cli import http, requests
from giclee.infra.trouble import Trouble

Answer = tuple[int, str]
REQUEST_ID = "5f0c1d7e-0d52-4a3b-9a51-0b6b0f3f8a11"


class Intake:
    """A service with a script: what it answers to each GET of the request and of its events, the last one for ever."""

    def __init__(self) -> None:
        self.states: list[Answer] = []
        self.streams: list[Answer] = []
        self.heard: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                events = self.path.endswith("/events")
                if events:
                    outer.heard.append(self.headers.get("Last-Event-ID", ""))
                script = outer.streams if events else outer.states
                status, body = script.pop(0) if len(script) > 1 else script[0]
                if status == 0:
                    self.connection.close()
                    return
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def state(name: str) -> Answer:
    return 200, json.dumps({"request_id": REQUEST_ID, "state": name})


def stream(*ids: int) -> Answer:
    return 200, "".join(f"id: {one}\nevent: progress\ndata: {{}}\n\n" for one in ids)


@pytest.fixture
def intake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Intake]:
    found = Intake()
    monkeypatch.setenv("GICLEE_API_URL", found.url)
    monkeypatch.setenv("GICLEE_API_KEY", "a-key-of-at-least-16")
    monkeypatch.setattr(requests, "RECONNECT_S", 0.02)
    yield found
    found.server.shutdown()
    found.server.server_close()


def states() -> list[str]:
    return [found["state"] for found in requests.events(REQUEST_ID)]


def test_the_end_is_the_last_thing_seen(intake: Intake) -> None:
    """One look at the request for each of its events."""
    intake.states = [state("pending"), state("generating"), state("approved")]
    intake.streams = [stream(1, 2, 3)]
    assert states() == ["pending", "generating", "approved"]


def test_a_request_that_has_ended_needs_no_event(intake: Intake) -> None:
    """Its stream may have nothing more to say."""
    intake.states = [state("approved")]
    intake.streams = [stream()]
    assert states() == ["approved"]


@pytest.mark.parametrize("trouble", [(503, "{}"), (0, ""), (429, "{}"), (502, "bad gateway")])
def test_a_service_that_is_away_for_a_moment_is_waited_for(intake: Intake, trouble: Answer) -> None:
    """On the stream as on the request itself; it goes on after the last event that was seen."""
    intake.states = [
        state("pending"),
        state("routing"),
        trouble,
        state("generating"),
        state("generating"),
        state("approved"),
    ]
    intake.streams = [stream(7), trouble, stream(8, 9)]

    assert states()[-1] == "approved"
    assert intake.heard[-1] == "7"


def test_a_stream_that_ends_early_is_not_asked_without_a_pause(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time it has nothing to say, somebody waits."""
    pauses: list[float] = []
    intake.states = [*[state("pending")] * 5, state("approved")]
    intake.streams = [stream()]
    monkeypatch.setattr("giclee.cli.requests.time.sleep", pauses.append)

    assert states()[-1] == "approved"
    assert len(pauses) >= len(intake.heard) - 1 > 0


def test_a_request_that_is_not_there_is_trouble_at_once(intake: Intake) -> None:
    """With the service's own words."""
    intake.states = intake.streams = [(404, json.dumps({"detail": "there is no such request", "code": "not_found"}))]
    with pytest.raises(Trouble, match="no such request"):
        states()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((200, "<html>"), "no JSON"),
        (
            (422, json.dumps({"errors": [{"pointer": "/wanted", "detail": "too many"}], "code": "invalid_field"})),
            "/wanted",
        ),
        ((500, "oops"), "500"),
        ((500, "[]"), "500"),
    ],
)
def test_every_bad_answer_is_a_sentence(intake: Intake, answer: Answer, says: str) -> None:
    """Never a stack trace."""
    intake.states = [answer]
    with pytest.raises(Trouble, match=says):
        http.call(http.INTAKE, "GET", f"/v1/requests/{REQUEST_ID}")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda patch: patch.delenv("GICLEE_API_KEY"),
        lambda patch: patch.delenv("GICLEE_API_URL"),
        lambda patch: patch.setenv("GICLEE_API_KEY_FILE", "/nowhere"),
        lambda patch: patch.setenv("GICLEE_API_URL", "http://127.0.0.1:1"),
    ],
)
def test_what_is_missing_is_a_sentence(
    intake: Intake, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """A variable, a file or the service itself."""
    spoil(monkeypatch)
    with pytest.raises(Trouble):
        http.call(http.INTAKE, "GET", "/v1/requests")


def test_the_actor_is_never_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may have no name for its user; the audit wants somebody all the same."""
    for name in ("GICLEE_ACTOR", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    assert http.actor()
