"""The tables behind verdicts: rules, asset types, templates, and the version that follows from them."""

from __future__ import annotations

import pytest

from giclee.policy import asset_types, matchers, rules, templates, verdict
from giclee.schemas import reasons
from tests.unit.policy.builders import JUDGE, judged, requested


def test_rule_names_are_unique_words() -> None:
    """A rule's name is the refusal's `rule`, a metric label and a docs line."""
    names = [rule.name for rule in rules.TABLE]
    assert len(names) == len(set(names)) >= 10
    assert all(name.replace("-", "").isalpha() and name.islower() for name in names)


def test_every_word_list_is_read_and_folds_to_words() -> None:
    """No list is forgotten and no line of one is without letters or digits; no line is there twice."""
    for path in matchers.WORDS.glob("*.txt"):
        terms = matchers.lines(path.stem)
        assert len(terms) == len(set(terms)) > 0, path.name
        for term in terms:
            assert matchers.Terms([term]).find(f"x {term} x") == term, (path.name, term)


def test_a_refusal_says_where_and_by_which_rule() -> None:
    """Code, stage, rule and JSON pointer are there, and the code is in the table of codes."""
    ruling = judged(requested(prompt="a naked man"))
    assert [(r.code, r.stage, r.rule, r.pointer) for r in ruling.reasons] == [
        ("policy_rule", "policy", "sexual-content", "/prompt")
    ]
    assert ruling.reasons[0].code in reasons.TABLE


def test_caps_follow_the_asset_type() -> None:
    """What a product tile may not ask for a generic request may."""
    assert judged(requested(wanted=60, asset_type="product-tile")).cause == "wanted-cap"
    assert judged(requested(wanted=2, max_candidates=300, asset_type="email-hero")).cause == "candidates-cap"
    wide = {"width": 2048, "height": 512}
    assert judged(requested(size=wide, asset_type="product-tile")).cause == "size-bounds"
    assert judged(requested(size=wide)).cleared
    assert judged(requested(wanted=100)).cleared


@pytest.mark.parametrize("name", asset_types.TABLE)
def test_defaults_of_every_asset_type_pass_their_own_caps(name: str) -> None:
    """Asking for the most images, with the default cap on candidates, is allowed."""
    row = asset_types.TABLE[name]
    assert judged(requested(asset_type=name, wanted=row.wanted_max)).cleared
    assert judged(requested(asset_type=name, size={"width": 64, "height": 64})).cleared


def test_an_unknown_asset_type_is_refused_by_name() -> None:
    """The reason lists the types there are."""
    reason = judged(requested(asset_type="poster")).reasons[0]
    assert (reason.code, reason.pointer) == ("asset_type_unknown", "/asset_type")
    assert "product-tile" in reason.message


def test_rules_read_template_values_and_point_at_them() -> None:
    """A variable is matched like a prompt; the pointer names it."""
    use = {"id": "generic", "version": 1, "variables": {"subject": "a swastika"}}
    assert judged(requested(template=use)).reasons[0].pointer == "/template/variables/subject"


def test_a_term_that_a_template_completes_is_found_in_the_whole() -> None:
    """Values that are harmless alone are judged in their places as well: "{product} for {occasion}"."""

    def hero(product: str, occasion: str) -> str:
        variables = {"product": product, "occasion": occasion}
        return judged(requested(template={"id": "email-hero", "version": 1, "variables": variables})).cause

    assert (hero("a cure", "scurvy"), hero("a ribbon", "cancer")) == ("", "")
    assert hero("a cure", "cancer") == "medical-claims"


def test_the_version_follows_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed rule or template is another policy version; the same tables are the same version."""
    before = verdict.policy_version()
    assert before == verdict.policy_version() == JUDGE.version
    changed = (rules.TABLE[0]._replace(version=2), *rules.TABLE[1:])
    monkeypatch.setattr(rules, "TABLE", changed)
    assert verdict.policy_version() != before


def test_the_version_does_not_depend_on_the_process() -> None:
    """Replicas and restarts agree: nothing of it is an address or an order of a set."""
    import subprocess
    import sys

    code = "from giclee.policy.verdict import policy_version; print(policy_version())"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert seen == {verdict.policy_version()}


def test_templates_exist_for_every_asset_type() -> None:
    """Each asset type has a template of its name, version 1 or later."""
    assert {name for name, _ in templates.TABLE} >= set(asset_types.TABLE)
    assert len(templates.TABLE) >= 5
