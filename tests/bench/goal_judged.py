"""G12 to G14 for the report: what `tests.bench.judged` measures in the environment with the models."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.measure import Result, Row, Wrong, load

CHECKOUT = Path(__file__).parents[2]
GPU_PYTHON = CHECKOUT / ".venv-gpu/bin/python"
PUBLISHER = CHECKOUT / "services/publisher/src"
"""G14 lets its funnel decide, which is not installed beside the models and needs nothing that is not."""
QUICK = ("--share", "0.05", "--calibrate", "1000", "--test", "1000")
PICTURES = (
    "Pictures that the demo models drew on seeds that nothing was trained on or chosen by (networks in bfloat16), "
    "measured by the scorer's own dimensions save NudeNet's, right or wrong by the pixel oracle; counted once, so "
    "that there is no spread. "
)
MIXED = ("shapes-draft", "shapes-final")
"""Held to a threshold that was chosen for both together: no promise is made for one of them."""
Found = Sequence[dict[str, Any]]


def _measured(goal: str, quick: bool) -> Found:
    """Errors: Wrong."""
    argv = [str(GPU_PYTHON), "-m", "tests.bench.judged", "--only", goal, "--half", *(QUICK if quick else ())]
    done = subprocess.run(
        argv,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(PUBLISHER)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Wrong(f"{goal} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"goal"')]


def selection(*, quick: bool) -> Result:
    """G12. Errors: Wrong."""
    before, found = load(), _measured("g12", quick)
    rows = []
    for one in found:
        low, high = one["efficiency_95"]
        aim = f"efficiency at least 0.70 (goal 0.85); over prompts drawn again {low:.2f} to {high:.2f}"
        rows += [
            Row(goal="G12", says=f"{one['model']}: best of 4 right, against a random one of them", unit="%",
                ours=[100 * one["best_of_4"]], bare=[100 * one["p"]], ratio=one["efficiency"], aim=aim,
                met=one["efficiency"] >= 0.70),
            Row(goal="G12", says=f"{one['model']}: AUC of right against wrong", unit="%", ours=[100 * one["auc"]],
                bare=[50.0], ratio=one["auc"] / 0.5, aim="at least 90 % (goal 97 %)", met=one["auc"] >= 0.90),
        ]  # fmt: skip
    said = (
        f"{PICTURES}Ours: the one of a prompt's four candidates with the highest alignment. Baseline: any of them. The "
        "ratio of the first lines is the selection efficiency: the gain over a random one as a share of what a "
        "faultless judge gains. " + "; ".join(
            f"{one['model']}: {one['prompts']} prompts, {one['wrong']} pictures wrong, pass at 4 {one['pass_at_4']:.3f}"
            for one in found
        ) + "."
    )  # fmt: skip
    return Result(
        goal="G12", title="Choosing among four", sides=said, rows=rows, load=f"{before} before, {load()} after"
    )


def promise(*, quick: bool) -> Result:
    """G13. Errors: Wrong."""
    before, measured = load(), _measured("g13", quick)
    found = [one for one in measured if "bad_share" in one]
    alarms = ", ".join(
        f"{one['pictures']} {'after ' + str(one['alarm_at']) if one['alarm_at'] else 'not raised'} of {one['count']}"
        for one in measured if "alarm_at" in one
    )  # fmt: skip
    rows = []
    for one in found:
        bad, bound, count = one["bad_share"], one["bad_upper_95"], one["count"]
        aim = f"at least 0.75 of what the oracle's threshold accepts; bad among approved {bad:.2%}, at most {bound:.2%}"
        rows.append(
            Row(goal="G13", says=f"{one['pictures']}: share of pictures approved", unit="%",
                ours=[100 * one["approved"] / count], bare=[100 * one["oracle_accepts"] / count],
                ratio=one["of_oracle"], aim=aim,
                met=None if one["pictures"] in MIXED else one["of_oracle"] >= 0.75 and bad <= 0.02)
        )  # fmt: skip
    both = found[0]
    said = (
        f"{PICTURES}Ours: the gate with the alignment threshold that `giclee scorer calibrate --bad-rate 0.02` chose "
        f"({both['threshold']:.3f}) from other pictures, as many, half of each model, one a prompt. Baseline: the "
        "threshold that accepts most of these very pictures with at most 2 % bad among them, which takes the truth to "
        f"choose. {both['count']} pictures, {both['right']} right; {both['bad']} bad of {both['approved']} approved. "
        f"The built-in threshold approves {both['built_in_approved']}, of them {both['built_in_bad_share']:.2%} bad. "
        f"The drift alarm against the final's labels, over pictures as of a revision that nobody labelled: {alarms}."
    )
    return Result(
        goal="G13", title="A promise of 2 % bad", sides=said, rows=rows, load=f"{before} before, {load()} after"
    )


def yields(*, quick: bool) -> Result:
    """G14. Errors: Wrong."""
    before, found = load(), _measured("g14", quick)
    rows = [
        Row(goal="G14", says=f"{one['model']}, {one['wanted']} wanted: images made for one approved", unit="images",
            ours=[one["images_each"]], bare=[one["fixed_images_each"]],
            ratio=one["fixed_images_each"] / one["images_each"],
            aim=f"at most {one['ratio_max']:.2f}/p: {one['ratio_to_1/p']:.3f}/p with p {one['p']:.3f}, "
                f"{one['waves_each']:.2f} waves",
            met=one["ratio_to_1/p"] <= one["ratio_max"])
        for one in found
    ] + [
        Row(goal="G14", says=f"{one['model']} going on with the final, {one['wanted']} wanted: an approved one",
            unit="mUSD", ours=[1000 * one["going_on"]["usd_each"]], bare=[1000 * one["fixed_usd_each"]],
            ratio=one["fixed_usd_each"] / one["going_on"]["usd_each"],
            aim=f"{one['going_on']['images_each']:.2f} images, {one['going_on']['waves_each']:.2f} waves; complete "
                f"{one['going_on']['complete']} of {one['orders']} orders for {one['fixed_complete']}; right "
                f"{one['going_on']['quality']:.3f} for {one['fixed_quality']:.3f}")
        for one in found if "going_on" in one
    ]  # fmt: skip
    said = (
        f"{PICTURES}Ours: the publisher's funnel over orders of one prompt each, with the built-in gate, a cap of "
        "max(8, 4 x wanted) and eight images at work; it learns the pass rate from order to order. Baseline: four "
        "images for each that is wanted, the best passers taken. Both: the same pictures. " + " ".join(
            f"{one['model']}, {one['wanted']} wanted, {one['orders']} orders: {one['saved_images']:.0%} fewer images "
            f"({one['usd_each']:.5f} for {one['fixed_usd_each']:.5f} dollars an approved one), right among delivered "
            f"{one['quality']:.3f} for {one['fixed_quality']:.3f}, complete orders {one['complete']} for "
            f"{one['fixed_complete']}."
            for one in found
        )
    )  # fmt: skip
    without = ", ".join(
        f"{one['prompts_without_a_passer']} of {one['orders']} ({one['model']}, {one['wanted']} wanted)"
        for one in found if one["prompts_without_a_passer"]
    )  # fmt: skip
    costs = (
        f"Prompts of which no picture at all passed: {without or 'none'}. Their orders end at the cap, and an order "
        "has one prompt, so that 1/p over all prompts is out of reach there. The line's answer is to go on with the "
        "final: the last rows, whose baseline is four drafts for each that is wanted."
    )
    return Result(goal="G14", title="What an approved image takes", sides=said, rows=rows, costs=costs,
                  load=f"{before} before, {load()} after")  # fmt: skip
