"""A calibration as it is typed: labels in, a gate file and a report out; and labels that cannot be used."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giclee.schemas.config import rows_of
from giclee.schemas.gates import GateRow
from giclee.scorer import calibrate, report
from giclee.scorer.labels import BadLabels, read
from giclee.scorer.reference import ReferenceRow, References

OTHERS = {"format": 1.0, "content": 1.0, "sharpness": 1.0, "exposure": 1.0, "compression": 1.0, "safety": 0.99}


def labels(folder: Path, count: int = 3000, apart: float = 2.5, **more: Any) -> Path:
    """A file of pictures whose alignment tells right from wrong fairly well."""
    dice = np.random.default_rng(1)
    right = dice.random(count) < 0.6
    values = 1 / (1 + np.exp(-(dice.normal(0, 1, count) + apart * right - 1)))
    path = folder / "labels.jsonl"
    rows = [
        {"id": f"p{number}", "right": bool(right[number]), "model": "shapes-draft@1", **more,
         "scores": {**OTHERS, "alignment": float(values[number])}}
        for number in range(count)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(path: Path, *words: str, rate: str = "0.02") -> int:
    return calibrate.main(["--labels", str(path), "--bad-rate", rate, "--out", str(path.parent / "out"), *words])


def test_a_calibration_writes_a_gate_file_a_report_and_what_it_rests_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row is one that the operator's file takes; the plots are pictures; the values are kept by model."""
    assert run(labels(tmp_path, asset_type="product-tile"), "--asset-type", "product-tile") == 0
    (folder,) = (tmp_path / "out").iterdir()
    (row,) = tomllib.loads((folder / "gate.toml").read_text())["gate"]
    values = json.loads((folder / "values.json").read_text())

    parsed = GateRow.model_validate(row)
    assert (parsed.dimension, parsed.asset_type) == ("alignment", "product-tile")
    assert 0.5 < parsed.pass_at < 1 and (parsed.doubt_at or 0) < parsed.pass_at
    assert "at most 2.0% bad" in capsys.readouterr().out
    for name in report.PLOTS:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "promise" in (folder / "index.html").read_text()
    assert len(values["by_model"]["shapes-draft@1"]) == 3000


