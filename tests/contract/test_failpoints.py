"""The table of failpoints is the source: each of its points is reached where it says, and no other is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from giclee.bus import failpoints

ROOT = Path(__file__).parents[2]


def reached() -> dict[str, set[str]]:
    """Point -> the packages whose source says `failpoints.reach("point")`."""
    found: dict[str, set[str]] = {}
    for path in ROOT.glob("**/src/giclee/**/*.py"):
        if ".venv" in path.parts:
            continue
        package = next(path.parts[at + 1] for at, part in enumerate(path.parts) if part == "giclee")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoints.reach":
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{path}: the name of a point is written out"
                found.setdefault(str(name.value), set()).add(package)
    return found


def package_of(stage: str) -> str:
    return stage.partition(".")[0].replace("-", "_")


def test_every_point_in_the_source_is_in_the_table_and_the_reverse() -> None:
    """A point that nobody can arm, or that nothing reaches, is a test that cannot fail."""
    assert set(reached()) == set(failpoints.TABLE)


@pytest.mark.parametrize("point", sorted(failpoints.TABLE))
def test_a_point_is_reached_by_the_stages_that_the_table_names(point: str) -> None:
    """In the bus it may be any stage's; in a service it is that service's."""
    where = reached()[point]
    assert where == {"bus"} or where == {package_of(stage) for stage in failpoints.TABLE[point].stages}


def test_no_two_stages_of_a_process_share_a_point() -> None:
    """A process knows its points by their short names: intake's and intake.status' differ."""
    for point, row in failpoints.TABLE.items():
        assert len({package_of(stage) for stage in row.stages}) == len(row.stages), point


def test_every_point_says_what_is_true_there() -> None:
    """One sentence, whole."""
    assert all(row.says.endswith(".") and row.stages for row in failpoints.TABLE.values())
