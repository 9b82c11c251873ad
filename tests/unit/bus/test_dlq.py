"""What a dead letter says, keeps and hides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from giclee.bus import dlq, redaction
from giclee.bus.transport import Record
from giclee.schemas import envelope as wire

LETTER = dlq.DeadLetter(
    stage="scorer",
    dead_class="exhausted",
    error_type="Exhausted",
    message="decoder did not answer",
    attempts=6,
    origin="image.generated.v1:1:88",
    timestamp_ms=5,
    group="giclee.scorer",
    first_failed_at="2026-11-21T09:00:00+00:00",
    last_failed_at="2026-11-21T09:00:30+00:00",
    version="0.1.0",
    request_id="0f9f7d2e-6a3c-4c1e-9a55-3d2a6f0c8b11",
)
FAILED = Record(
    topic="image.generated.v1",
    partition=1,
    offset=88,
    key=b"k",
    value=b"\xff\x00",
    headers=(("ce_id", b"1"), ("traceparent", b"00-a"), ("foreign", b"\xfe"), ("held-by", b"us"), ("dlq-old", b"x")),
)


def test_bytes_key_and_headers_stay_as_they_were() -> None:
    """A dead letter is the record, on its own partition, with headers added."""
    letter = LETTER.record(FAILED)

    assert (letter.topic, letter.partition) == ("image.generated.v1.dlq", 1)
    assert (letter.key, letter.value) == (FAILED.key, FAILED.value)
    assert letter.headers[:4] == FAILED.headers[:4]
    assert dict(letter.headers)["kafka_dlt-original-topic"] == b"image.generated.v1"
    assert "dlq-old" not in dict(letter.headers)


def test_identity_is_the_stage_and_the_place() -> None:
    """A duplicate after a crash has the same id, another offset another."""
    assert dlq.dead_letter_id("a", "t:0:1") == dlq.dead_letter_id("a", "t:0:1")
    assert dlq.dead_letter_id("a", "t:0:1") != dlq.dead_letter_id("b", "t:0:1")


def test_a_replay_is_for_the_stage_that_failed() -> None:
    """It goes to the original topic, keeps id and key, loses every dead-letter and trace header, counts up."""
    back = dlq.replay_of(LETTER.record(FAILED), run_id="r1")
    names = dict(back.headers)

    assert (back.topic, back.key, back.value) == (FAILED.topic, FAILED.key, FAILED.value)
    assert names["giclee-replay-for"] == b"scorer"
    assert names["giclee-replay-count"] == b"1"
    assert names["ce_id"] == b"1"
    assert names["ce_subject"].decode() == LETTER.request_id
    assert not [name for name in names if name.startswith(("dlq-", "kafka_dlt-")) or name == "traceparent"]


def test_a_discard_is_a_replay_and_is_no_mark_for_ever() -> None:
    """It says so to the stage that failed; should it die there, putting it back is no discard again."""
    marked = dlq.discard_of(LETTER.record(FAILED), run_id="r1")
    read = wire.read(marked.headers)
    again = dlq.replay_of(LETTER.record(replace(marked, partition=1, offset=99)), run_id="r2")

    assert (read.discard, read.replay_for, read.replay_run) == (True, "scorer", "r1")
    assert not wire.read(again.headers).discard
    assert wire.read(dlq.replay_of(LETTER.record(FAILED), run_id="r1").headers).discard is False


@pytest.mark.parametrize(
    "secret",
    [
        "Authorization: Bearer sk-live-1234567890",
        "https://user:hunter2@db/x",
        "X-Amz-Signature=abcdef0123 expired",
        "password=hunter2",
        "api_key: sk-live-1234567890",
    ],
)
def test_messages_carry_no_secret(secret: str) -> None:
    """Keys, passwords and signatures of a message never reach a header."""
    shown = redaction.message_of(RuntimeError(f"failed: {secret}"))

    assert not [word for word in ("hunter2", "sk-live", "abcdef0123") if word in shown]


def test_messages_are_bounded() -> None:
    """At most one KiB, one line, whole characters."""
    shown = redaction.message_of(RuntimeError("ä\n" * 2000))

    assert len(shown.encode()) <= redaction.MESSAGE_MAX_BYTES
    assert "\n" not in shown


def test_one_cause_has_one_fingerprint() -> None:
    """Ids and numbers in a message do not make a new cause; another type or stage does."""
    one = dlq.fingerprint("s", "T", "blob 0f9f7d2e-6a3c-4c1e-9a55-3d2a6f0c8b11 is 12 bytes")
    two = dlq.fingerprint("s", "T", "blob 11111111-6a3c-4c1e-9a55-3d2a6f0c8b11 is 9 bytes")

    assert one == two
    assert one != dlq.fingerprint("s", "U", "blob 0f9f7d2e-6a3c-4c1e-9a55-3d2a6f0c8b11 is 12 bytes")
