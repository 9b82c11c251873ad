"""`giclee price` and `giclee providers`: what is asked of the service, and what never leaves the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from giclee.cli.__main__ import app
from tests.kit.ops_stub import OpsStub

FILE = """
[[models]]
name = "flux"
revision = "r1"
location = "flux"
provider = "fal"
pool = "hosted"
private = false
price_usd = "0.025"
steps = 20
width = 1024
height = 1024
[[prices]]
provider = "fal"
unit = "megapixel"
usd = "0.02"
"""


@pytest.fixture(autouse=True)
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "giclee.toml").write_text(FILE)
    monkeypatch.setenv("GICLEE_CONFIG", str(tmp_path / "giclee.toml"))
    monkeypatch.setenv("GICLEE_MODELS_DIR", str(tmp_path / "none"))


def test_a_price_is_set_for_a_while(ops: OpsStub) -> None:
    """`--until 2h` is two hours from now; the row goes as it was written, with who and why."""
    ops.answers["PUT /v1/prices"] = [{"place": "fal/any/any/any", "row": {"usd": "0.01", "unit": "megapixel"}}]
    words = ["price", "set", "fal", "0.01", "--unit", "megapixel", "--until", "2h", "--reason", "a sale"]
    done = CliRunner().invoke(app, words)

    assert done.exit_code == 0, done.output
    (asked,) = ops.asked
    row = asked.body["row"]
    assert (row["provider"], row["unit"], row["usd"], asked.body["reason"]) == ("fal", "megapixel", "0.01", "a sale")
    until = datetime.fromisoformat(row["until"])
    assert abs(until - datetime.now(UTC) - timedelta(hours=2)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nobody", "0.01"], "no model is of provider nobody; there are: fal"),
        (["fal", "0.01", "--model", "sdxl"], "fal has no model sdxl; it has: flux"),
        (["fal", "-0.01"], ""),
        (["fal", "100"], "100 US dollars for one image is absurd"),
        (["fal", "0.01", "--unit", "token"], "unit"),
        (["fal", "0.01", "--until", "tomorrow"], "--until"),
        (["fal", "cheap"], "decimal"),
    ],
)
def test_nonsense_is_not_set(ops: OpsStub, words: list[str], says: str) -> None:
    """Unknown, negative, absurd, of no unit, until no time: refused by name before anybody is asked."""
    done = CliRunner().invoke(app, ["price", "set", *words, "--reason", "x"])

    assert done.exit_code in (1, 2)
    assert says in done.output + done.stderr
    assert ops.asked == []


def test_prices_are_listed_with_their_source(ops: OpsStub) -> None:
    """By event over the file; for one image of the model's own size."""
    ops.answers["GET /v1/prices"] = [{"items": []}]
    before = json.loads(CliRunner().invoke(app, ["price", "ls", "--json"]).stdout)
    row = {"provider": "fal", "unit": "image", "usd": "0.011"}
    ops.answers["GET /v1/prices"] = [
        {
            "items": [
                {
                    "place": "fal/any/any/any",
                    "row": row,
                    "reason": "r",
                    "actor": "ada",
                    "set_at": "2026-11-21T09:30:00Z",
                }
            ]
        }
    ]
    after = json.loads(CliRunner().invoke(app, ["price", "ls", "--json"]).stdout)

    assert [(one["usd_each"], one["source"]) for one in before] == [("0.020972", "file")]
    assert [(one["usd_each"], one["source"]) for one in after] == [("0.011", "set")]


def test_the_operators_prices_are_checked_with_the_file(tmp_path: Path) -> None:
    """`giclee config check` names a price of nobody and a cost that cannot be."""
    bad = tmp_path / "bad.toml"
    bad.write_text(
        FILE.replace('"fal"', '"fall"', 1)
        + '[[prices]]\nprovider = "nobody"\nunit = "image"\nusd = "0.01"\n[[costs]]\nreview_share = 2\n'
    )
    done = CliRunner().invoke(app, ["config", "check", str(bad), "--json"])

    assert done.exit_code == 1
    found = {one["pointer"]: one["detail"] for one in json.loads(done.stdout)}
    assert found.keys() == {"/models/0/provider", "/prices/0/provider", "/prices/1/provider", "/costs/0/review_share"}
    assert "there is no provider fall; there are: bedrock," in found["/models/0/provider"]


