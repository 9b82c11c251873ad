"""What another gate would have said of stored verdicts, and the gate as operators list it."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from giclee.schemas.events import ImageScored
from giclee.schemas.gates import GateRow as Row
from giclee.schemas.parts import Score
from giclee.scorer import whatif
from giclee.scorer.compare import compare
from giclee.scorer.gate import TABLE, Gate, overlaid

ONE = Gate((Row(dimension="a", pass_at=0.5, doubt_at=0.2), Row(dimension="b", pass_at=0.5, doubt_at=0.2)))


def scored(**values: float | None) -> ImageScored:
    """A stored verdict by ONE; a value that is negative was not certain."""
    scores = {}
    for name, value in values.items():
        doubted = value is None or value < 0
        verdict = (
            "unsure" if doubted else "pass" if (value or 0) >= 0.5 else "unsure" if (value or 0) >= 0.2 else "fail"
        )
        scores[name] = Score(value=None if value is None else abs(value), threshold=0.5, verdict=verdict,
                             evaluator="e", evaluator_version="1")  # fmt: skip
    return ImageScored(request_id=uuid.uuid4(), candidate_id=uuid.uuid4(), index=0, sha256="0" * 64, scores=scores,
                       verdict="pass", gate_version="g", long_side_px=64)  # fmt: skip


def test_a_stricter_threshold_fails_what_passed_and_says_which() -> None:
    """Counted by verdict and by dimension, each changed image named with the value and the threshold."""
    stricter = Gate((Row(dimension="a", pass_at=0.9, doubt_at=0.8), *ONE.table[1:]))
    found = compare([scored(a=0.95, b=0.9), scored(a=0.85, b=0.9), scored(a=0.6, b=0.9)], ONE, stricter)

    assert found.looked_at == 3
    assert found.verdicts == {("pass", "pass"): 1, ("pass", "unsure"): 1, ("pass", "fail"): 1}
    assert found.dimensions == {("a", "pass", "unsure"): 1, ("a", "pass", "fail"): 1}
    assert found.changes[1]["why"] == "a 0.6 against 0.9"


def test_newly_approved_and_refused_images_are_counted_by_dimension_and_asset_type() -> None:
    """A looser a lets one pass, a stricter b stops another; what changes without passing is neither."""
    other = Gate((Row(dimension="a", pass_at=0.3, doubt_at=0.2), Row(dimension="b", pass_at=0.95, doubt_at=0.2)))
    images = [scored(a=0.4, b=0.99), scored(a=0.9, b=0.9), scored(a=0.1, b=0.9), scored(a=0.4, b=0.9)]
    images[1] = images[1].model_copy(update={"asset_type": "hero"})
    found = compare(images, ONE, other)

    assert found.by_type == {
        ("generic", "unsure", "pass"): 1,
        ("hero", "pass", "unsure"): 1,
        ("generic", "fail", "fail"): 1,
        ("generic", "unsure", "unsure"): 1,
    }
    assert (dict(found.approved), dict(found.refused)) == ({"a": 1}, {"b": 1})


def test_a_gate_is_named_by_now_a_file_or_a_version_that_was_in_force(tmp_path: Path) -> None:
    """A file's rows lie over what is now; the history, undone step by step, gives each version again."""
    own = tmp_path / "gate.toml"
    own.write_text('[[gate]]\ndimension = "safety"\npass_at = 0.9\ndoubt_at = 0.5\n')
    first = {"dimension": "alignment", "pass_at": 0.8}  # as the history has a row that never fails
    second = {"dimension": "alignment", "pass_at": 0.9, "doubt_at": 0.5}
    place = "any/alignment/any"
    asked = {
        "live": [{"row": second}],
        "history": [{"place": place, "before": first}, {"place": place, "before": None}],
    }
    older = Gate(overlaid(TABLE, [Row(dimension="alignment", pass_at=0.8, doubt_at=None)]))

    assert thresholds(whatif.gate_named("now", asked, None)) == (0.9, 0.75)
    assert thresholds(whatif.gate_named(str(own), asked, None)) == (0.9, 0.9)
    assert whatif.gate_named(older.version[:8], asked, None) == older
    assert whatif.gate_named(Gate().version, asked, None) == Gate()
    for name, says in (("abcdef", older.version), (older.version[:5], "no version"), ("gone.toml", "no file")):
        with pytest.raises(ValueError, match=says):
            whatif.gate_named(name, asked, None)
    own.write_text("")
    with pytest.raises(ValueError, match=r"has no \[\[gate\]\] row"):
        whatif.gate_named(str(own), asked, None)


def thresholds(gate: Gate) -> tuple[float, ...]:
    """Of alignment and safety, for large pictures."""
    rows = [gate.row(name, "generic", 512) for name in ("alignment", "safety")]
    return tuple(row.pass_at for row in rows if row is not None)


def test_what_was_not_certain_stays_unsure_under_any_threshold() -> None:
    """A value over its threshold that was unsure all the same, and one that is missing."""
    looser = Gate((Row(dimension="a", pass_at=0.1, doubt_at=0.0), *ONE.table[1:]))
    found = compare([scored(a=-0.9, b=0.9), scored(a=None, b=0.9), scored(a=0.3, b=0.9)], ONE, looser)

    assert found.verdicts == {("unsure", "unsure"): 2, ("unsure", "pass"): 1}


def test_a_dimension_that_was_not_measured_then_is_unsure_now() -> None:
    """A gate that asks for more than was measured passes nothing of it."""
    more = Gate((*ONE.table, Row(dimension="brand", pass_at=0.5, doubt_at=0.1)))
    found = compare([scored(a=0.9, b=0.9)], ONE, more)

    assert found.verdicts == {("pass", "unsure"): 1}
    assert found.dimensions == {("brand", "none", "unsure"): 1}


def test_the_gate_is_listed_with_where_each_row_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Built in, the operator's file, set; as the command line starts it."""
    config = tmp_path / "giclee.toml"
    config.write_text('[[gate]]\ndimension = "alignment"\npass_at = 0.8\ndoubt_at = 0.5\n')
    live = {"row": {"dimension": "safety", "pass_at": 0.9, "doubt_at": 0.5}}
    monkeypatch.setenv("GICLEE_CONFIG", str(config))
    assert ask(monkeypatch, "ls", {"live": [live]}) == 0
    told = json.loads(capsys.readouterr().out)
    sources = {(row["dimension"], row["long_side_max_px"]): row["source"] for row in told["rows"]}

    assert sources["alignment", None] == "file"
    assert (sources["safety", None], sources["safety", 128]) == ("set", "built in")
    assert sources["content", None] == "built in"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[gate]]\ndimension = "alignment"\npass_at = 0.4\ndoubt_at = 0.5\n', "doubt_at is at most pass_at"),
        ('[[gate]]\ndimension = "alignment"\npass_at = "high"\ndoubt_at = 0.5\n', "/gate/0/pass_at"),
        ("[[gates]]\n", "gates cannot be overlaid"),
        ("[[gate]\n", "GICLEE_CONFIG="),
    ],
)
def test_a_bad_file_is_said_with_its_place(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and the field."""
    (tmp_path / "giclee.toml").write_text(text)
    monkeypatch.setenv("GICLEE_CONFIG", str(tmp_path / "giclee.toml"))
    assert ask(monkeypatch, "ls", {}) == 2
    assert says in capsys.readouterr().err


def ask(monkeypatch: pytest.MonkeyPatch, verb: str, asked: dict[str, Any]) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(asked)))
    return whatif.main(verb)
