"""Drift on a real Postgres, in the handler's own steps: replicas share what they counted and what they hold back."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from giclee.bus import database as databases
from giclee.bus import telemetry
from giclee.bus.settings import DatabaseSettings
from giclee.cli.__main__ import app
from giclee.schemas.events import ImageScored
from giclee.schemas.parts import ModelUsed, Score
from giclee.scorer.reference import References, row_of
from giclee.scorer.store import SCHEMA, Drifts, Store
from giclee.scorer.watch import Watch

pytestmark = pytest.mark.real
EXAMPLE = Path(__file__).parents[2] / "schemas" / "examples" / "ImageScored.json"
KNOWN, NEW = ModelUsed(name="final", revision="1"), ModelUsed(name="final", revision="2")
DICE = np.random.default_rng(11)
CALIBRATED = DICE.beta(8, 2, 2000).tolist()
REFERENCES = References([row_of("alignment", CALIBRATED), row_of("alignment", CALIBRATED, model="final@1")])
PLACE = "generic"


@pytest.fixture
async def pool(database: str) -> AsyncIterator[databases.Pool]:
    async with databases.connect(DatabaseSettings(url=SecretStr(database)), SCHEMA) as opened:
        yield opened


def watch(pool: databases.Pool, unseen_hold: int = 30, references: References = REFERENCES) -> Watch:
    return Watch(references, Drifts(pool), unseen_hold=unseen_hold)


def scored(value: float | None, model: ModelUsed = KNOWN, request_id: uuid.UUID | None = None) -> ImageScored:
    """A verdict on a new candidate, of a new request unless told."""
    example = ImageScored.model_validate_json(EXAMPLE.read_text())
    score = Score(value=value, threshold=0.5, verdict="pass", evaluator="e", evaluator_version="1")
    return example.model_copy(
        update={"candidate_id": uuid.uuid4(), "request_id": request_id or uuid.uuid4(), "model": model,
                "scores": {"alignment": score, "safety": score}}
    )  # fmt: skip


async def judge(by: Watch, store: Store, images: Sequence[ImageScored]) -> list[str]:
    """What each comes to, one after the other, as the handler does it: hold back, store, count."""
    told: list[str] = []
    for one in images:
        assert one.model is not None
        scores = await by.held_back(one.scores, PLACE, one.model)
        kept = await store.keep(one.model_copy(update={"scores": dict(scores)}))
        await by.count(kept)
        told.append(scores["alignment"].verdict)
    return told


def as_calibrated(count: int, model: ModelUsed = KNOWN) -> list[ImageScored]:
    return [scored(float(value), model) for value in DICE.beta(8, 2, count)]


async def test_a_model_whose_scores_change_is_held_back_by_every_replica(pool: databases.Pool) -> None:
    """Raised once, within few images; the other replica and a later process hold it back too; safety is not touched."""
    one, two, store, drifts = watch(pool), watch(pool), Store(pool), Drifts(pool)
    assert set(await judge(one, store, as_calibrated(40))) == {"pass"}
    told = await judge(one, store, [scored(0.1) for _ in range(25)])
    held = await two.held_back(scored(0.9).scores, PLACE, KNOWN)
    listed = await drifts.listed(cleared=True, limit=10)

    assert told[0] == "pass" and told[-1] == "unsure"
    assert held["alignment"].verdict == "unsure" and (held["alignment"].reason or "").startswith("drift: ")
    assert held["safety"].verdict == "pass" and held["alignment"].value == 0.9
    assert [(row["asset_type"], row["model"], row["dimension"]) for row in listed] == [(PLACE, "final@1", "alignment")]
    assert telemetry.value("giclee_drift", asset_type=PLACE, model="final@1", dimension="alignment") == 1
    assert (await watch(pool).held_back(scored(0.9).scores, "hero", KNOWN))["alignment"].verdict == "pass"


async def test_an_operator_clears_it_and_counting_begins_anew(pool: databases.Pool) -> None:
    """Who, when and why stay; images as calibrated pass from then on, and a second change is found again."""
    by, store, drifts = watch(pool), Store(pool), Drifts(pool)
    await judge(by, store, [scored(0.1) for _ in range(25)])
    cleared = await drifts.clear(PLACE, "final@1", None, actor="ada", reason="a bad prompt list")
    told = await judge(by, store, as_calibrated(60))
    (row,) = await drifts.listed(cleared=True, limit=10)
    again = await judge(by, store, [scored(0.1) for _ in range(60)])

    assert [one["dimension"] for one in cleared] == ["alignment"]
    assert set(told) == {"pass"} and again[-1] == "unsure"
    assert (row["cleared_by"], row["cleared_because"]) == ("ada", "a bad prompt list") and row["cleared_at"] is not None
    assert await drifts.clear(PLACE, "nobody@1", None, actor="ada", reason="none") == []


async def test_a_revision_nobody_calibrated_with_is_held_back_until_enough_is_as_calibrated(
    pool: databases.Pool,
) -> None:
    """From its first image on; 30 requests later it is released, by whom and why is on record."""
    by, store, drifts = watch(pool), Store(pool), Drifts(pool)
    told = await judge(by, store, as_calibrated(33, NEW))
    (row,) = await drifts.listed(cleared=True, limit=10)

    assert told == ["unsure"] * 30 + ["pass"] * 3
    assert (row["dimension"], row["cleared_by"]) == ("*", "giclee") and "30 requests" in row["cleared_because"]
    assert "not in the calibration set" in row["says"]


async def test_a_revision_nobody_calibrated_with_that_differs_never_passes(pool: databases.Pool) -> None:
    """It drifts before it could be released, and is not released after."""
    by, store, drifts = watch(pool), Store(pool), Drifts(pool)
    told = await judge(by, store, [scored(0.3, NEW) for _ in range(50)])
    assert set(told) == {"unsure"}
    assert {row["dimension"] for row in await drifts.listed(cleared=False, limit=10)} == {"*", "alignment"}


async def test_an_unseen_revision_may_be_let_pass_or_cleared_by_name(pool: databases.Pool) -> None:
    """With 0 it is only watched; an operator's clearing releases it before its time, and for good."""
    store, drifts = Store(pool), Drifts(pool)
    assert await judge(watch(pool, unseen_hold=0), store, as_calibrated(2, NEW)) == ["pass"] * 2
    other = ModelUsed(name="final", revision="3")
    by = watch(pool)
    assert await judge(by, store, as_calibrated(2, other)) == ["unsure"] * 2
    await drifts.clear(PLACE, "final@3", None, actor="ada", reason="compared by hand")
    assert await judge(by, store, as_calibrated(40, other)) == ["pass"] * 40