def test_only_what_every_other_dimension_passes_is_looked_at(tmp_path: Path) -> None:
    """A picture that is out of focus is not approved, whatever its alignment."""
    path = labels(tmp_path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if not row["right"]:
            row["scores"]["sharpness"] = 0.1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(path) == 0
    (folder,) = (tmp_path / "out").iterdir()
    (row,) = tomllib.loads((folder / "gate.toml").read_text())["gate"]

    assert row["pass_at"] == min(r["scores"]["alignment"] for r in rows if r["right"])


def test_labels_that_cannot_carry_the_promise_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, how many it takes, and nothing written."""
    assert run(labels(tmp_path, count=120)) == 1
    assert "at least 228 accepted ones are needed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no labels"),
        ("nonsense\n", "labels.jsonl:1: expected a JSON object"),
        ('{"id": "a", "right": "maybe"}\n', "right is 'maybe'; say true or false"),
        ('{"right": true}\n', "no candidate_id and no id"),
        ('{"id": "a", "right": true}\n{"id": "a", "right": false}\n', "a is said to be right and to be wrong"),
        ('{"id": "a", "right": true, "scores": {"alignment": "high"}}\n', "scores must be numbers"),
        ('{"id": "a", "right": true, "scores": {"alignment": NaN}}\n', "alignment is nan; leave out what has no value"),
        ('{"id": "a", "right": true, "scores": {"alignment": true}}\n', "alignment is True"),
        ('{"id": "a", "right": true, "scores": "{alignment"}\n', "scores must be numbers"),
        ('{"id": "a", "right": true, "long_side_px": 0}\n', "labels.jsonl:1: long_side_px is 0; say whole pixels"),
        ('{"id": "a", "right": true, "long_side_px": "wide"}\n', "long_side_px is 'wide'"),
        (
            '{"id": "a", "right": true, "scores": {"alignment": 0.9}}\n{"id": "a", "right": true}\n',
            "a is there twice with another scores",
        ),
        ('{"id": "a", "right": true}\n', "1 labels carry no scores"),
        (
            '{"id": "a", "right": true, "scores": {"safety": 0.9}}\n',
            "no label has a score of alignment; the labels have: safety",
        ),
    ],
)
def test_a_label_file_that_cannot_be_used_is_said_with_its_line(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    path = tmp_path / "labels.jsonl"
    path.write_text(text)
    assert run(path) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--bad-rate", "2"), "--bad-rate: 2: a share between 0 and 1, for example 0.02"),
        (("--confidence", "95%"), "--confidence: 95%: a share between 0 and 1"),
        (("--asset-type", "banner"), "no label is of asset type banner; there are: generic"),
        (("--dimension", "aesthetics"), "no label has a score of aesthetics"),
    ],
)
def test_what_was_asked_wrongly_is_said(
    words: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 with the option, and nothing written."""
    try:
        code = run(labels(tmp_path), *words)
    except SystemExit as left:
        code = int(str(left.code))
    assert code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pass_at", ["-1", "75"])
def test_a_threshold_that_everything_or_nothing_reaches_is_refused(
    pass_at: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place in the operator's file is named."""
    (tmp_path / "giclee.toml").write_text(f'[[gate]]\ndimension = "safety"\npass_at = {pass_at}\ndoubt_at = -1\n')
    monkeypatch.setenv("GICLEE_CONFIG", str(tmp_path / "giclee.toml"))
    assert run(labels(tmp_path)) == 2
    assert "is no value of safety, which measures from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(("side_px", "kept"), [(64, 3000), (512, 0), (None, 0)])
def test_the_size_of_a_picture_chooses_the_row_that_judges_its_safety(
    side_px: int | None, kept: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0.5 passes for small pictures alone; of a picture whose size nobody said the strictest row is held."""
    path = labels(tmp_path, **({} if side_px is None else {"long_side_px": side_px}))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "scores": {**row["scores"], "safety": 0.5}}) + "\n" for row in rows))

    assert run(path) == (0 if kept else 1)
    told = capsys.readouterr()
    if kept:
        assert f"{kept} pass every other dimension" in told.out and "long_side_px" not in told.out
    else:
        assert "from 0 labels" in told.err


def test_labels_without_a_size_are_said_in_the_report(tmp_path: Path) -> None:
    """With how they were judged."""
    assert run(labels(tmp_path)) == 0
    (folder,) = (tmp_path / "out").iterdir()
    assert "3000 labels have no long_side_px; the strictest row" in (folder / "index.html").read_text()


def test_only_labels_that_the_new_row_would_judge_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Small pictures have a row for their safety of their own; a row for all sizes promises nothing of them."""
    assert run(labels(tmp_path, long_side_px=64), "--dimension", "safety") == 2
    assert "rows for smaller pictures" in capsys.readouterr().err


def test_the_gate_file_carries_what_drift_is_told_from(tmp_path: Path) -> None:
    """Rows of every deciding dimension for all labels and for each model with enough of them, as the scorer reads."""
    path = labels(tmp_path, long_side_px=64)
    few = [json.dumps({**json.loads(line), "id": f"f{at}", "model": "rare@1"}) + "\n"
           for at, line in enumerate(path.read_text().splitlines()[:50])]  # fmt: skip
    path.write_text(path.read_text() + "".join(few))
    assert run(path) == 0
    (folder,) = (tmp_path / "out").iterdir()
    rows = rows_of(folder / "gate.toml", "reference", ReferenceRow)
    known = References(rows).of("generic", "shapes-draft@1")
    other = References(rows).of("generic", "rare@1")

    assert known is not None and known.seen and known.rows.keys() == {*OTHERS, "alignment"}
    assert other is not None and not other.seen and sum(other.rows["alignment"].counts) == 3050


def test_labels_may_be_a_table(tmp_path: Path) -> None:
    """CSV with a header, as a spreadsheet saves it."""
    path = tmp_path / "labels.csv"
    path.write_text('candidate_id,right,scores\na,yes,"{""alignment"": 0.9}"\nb,no,\n')
    found = read(path)

    assert [(one.id, one.right, dict(one.scores)) for one in found] == [
        ("a", True, {"alignment": 0.9}),
        ("b", False, {}),
    ]
    path.write_text("candidate_id,right\n,yes\n")
    with pytest.raises(BadLabels, match=r"labels.csv:2"):
        read(path)


def test_the_area_is_the_chance_to_rank_a_right_one_higher() -> None:
    """Ties count half; one of a kind alone has none."""
    assert report.area(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == pytest.approx(0.75)
    assert report.area(np.array([0.5, 0.5]), np.array([True, False])) == pytest.approx(0.5)
    assert np.isnan(report.area(np.array([0.5]), np.array([True])))
