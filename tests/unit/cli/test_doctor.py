"""`giclee doctor`: what it says of a line that is well, that is ill, and that cannot be asked."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from giclee.cli import doctor
from giclee.cli.__main__ import app
from tests.kit.ops_stub import OpsStub

WELL: dict[str, Any] = {
    "check": "requests",
    "verdict": "good",
    "says": "all ended",
    "fix": None,
    "count": 0,
    "examples": [],
}
ILL = {**WELL, "check": "relay", "verdict": "bad", "says": "7 not sent", "fix": "start it", "examples": ["a", "b"]}
UNSURE = {**WELL, "check": "orphans", "verdict": "unknown", "says": "cannot be told: the object store is away"}


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def ops(ops: OpsStub, monkeypatch: pytest.MonkeyPatch) -> OpsStub:
    """An operations service, and nothing else that answers."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", free_address())
    monkeypatch.setenv("DATABASE_URL", f"postgresql://a:b@{free_address()}/c")
    return ops


def asked(*words: str) -> tuple[Result, dict[str, dict[str, Any]]]:
    done = CliRunner().invoke(app, ["doctor", "--json", *words])
    return done, {row["check"]: row for row in json.loads(done.stdout)["checks"]}


def test_what_is_down_is_said_and_the_rest_is_still_asked(ops: OpsStub) -> None:
    """Broker and database are bad, topics unknown, and the reconciler's report is there; exit code 1."""
    ops.answers["GET /v1/doctor"] = [{"verdict": "good", "checks": [WELL]}]
    done, rows = asked()

    assert done.exit_code == 1
    assert (rows["broker"]["verdict"], rows["topics"]["verdict"]) == ("bad", "unknown")
    assert rows["database"]["verdict"] == "bad"
    assert rows["intake"]["verdict"] == "unknown"
    assert rows["requests"]["verdict"] == "good"


def test_without_the_operations_service_its_checks_are_unknown(ops: OpsStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would have said is unknown, with the address that did not answer."""
    address = free_address()
    monkeypatch.setenv("GICLEE_OPS_URL", f"http://{address}")
    done, rows = asked()

    assert done.exit_code == 1
    assert rows["reconciler"]["verdict"] == "unknown"
    assert address in rows["reconciler"]["says"]


@pytest.mark.parametrize(("found", "code"), [([WELL], 0), ([WELL, ILL], 1), ([WELL, UNSURE], 1)])
def test_only_what_is_known_to_be_good_is_good(
    ops: OpsStub, monkeypatch: pytest.MonkeyPatch, found: list[dict[str, Any]], code: int
) -> None:
    """Unsure is never a pass; a table names what is not known and what to do."""
    monkeypatch.setattr(doctor, "CHECKS", {"reconciler": doctor.CHECKS["reconciler"]})
    ops.answers["GET /v1/doctor"] = [{"verdict": "", "checks": found}]
    done = CliRunner().invoke(app, ["doctor"])

    assert done.exit_code == code
    assert ("start it" in done.stdout) == (ILL in found)
    assert ("not known: orphans" in done.stderr) == (UNSURE in found)


def test_deleting_asks_for_a_reason(ops: OpsStub) -> None:
    """And goes to the service with it."""
    ops.answers["GET /v1/doctor"] = [{"verdict": "good", "checks": [WELL]}]
    ops.answers["POST /v1/doctor/delete-orphans"] = [{"deleted": 3, "keys": []}]
    assert CliRunner().invoke(app, ["doctor", "--delete-orphans"]).exit_code == 2
    assert ops.asked == []
    done = CliRunner().invoke(app, ["doctor", "--delete-orphans", "--reason", "tidy"])
    assert "3 objects deleted" in done.stderr
    assert ops.bodies("/v1/doctor/delete-orphans") == [{"reason": "tidy"}]
