"""`giclee config`: what every service would say of the operator's file, at once, and what is then in force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from giclee.cli.__main__ import app

BAD = """
[[models]]
name = "X y"
[[asset-type]]
name = "square"
wanted_max = 0
[[evaluator]]
name = "brand"
kind = "palete"
[[gate]]
dimension = "alignment"
pass_at = 1
doubt_at = 3
[[spend-cap]]
provider = "diffusion"
daily_usd = 1
[[tenant-terms]]
tenant = "acme"
[[nonsense]]
"""
GOOD = """
[[asset-type]]
name = "square"
[[evaluator]]
name = "brand"
kind = "luminance"
asset_types = ["square"]
[evaluator.parameters]
reference = 0.18
stops = 1
[[gate]]
dimension = "brand"
asset_type = "square"
pass_at = 0.5
doubt_at = 0.2
"""


def check(folder: Path, text: str, *words: str) -> Any:
    path = folder / "giclee.toml"
    path.write_text(text)
    return CliRunner().invoke(app, ["config", "check", str(path), *words])


def test_every_error_of_every_table_is_said_at_once(tmp_path: Path) -> None:
    """Models, asset types, evaluators, gate, a table that nobody reads; exit 1; each once."""
    done = check(tmp_path, BAD, "--json")
    pointers = [one["pointer"] for one in json.loads(done.stdout)]
    assert done.exit_code == 1
    assert {
        "/models/0/name", "/asset-type/0/wanted_max", "/evaluator/0/kind", "/gate/0", "/nonsense",
        "/spend-cap/0/provider", "/tenant-terms/0",
    } <= set(pointers)  # fmt: skip
    assert pointers.count("/nonsense") == 1


def test_a_good_file_is_said_to_be_good(tmp_path: Path) -> None:
    """Exit 0; an evaluator may be of an asset type of the same file."""
    done = check(tmp_path, GOOD)
    assert (done.exit_code, "no errors" in done.output) == (0, True), done.output


@pytest.mark.parametrize(("text", "says"), [("[[gate]\n", "line 1"), ("gate = 1\n", "a list of rows")])
def test_a_file_that_is_no_toml_or_no_table_is_said(tmp_path: Path, text: str, says: str) -> None:
    """By the parser's own words."""
    done = check(tmp_path, text, "--json")
    assert done.exit_code == 1 and says in done.stdout


def test_without_a_file_it_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 2."""
    monkeypatch.delenv("GICLEE_CONFIG", raising=False)
    assert CliRunner().invoke(app, ["config", "check"]).exit_code == 2


def test_show_is_the_built_in_tables_under_the_file(tmp_path: Path) -> None:
    """Rows of the file stand where they count: before the gate's rows for all asset types, among the asset types."""
    path = tmp_path / "giclee.toml"
    path.write_text(GOOD)
    shown = json.loads(CliRunner().invoke(app, ["config", "show", str(path), "--json"]).stdout)
    assert list(shown) == [
        "models",
        "prices",
        "costs",
        "spend-cap",
        "tenant-terms",
        "gate",
        "reference",
        "evaluator",
        "asset-type",
    ]
    assert {"dimension": "brand", "asset_type": "square", "pass_at": 0.5, "doubt_at": 0.2} in shown["gate"]
    assert "alignment" in {row["dimension"] for row in shown["gate"]}
    assert {"square", "product-tile"} <= {row["name"] for row in shown["asset-type"]}
    assert [row["name"] for row in shown["evaluator"]] == ["brand"]
    one = CliRunner().invoke(app, ["config", "show", str(path), "--table", "gate"])
    assert (one.exit_code, "brand" in one.stdout, "[[models]]" in one.stdout) == (0, True, False)


def test_show_refuses_a_file_that_would_not_start_and_a_table_that_is_none(tmp_path: Path) -> None:
    """The same errors as check, exit 1; a table nobody has, exit 2."""
    path = tmp_path / "giclee.toml"
    path.write_text(BAD)
    done = CliRunner().invoke(app, ["config", "show", str(path)])
    assert (done.exit_code, "/asset-type/0/wanted_max" in done.stdout) == (1, True)
    assert CliRunner().invoke(app, ["config", "show", "--table", "profits"]).exit_code == 2
