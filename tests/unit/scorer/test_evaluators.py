"""The operator's evaluators: rows of a file, all errors at once, each a dimension like any."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giclee.bus import redaction, settings
from giclee.schemas.events import GateSet
from giclee.schemas.gates import GateRow
from giclee.schemas.strict import InvalidInput
from giclee.scorer import configured, dimensions, evaluators, stations
from giclee.scorer.configured import Configured
from giclee.scorer.dimension import Measured, Picture
from giclee.scorer.gate import TABLE, Gates, overall
from giclee.scorer.lane import Lane

PALETTE = """
[[evaluator]]
name = "brand"
kind = "palette"
asset_types = ["paid-social"]
[evaluator.parameters]
colours = ["#d62828"]
distance = 5
"""
HTTP = """
[[evaluator]]
name = "ours"
kind = "http"
parameters = { url = "http://127.0.0.1:9/", secret_env = "OUR_SECRET" }
"""
ROW = '[[gate]]\ndimension = "brand"\nasset_type = "paid-social"\npass_at = 0.6\ndoubt_at = 0.4\n'


def written(folder: Path, text: str) -> str:
    path = folder / "giclee.toml"
    path.write_text(text)
    return str(path)


def wrong(folder: Path, text: str) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        configured.read(written(folder, text))
    return {error.pointer: error.detail for error in caught.value.errors}


async def test_an_evaluator_is_scored_for_its_asset_types_and_decides_by_its_gate_row(tmp_path: Path) -> None:
    """Its own lane; a picture of another type is neither measured nor kept waiting for it."""
    own = configured.read(written(tmp_path, PALETTE + ROW))
    (row,) = own.evaluators
    dimension = evaluators.dimension_of(row)
    assert dimension is not None
    lane = Lane(row.name, dimension, asset_types=row.is_of())
    assert (lane.is_for("paid-social"), lane.is_for("generic")) == (True, False)
    running = asyncio.create_task(lane.run())
    gate = Gates({}, own.gate).now()
    good = {name: Measured(1.0) for name in dimensions.TABLE}
    verdicts = []
    for part in (0.7, 0.5, 0.1):
        pixels: np.ndarray = np.full((100, 100, 3), 255, np.uint8)
        pixels[:, : round(100 * part)] = (214, 40, 40)
        found = await lane.measure(Picture(pixels=pixels, prompt="", asset_type="paid-social"))
        scores = gate.scores({**good, "brand": found}, {}, asset_type="paid-social", long_side_px=100)
        verdicts.append(overall(scores, gate.required("paid-social", 100)))
    running.cancel()
    assert verdicts == ["pass", "unsure", "fail"]
    generic = gate.scores(good, {}, asset_type="generic", long_side_px=100)
    assert overall(generic, gate.required("generic", 100)) == "pass" and "brand" not in generic
    missing = gate.scores(good, {}, asset_type="paid-social", long_side_px=100)
    assert overall(missing, gate.required("paid-social", 100)) == "unsure"


def test_every_error_of_every_row_is_said_at_once_with_its_place(tmp_path: Path) -> None:
    """Kinds, names, parameters, gate rows."""
    found = wrong(
        tmp_path,
        """
        [[evaluator]]
        name = "Brand"
        kind = "palete"
        [[evaluator]]
        name = "brand"
        kind = "palette"
        asset_types = []
        [evaluator.parameters]
        colours = ["112233"]
        distance = nan
        more = 1
        [[evaluator]]
        name = "ours"
        kind = "http"
        parameters = { url = "https://u:hunter2@x/y", secret_env = "GICLEE_X", deadline_s = 600, at_once = "many" }
        [[gate]]
        dimension = "alignment"
        pass_at = 1
        doubt_at = 2
        """,
    )
    assert {
        "/evaluator/0/name", "/evaluator/0/kind", "/evaluator/0/parameters", "/evaluator/1/asset_types",
        "/evaluator/1/parameters/colours/0", "/evaluator/1/parameters/distance", "/evaluator/1/parameters/more",
        "/evaluator/2/parameters/url", "/evaluator/2/parameters/secret_env", "/evaluator/2/parameters/deadline_s",
        "/evaluator/2/parameters/at_once", "/gate/0",
    } <= found.keys()  # fmt: skip
    assert "there are: palette, luminance" in found["/evaluator/0/kind"]
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        (PALETTE + PALETTE, "/evaluator/1/name", "an evaluator before it"),
        (PALETTE.replace('"brand"', '"subject"'), "/evaluator/0/name", "built-in"),
        (PALETTE.replace('"brand"', '"safety"'), "/evaluator/0/name", "built-in"),
        ("evaluator = 5\n", "/evaluator", "a list of rows"),
        ("[evaluator]\nname = 'x'\n", "/evaluator", "a list of rows"),
        ("evaluator = [5]\n", "/evaluator/0", "dictionary"),
        ("[[evaluators]]\n", "/evaluators", "cannot be overlaid"),
        (ROW, "/gate/0/dimension", "nobody measures brand"),
        (PALETTE + ROW.replace("paid-social", "generic"), "/gate/0/dimension", "of paid-social only"),
        (PALETTE + ROW.replace('asset_type = "paid-social"', ""), "/gate/0/dimension", "set asset_type"),
        ('[[gate]]\ndimension = "background"\npass_at = 1\ndoubt_at = 0\n', "/gate/0/dimension", "product-tile only"),
    ],
)
def test_names_and_gate_rows_that_do_not_fit_together_are_refused(
    text: str, place: str, says: str, tmp_path: Path
) -> None:
    """Taken names, no list, and a gate row that would make pictures unsure for ever."""
    assert says in wrong(tmp_path, text)[place]


def test_every_kind_can_be_a_row_and_builds_what_measures(tmp_path: Path) -> None:
    """With its defaults where it has them."""
    parameters: dict[str, str] = {
        "palette": 'colours = ["#000000"]\ndistance = 2',
        "luminance": "reference = 0.18\nstops = 1",
        "subject": "",
        "background": "spread_max = 3.5",
        "safe-zone": "zones = [{ name = 'top', bottom = 0.3 }]",
        "http": 'url = "http://127.0.0.1:9/"\nsecret_env = "OUR_SECRET"',
    }
    text = "".join(
        f'[[evaluator]]\nname = "own-{kind}"\nkind = "{kind}"\n[evaluator.parameters]\n{told}\n'
        for kind, told in parameters.items()
    )
    assert parameters.keys() == evaluators.KINDS.keys()
    own = configured.read(written(tmp_path, text))
    picture = Picture(pixels=np.zeros((64, 64, 3), np.uint8), prompt="", asset_type="of-my-own")
    for row in own.evaluators:
        dimension = evaluators.dimension_of(row)
        if row.kind == "http":
            assert dimension is None and stations.remotes(own, lambda name: "s" * 16).keys() == {row.name}
        else:
            assert dimension is not None and dimension.measure([picture])[0].reason


def test_a_secret_that_is_missing_or_too_short_stops_the_start_and_is_not_said(tmp_path: Path) -> None:
    """By the row that names it."""
    own = configured.read(written(tmp_path, HTTP + HTTP.replace("ours", "other")))
    for secret, says in ((None, "OUR_SECRET is not set"), ("hunter2", "at least 16")):
        with pytest.raises(InvalidInput) as caught:
            stations.remotes(own, lambda name, secret=secret: secret)  # type: ignore[misc]
        assert [error.pointer for error in caught.value.errors] == [
            f"/evaluator/{at}/parameters/secret_env" for at in (0, 1)
        ]
        assert says in str(caught.value) and "hunter2" not in str(caught.value)


def test_a_secret_comes_from_the_environment_or_a_file_and_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every secret of a process does."""
    monkeypatch.setenv("OUR_SECRET", "open sesame, open sesame")
    assert settings.secret("OUR_SECRET") == "open sesame, open sesame"
    monkeypatch.delenv("OUR_SECRET")
    assert settings.secret("OUR_SECRET") is None
    (tmp_path / "secret").write_text("shut sesame, shut sesame\n")
    monkeypatch.setenv("OUR_SECRET_FILE", str(tmp_path / "secret"))
    assert settings.secret("OUR_SECRET") == "shut sesame, shut sesame"
    assert "sesame" not in redaction.redact("open sesame, open sesame and shut sesame, shut sesame")