async def test_of_one_request_only_the_first_image_of_a_model_counts(pool: databases.Pool) -> None:
    """Sixty images of one prompt are alike, which says nothing of the model; and a verdict is counted once."""
    by, store, request_id = watch(pool), Store(pool), uuid.uuid4()
    images = [scored(0.1, request_id=request_id) for _ in range(60)]
    for one in images[:30]:
        await store.keep(one)
    for one in reversed(images[:30]):  # stored together, counted apart
        await by.count(one)
    other = scored(0.1, NEW, request_id)
    assert set(await judge(by, store, [*images[30:], other])) == {"pass", "unsure"}
    rows = await pool.fetch("SELECT model, seen FROM scorer.spreads")
    assert {row["model"]: row["seen"] for row in rows} == {"final@1": 1, "final@2": 1}


async def test_two_replicas_at_once_lose_no_count(pool: databases.Pool) -> None:
    """100 images each, all at the same time: 200 are seen, in one row."""
    replicas, store = (watch(pool), watch(pool)), Store(pool)
    images = as_calibrated(200)
    for one in images:
        await store.keep(one)
    await asyncio.gather(*(replicas[at % 2].count(one) for at, one in enumerate(images)))
    (row,) = await pool.fetch("SELECT seen, size, counts FROM scorer.spreads")
    assert (row["seen"], row["size"], sum(row["counts"]["alignment"])) == (200, 200, 200)


async def test_a_new_calibration_begins_anew(pool: databases.Pool) -> None:
    """What drifted from the old reference does not hold against the new one; with the old file it holds again."""
    store = Store(pool)
    await judge(watch(pool), store, [scored(0.1) for _ in range(25)])
    lower = References([row_of("alignment", DICE.uniform(0, 0.2, 500).tolist(), model="final@1")])
    assert set(await judge(watch(pool, references=lower), store, [scored(0.1) for _ in range(5)])) == {"pass"}
    assert await judge(watch(pool), store, [scored(0.9)]) == ["unsure"]


async def test_an_image_without_a_value_is_seen_and_changes_no_bins(pool: databases.Pool) -> None:
    """What could not be measured is unsure by itself."""
    await judge(watch(pool), Store(pool), [scored(None)])
    (row,) = await pool.fetch("SELECT seen, counts FROM scorer.spreads")
    assert (row["seen"], sum(row["counts"]["alignment"])) == (1, 0)


def test_an_operator_lists_and_clears_what_is_held_back(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`giclee scorer drift` as typed: what is held back and why; no reason, no clearing; the record stays."""
    asyncio.run(_drifted(database))
    monkeypatch.setenv("DATABASE_URL", database)

    def typed(*words: str) -> Any:
        return CliRunner().invoke(app, ["scorer", "drift", *words])

    (row,) = json.loads(typed("ls", "--json").stdout)
    assert (row["model"], row["dimension"], row["in_force"]) == ("final@1", "alignment", False), "no file names it here"
    assert "images measure under" in row["says"] and row["cleared_at"] is None
    assert "final@1" in typed("ls").stdout
    assert typed("clear", "final@1", "--asset-type", PLACE, "--reason", " ").exit_code == 1
    assert typed("clear", "final@9", "--asset-type", PLACE, "--reason", "x").exit_code == 1
    assert typed("clear", "final@1", "--asset-type", PLACE, "--reason", "compared by hand").exit_code == 0
    assert "nothing is held back" in typed("ls").stdout
    (row,) = json.loads(typed("ls", "--all", "--json").stdout)
    assert row["cleared_because"] == "compared by hand" and row["cleared_by"]


async def _drifted(database: str) -> None:
    async with databases.connect(DatabaseSettings(url=SecretStr(database)), SCHEMA) as opened:
        await judge(watch(opened), Store(opened), [scored(0.1) for _ in range(25)])
