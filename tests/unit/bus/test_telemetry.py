"""Logs are one JSON line each and discreet; metrics are a table with bounded labels."""

from __future__ import annotations

import json
import logging

import pytest

from giclee.bus import telemetry

HOSTILE = 'a\r\n{"level": "error"}\x1b[31m\x00\u2028\u202e\x7f\ud800'


@pytest.fixture(autouse=True)
def as_it_was() -> None:
    """Logs at info, as a process has them."""
    telemetry._log_from(logging.INFO)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_hostile_value_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Line ends, terminal escapes, NUL and bidirectional marks come out escaped: one line, plain ASCII."""
    telemetry.logger("x").info(HOSTILE, request_id=HOSTILE, nested={HOSTILE: [HOSTILE]})
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and out.isascii() and out.strip().isprintable()
    assert json.loads(out)["request_id"] == HOSTILE


def test_what_is_handled_is_in_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Bound names are there inside the block, gone outside, and None is left out."""
    log = telemetry.logger("x")
    with telemetry.bound(request_id="r1", tenant=None, stage="policy"):
        log.info("inside")
    log.info("outside")
    inside, outside = lines(capsys)
    assert (inside["request_id"], inside["stage"], "tenant" in inside) == ("r1", "policy", False)
    assert "request_id" not in outside


def test_prompts_are_for_debug_only(capsys: pytest.CaptureFixture[str]) -> None:
    """What a caller wrote is not in a line at info or above; what is secret in none."""
    telemetry._log_from(logging.DEBUG)
    log = telemetry.logger("x")
    for say in (log.debug, log.info, log.error):
        say("made", prompt="a red circle", negative_prompt="blue", password="hunter2")
    debug, *others = lines(capsys)
    assert debug["prompt"] == "a red circle"
    assert all("prompt" not in line and "negative_prompt" not in line for line in others)
    assert all(line["password"] == "[redacted]" for line in (debug, *others))


def test_a_line_is_always_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers that JSON lacks, bytes, objects and very long text are written as something that parses."""
    telemetry.logger("x").info("odd", nan=float("nan"), big="x" * 10_000, raw=b"\xff", thing=object(), deep=[{1: {2}}])
    (line,) = lines(capsys)
    assert line["nan"] == "nan" and len(str(line["big"])) < 2100


def test_an_exception_is_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback does not spill over several lines."""
    try:
        raise ValueError("a\nb")
    except ValueError:
        telemetry.logger("x").exception("went wrong")
    (line,) = lines(capsys)
    assert "ValueError" in str(line["exception"])


def test_a_metric_that_the_table_lacks_is_a_bug() -> None:
    """Neither another name nor other labels are accepted."""
    with pytest.raises(KeyError):
        telemetry.count("giclee_unheard_of_total", stage="x")
    with pytest.raises(ValueError):
        telemetry.count("giclee_retries_total", stage="x")
    with pytest.raises(ValueError):
        telemetry.count("giclee_retries_total", stage="x", scope="record", more="x")


def test_what_was_counted_is_shown() -> None:
    """Counters add, gauges stand, histograms count; labels may come in any order."""
    before = telemetry.value("giclee_retries_total", stage="t", scope="record")
    telemetry.count("giclee_retries_total", 2, stage="t", scope="record")
    telemetry.count("giclee_retries_total", scope="record", stage="t")
    assert telemetry.value("giclee_retries_total", stage="t", scope="record") == before + 3
    telemetry.gauge("giclee_paused", 1, stage="t")
    telemetry.observe("giclee_handler_seconds", 0.2, stage="t")
    assert telemetry.value("giclee_paused", stage="t") == 1
    assert telemetry.value("giclee_handler_seconds", stage="t") >= 1
    assert b'giclee_retries_total{scope="record",stage="t"}' in telemetry.exposition()


def test_labels_from_outside_cannot_grow_the_process() -> None:
    """Past a fixed number of label sets everything counts as `other`."""
    for number in range(telemetry.SERIES_MAX + 50):
        telemetry.count("giclee_blob_failures_total", operation="t", why=str(number))
    shown = telemetry.exposition().decode().count("\ngiclee_blob_failures_total{")
    assert shown <= telemetry.SERIES_MAX + 1
    assert telemetry.value("giclee_blob_failures_total", operation="other", why="other") >= 50


def test_every_row_of_the_table_is_well_formed() -> None:
    """Names start with ours and end in their unit, sentences are sentences."""
    endings = {"counter": "_total", "seconds": "_seconds"}
    for name, row in telemetry.METRICS.items():
        assert name.startswith("giclee_") and name.endswith(endings.get(row.kind, "")), name
        assert row.says.endswith(".") and len(row.labels) <= 4, name
