"""Templates fill named slots with data, and name everything that does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from giclee.policy import templates
from giclee.policy.templates import Assembled, assemble
from giclee.schemas.parts import TemplateUse
from tests.unit.policy.builders import judged, requested


def use(id: str, version: int = 1, **variables: Any) -> TemplateUse:
    return TemplateUse(id=id, version=version, variables=variables)


def good_values(template: templates.Template) -> dict[str, Any]:
    """A value for every slot that needs one."""
    found: dict[str, Any] = {}
    for name, slot in template.slots.items():
        if slot.default is None:
            found[name] = slot.allowed[0] if slot.allowed else slot.number[0] if slot.number else "a teapot"
    return found


@pytest.mark.parametrize("key", templates.TABLE, ids=lambda key: f"{key[0]}-{key[1]}")
def test_every_template_makes_a_prompt_that_policy_clears(key: tuple[str, int]) -> None:
    """With its required slots filled a template leaves no hole, no double space, and breaks no rule of ours."""
    asked = TemplateUse(id=key[0], version=key[1], variables=good_values(templates.TABLE[key]))
    made = assemble(asked, None)
    assert isinstance(made, Assembled)
    assert "{" not in made.prompt and "  " not in made.prompt
    assert judged(requested(template=asked.model_dump())).cleared


def test_the_demo_shape_reads_as_the_models_learned_it() -> None:
    """The closed template gives the plainest phrasing of the shapes world."""
    made = assemble(use("shape", colour="red", shape="circle", background="blue", size="small"), None)
    assert isinstance(made, Assembled)
    assert (made.prompt, made.negative_prompt) == ("a small red circle on a blue background", None)
    assert [(slot.name, slot.at, slot.value, len(slot.alternatives)) for slot in made.slots] == [
        ("size", 2, "small", 2),
        ("colour", 8, "red", 7),
        ("shape", 12, "circle", 5),
        ("background", 24, "blue", 7),
    ]


@pytest.mark.parametrize(
    "hostile", ["{style}", "{0.__class__}", "{{}}", "%s %(x)s", "$x ${y}", "\\1 \\g<0>", "{subject!r:>9}"]
)
def test_a_value_is_data(hostile: str) -> None:
    """Nothing in a value is read as a format, a slot or a back reference."""
    made = assemble(use("generic", subject=hostile), None)
    assert isinstance(made, Assembled) and made.prompt == f"{hostile}, photograph"


@given(some.text(min_size=1, max_size=100).filter(lambda text: text.strip() and "\x00" not in text))
def test_any_text_arrives_as_it_was_sent(value: str) -> None:
    """Beside white space, which is collapsed, a text slot changes nothing."""
    made, slots = templates.TABLE["generic", 1].assemble({"subject": value})
    assert all(made[slot.at :].startswith(slot.value) for slot in slots)
    assert [slot.name for slot in slots] == ["subject", "style"]
    assert made == f"{' '.join(value.split())}, photograph" or " ".join(made.split()) == " ".join(
        f"{value}, photograph".split()
    )


def test_locked_negatives_come_before_the_callers() -> None:
    """A caller can add to what a template keeps out, never take from it."""
    made = assemble(use("product-tile", product="a teapot"), "steam")
    assert isinstance(made, Assembled) and made.negative_prompt is not None
    assert made.negative_prompt.startswith("people, hands") and made.negative_prompt.endswith(", steam")


def test_all_troubles_are_named_at_once() -> None:
    """Missing, unknown and misfilled slots each get a reason with a pointer."""
    asked = TemplateUse(id="shape", version=1, variables={"colour": "mauve", "background": 7, "sh-ape": "circle"})
    found = assemble(asked, None)
    assert not isinstance(found, Assembled)
    assert {(r.code, r.pointer) for r in found} == {
        ("template_slot", "/template/variables/colour"),
        ("template_slot", "/template/variables/background"),
        ("template_slot", "/template/variables/shape"),
        ("template_slot", "/template/variables/sh-ape"),
    }


@pytest.mark.parametrize(
    ("asked", "pointer"), [(use("posters"), "/template/id"), (use("shape", 9), "/template/version")]
)
def test_an_unknown_template_or_version_is_a_refusal(asked: TemplateUse, pointer: str) -> None:
    """The reason names what there is."""
    found = assemble(asked, None)
    assert not isinstance(found, Assembled)
    assert [(r.code, r.pointer) for r in found] == [("template_unknown", pointer)]


@pytest.mark.parametrize("value", ["", "   ", True, 3, "x" * 161])
def test_a_text_slot_takes_text_of_its_length(value: object) -> None:
    """Empty, too long and no text at all are refused."""
    assert templates.TABLE["product-tile", 1].slots["product"].trouble(value)


@pytest.mark.parametrize(
    ("value", "fits"), [(0, True), (6, True), (2.5, True), (7, False), (-1, False), (True, False), ("2", False)]
)
def test_a_number_slot_takes_numbers_in_its_range(value: object, fits: bool) -> None:
    """A flag or a text is no number."""
    assert (templates.TABLE["lifestyle-scene", 1].slots["people"].trouble(value) is None) is fits


SPACED = some.text(alphabet=" \t\n\u2003ab,.{", min_size=1, max_size=30).filter(str.strip)


@given(SPACED, SPACED)
def test_every_slot_stands_where_it_says(product: str, material: str) -> None:
    """Whatever white space the values bring: the prompt is the text collapsed, and each value is at its place."""
    template = templates.TABLE["product-tile", 2]
    made, slots = template.assemble({"product": product, "material": material})
    joined = template.text.format(product=product, material=material, angle="front", background="white")
    assert made == " ".join(joined.split())
    assert [made[slot.at : slot.at + len(slot.value)] for slot in slots] == [slot.value for slot in slots]
    assert [slot.value for slot in slots] == [" ".join(product.split()), " ".join(material.split()), "front", "white"]


def test_no_template_of_ours_has_more_than_travels() -> None:
    """Every slot and every choice of the table reaches the scorer."""
    for template in templates.TABLE.values():
        assert len(template.slots) <= templates.SLOTS_MAX
        assert all(len(slot.allowed) - 1 <= templates.ALTERNATIVES_MAX for slot in template.slots.values())
