"""The page of benchmarks: one goal measured again renews its part and nothing else."""

from __future__ import annotations

from tests.bench import report
from tests.bench.measure import Result, Row


def _result(goal: str, figure: float, costs: str) -> Result:
    rows = [Row(goal=goal, says=words, unit="ms", ours=[figure], bare=[1], ratio=figure) for words in ("wall", "CPU")]
    return Result(goal=goal, title=f"Title of {goal}", sides=f"Sides of {goal}.", rows=rows, costs=costs, load="1.0")


def test_a_goal_that_is_measured_alone_renews_its_part_of_the_page() -> None:
    """Rows, section and load of that goal are new, once; every other line is as it was. Twice is as once."""
    first, second = _result("G1", 1, "One."), _result("G2", 2, "Two.")
    written = report.page([first, second], "make bench", 5)
    revised = report.revised(written, [_result("G1", 7, "Seven.")], "again")

    assert report.page([second], "", 5).partition("## G2")[2] in revised
    assert revised.count("| G1 | ") == revised.count("| G2 | ") == 2
    assert "| 7.00 | 1.00 | 7.00 |" in revised and "What costs most: Seven." in revised and "One." not in revised
    assert "around G1: 1.0; measured alone" in revised and "around G2: 1.0\n" in revised
    assert report.revised(revised, [_result("G1", 7, "Seven.")], "again") == revised


def test_a_goal_that_the_page_does_not_have_is_added() -> None:
    """It stands after the others, once, and the page then equals one that was written whole but for when."""
    first, second = _result("G1", 1, "One."), _result("G11", 2, "Two.")
    revised = report.revised(report.page([first], "make bench", 5), [second], "again")
    whole = report.page([first, second], "make bench", 5)

    assert [line for line in revised.splitlines() if "measured alone" not in line] == [
        line for line in whole.splitlines() if "around G11" not in line
    ]
    assert revised.index("around G1:") < revised.index("around G11:") < revised.index("| G1 |")
    assert report.revised(revised, [second], "again") == revised
