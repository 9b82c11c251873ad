"""`make bench`: the goals G1 to G5, G9 and G11 to G14 as ratios, a table, and docs/bench.md, of which `--only` renews a
part. Exit code 1 when a figure does not count because a record was lost, came twice or was not what it should be. An
aim that is missed is shown, not failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from tests.bench import goal_hop, goal_judged, goal_line, goal_replay, goal_same, goal_scorer, goal_worker, report
from tests.bench.measure import Result, Wrong

GOALS: dict[str, Callable[..., Sequence[Result]]] = {
    "g1": lambda rounds, quick: [goal_hop.run(rounds, quick=quick)],
    "g2": lambda rounds, quick: goal_line.run(rounds, quick=quick),
    "g4": lambda rounds, quick: [goal_replay.run(rounds, quick=quick)],
    "g5": lambda rounds, quick: [goal_worker.run(rounds, quick=quick)],
    "g9": lambda rounds, quick: [goal_same.run(rounds, quick=quick)],
    "g11": lambda rounds, quick: [goal_scorer.run(rounds, quick=quick)],
    "g12": lambda rounds, quick: [goal_judged.selection(quick=quick)],
    "g13": lambda rounds, quick: [goal_judged.promise(quick=quick)],
    "g14": lambda rounds, quick: [goal_judged.yields(quick=quick)],
}
KNOWN = "g1,g2,g3,g4,g5,g9,g11,g12,g13,g14"
SAME = {"g3": "g2"}
"""Measured in the same rounds."""


def _asked(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", default=KNOWN, help="goals, separated by commas")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, ours and the baseline in turn")
    parser.add_argument("--quick", action="store_true", help="few records: shows that it runs, not how fast")
    asked = parser.parse_args(words)
    asked.goals = list(dict.fromkeys(SAME.get(goal, goal) for goal in asked.only.lower().split(",") if goal))
    if unknown := set(asked.goals) - GOALS.keys():
        parser.error(f"no goal {', '.join(sorted(unknown))}; there are {KNOWN}")
    return asked


def main(words: Sequence[str]) -> int:
    """Measure, print, write; the exit code."""
    asked = _asked(words)
    results: list[Result] = []
    for goal in asked.goals:
        print(f"measuring {goal}", file=sys.stderr, flush=True)
        try:
            results += GOALS[goal](asked.rounds, asked.quick)
        except Wrong as wrong:
            print(f"{goal} does not count: {wrong}", file=sys.stderr)
            return 1
    print(report.table(results))
    for result in results:
        print(f"\n{result.goal}: {result.costs}" if result.costs else "", end="")
    print()
    command = "python -m tests.bench " + " ".join(words)
    if asked.quick:
        print("docs/bench.md is left as it is: --quick shows that it runs, not how fast", file=sys.stderr)
    elif set(asked.goals) != GOALS.keys():
        report.revise(results, command)
    else:
        report.write(results, "make bench" if asked.rounds == 5 else command, asked.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