def test_providers_say_how_they_do_and_are_let_go(ops: OpsStub) -> None:
    """A refused key, a resting one, one that is well; release clears the switch of the provider."""
    well = {
        "tried": 30,
        "failed": 0.3,
        "p50_s": 2.0,
        "p95_s": 5.0,
        "queue_s": 1.5,
        "calls": 20.0,
        "unmade": 5.0,
        "stood_in": 2.0,
        "paid_usd": 0.45,
        "accepted": {"generic": {"passed": 30, "scored": 40, "at": "t"}},
    }
    ops.answers["GET /v1/providers"] = [{"items": [
        {"provider": "fal", "age_s": 2.0, "models": {"flux": well}},
        {"provider": "other", "age_s": 2.0, "models": {"a": {"streak": 4}, "b": {"held": "auth", "held_since": "t"}}},
    ]}]  # fmt: skip
    ops.answers["PUT /v1/switches/provider%3Aother"] = [{"scope": "provider:other", "mode": "clear"}]
    listed = CliRunner().invoke(app, ["providers", "ls"])
    done = CliRunner().invoke(app, ["providers", "release", "other", "--reason", "a new key"])

    assert listed.exit_code == done.exit_code == 0, listed.output + done.output
    for words in ("well", "75% of 40", "4 failures in a row", "refused for auth until somebody acts"):
        assert words in listed.stdout
    (row,) = [line.split() for line in listed.stdout.splitlines() if " flux " in line]
    # a quarter fell back from it, a tenth to it; 0.03 an image, three in four of which pass
    assert row[6:15] == ["25%", "10%", "2.0", "5.0", "1.5", "75%", "of", "40", "0.0400"]
    assert (ops.asked[-1].body["mode"], ops.asked[-1].body["reason"]) == ("clear", "a new key")


CALL: dict[str, Any] = {
    "candidate_id": "5f0c1d7e-0d52-4a3b-9a51-0b6b0f3f8a11", "hop": 0, "fence": 1, "tenant": "acme",
    "request_id": "7f0c1d7e-0d52-4a3b-9a51-0b6b0f3f8a11", "provider": "fal", "model": "flux", "jobs": ["job-1"],
    "expected_usd": "0.025", "actual_usd": None, "counted_usd": "0.025", "outcome": None, "again": False,
    "began_at": "2026-11-22T08:00:00+00:00",
}  # fmt: skip
DAY: dict[str, Any] = {
    "provider": "fal",
    "calls": 2,
    "again": 0,
    "open": 1,
    "untold": 1,
    "expected_usd": "0.05",
    "actual_usd": "0",
}


def test_paid_calls_are_listed_with_what_they_were_expected_to_cost(ops: OpsStub) -> None:
    """Amounts are added up by provider over days and tenants, to the last digit; what is open says so."""
    spent = [{**DAY, "counted_usd": "0.1"}, {**DAY, "counted_usd": "0.2"}, {**DAY, "provider": "x", "counted_usd": "1"}]
    ops.answers["GET /v1/calls"] = [{"items": [CALL], "spent": spent}]
    done = CliRunner().invoke(app, ["providers", "calls", "--since", "2h"])

    assert done.exit_code == 0, done.output
    (asked,) = ops.asked
    since = datetime.fromisoformat(asked.query["since"])
    assert abs(datetime.now(UTC) - since - timedelta(hours=2)) < timedelta(minutes=1)
    lines = done.output.splitlines()
    assert all(word in lines[1] for word in ("fal", "flux", "acme", "open", "0.025", "job-1", CALL["request_id"]))
    assert ["fal", "4", "2", "0", "2", "0.10", "0", "0.3"] in [line.split() for line in lines]


def test_some_calls_are_asked_for_and_given_as_json(ops: OpsStub) -> None:
    """What is not named is not sent; a state or an id that cannot be meant is a mistake of the caller."""
    ops.answers["GET /v1/calls"] = [{"items": [], "spent": []}]
    words = [
        "providers",
        "calls",
        "--provider",
        "fal",
        "--state",
        "lost",
        "--candidate",
        CALL["candidate_id"],
        "--json",
    ]
    done = CliRunner().invoke(app, [str(word) for word in words])

    assert json.loads(done.output) == {"items": [], "spent": []}
    named = {name: text for name, text in ops.asked[0].query.items() if name != "since"}
    assert named == {"provider": "fal", "state": "lost", "candidate": CALL["candidate_id"], "limit": "50"}
    for wrong in (["--state", "unheard"], ["--candidate", "x"], ["--since", "soon"]):
        assert CliRunner().invoke(app, ["providers", "calls", *wrong]).exit_code == 2
