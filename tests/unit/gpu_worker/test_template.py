"""Placeholders become values with their types, once; what has no place is told."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from giclee.gpu_worker import template
from giclee.gpu_worker.attempt import Attempt
from giclee.gpu_worker.provider import ModelUnusable
from giclee.schemas import models
from tests.contract.provider_suite import ask
from tests.kit.candidates import model


def test_a_placeholder_alone_keeps_its_type() -> None:
    """Numbers stay numbers, in lists and objects; within a text they are digits."""
    sheet = template.of({"a": "{seed}", "b": [{"c": "{guidance_scale}"}, 1, None, True], "d": "{width}:{height}"})
    assert sheet.filled(ask(model())) == {"a": 7, "b": [{"c": 2.0}, 1, None, True], "d": "64:64"}
    assert sheet.takes == {"seed", "guidance_scale", "width", "height"}


def test_a_prompt_cannot_name_a_placeholder() -> None:
    """What is filled in is not looked at again, and other braces mean nothing."""
    sheet = template.of({"text": "ink, {prompt}", "other": "{unknown} {"})
    filled = sheet.filled(ask(model(), "{seed} {negative_prompt}"))
    assert filled == {"text": "ink, {seed} {negative_prompt}", "other": "{unknown} {"}


def test_what_was_not_given_is_left_out() -> None:
    """Or replaced, where a service wants a text in any case; a null of the file itself stays."""
    sheet = template.of({"prompt": "{prompt}", "negative": "{negative_prompt}", "mask": None})
    assert sheet.filled(ask(model(), "cat")) == {"prompt": "cat", "mask": None}
    assert sheet.filled(ask(model(), "cat"), negative_prompt="") == {"prompt": "cat", "negative": "", "mask": None}
    assert sheet.filled(ask(model(), "cat", negative_prompt="dog"))["negative"] == "dog"


def attempt(**asked: Any) -> Attempt:
    row = model()
    return Attempt(row, ask(row, **asked), time.monotonic() + 1, None)


def test_what_has_no_place_is_told_and_what_nobody_asked_for_is_not() -> None:
    """The row's own steps and guidance are nobody's wish, nor is whatever the request did not name."""
    plain, wishes = attempt(), attempt(steps=3, guidance_scale=5.0, negative_prompt="dog")
    unnamed = attempt(steps=3, asked=frozenset({"prompt"}))
    for one in (plain, wishes, unnamed):
        template.tell_dropped(one, frozenset({"prompt"}), "it")
    assert [one.field for one in plain.adjustments] == ["seed"]
    assert (unnamed.adjustments, unnamed.seed) == ([], None)
    assert [(one.field, one.asked) for one in wishes.adjustments] == [
        ("seed", "7"),
        ("negative_prompt", "given"),
        ("steps", "3"),
        ("guidance_scale", "5"),
    ]


@pytest.mark.parametrize("text", ["", "[1]", "{", "\xff"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    """With the model, so that an operator finds the row."""
    file = tmp_path / "sheet.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ModelUnusable, match=rf"shapes-final.*{file.name}"):
        template.in_file(model(location=str(file)))


def test_a_file_is_looked_up_beside_the_file_that_names_it(tmp_path: Path) -> None:
    """A row's location may be relative; a name that is no file stays what it is."""
    (tmp_path / "sheet.json").write_text(json.dumps({"input": {}}))
    row = 'revision = "r"\nprice_usd = "0.01"\nsteps = 1\nwidth = 64\nheight = 64\n'
    rows = [
        f'[[models]]\nname = "m{at}"\nlocation = "{there}"\n{row}' for at, there in enumerate(("sheet.json", "a/b"))
    ]
    (tmp_path / "giclee.toml").write_text("\n".join(rows))
    found, _ = models.load(str(tmp_path / "giclee.toml"), ())
    assert [found[name].location for name in ("m0", "m1")] == [str(tmp_path / "sheet.json"), "a/b"]