def test_a_row_that_was_set_about_what_nobody_measures_counts_and_is_told(tmp_path: Path) -> None:
    """The gate fails closed; who looks at the log learns why everything is unsure."""
    told: list[str] = []

    def trouble(row: GateRow) -> str | None:
        why = configured.trouble(row, Configured().measured())
        told.extend([why] if why else [])
        return why

    row = GateRow(dimension="nobody", pass_at=0.5, doubt_at=0.1)
    live: dict[str, Any] = {
        row.place(): GateSet(place=row.place(), row=row, reason="r", actor="ada", set_at=datetime.now(UTC))
    }
    assert "nobody" in Gates(live, trouble=trouble).now().required("generic", 64)
    assert "nobody measures nobody" in told[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PALETTE.replace("palette", "palete") + ROW, "/evaluator/0/kind: "),
        (ROW + PALETTE.replace("distance = 5", ""), "/evaluator/0/parameters/distance: "),
        (ROW, "/gate/0/dimension: nobody measures brand"),
        (HTTP, "/evaluator/0/parameters/secret_env: OUR_SECRET is not set"),
    ],
)
def test_the_scorer_does_not_start_with_a_file_that_it_cannot_use(text: str, says: str, tmp_path: Path) -> None:
    """Exit code 2 and every place, before a model is loaded or anything is connected."""
    nowhere = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9", "DATABASE_URL": "postgresql://u:p@127.0.0.1:9/d",
               "GICLEE_BUCKET": "bucket", "GICLEE_CONFIG": written(tmp_path, text)}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "giclee.scorer"], capture_output=True, text=True, timeout=60, check=False,
        env={**{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}, **nowhere},
    )  # fmt: skip
    assert done.returncode == 2 and says in done.stderr, done.stderr[-2000:]


def test_the_built_in_gate_asks_for_nothing_that_is_not_measured() -> None:
    """By the same rule as the operator's rows."""
    for row in TABLE:
        assert configured.trouble(row, configured.BUILT_IN) is None, row


def test_the_file_is_checked_from_outside_without_models(tmp_path: Path) -> None:
    """As `giclee config check` starts it: every error as JSON, and nothing heavy imported."""
    path = written(tmp_path, PALETTE.replace("palette", "palete") + ROW)
    done = subprocess.run(
        [sys.executable, "-m", "giclee.scorer.configured"], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "GICLEE_CONFIG": path},
    )  # fmt: skip
    assert [one["pointer"] for one in json.loads(done.stdout)["wrong"]] == ["/evaluator/0/kind"]
