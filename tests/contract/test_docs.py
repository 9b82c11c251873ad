"""Everything named is in the docs: topics, settings, metrics, rules, make targets, services, clients."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import generate

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(generate.PAGES))
def test_generated_docs_are_current(name: str) -> None:
    """`make docs` would change nothing; the pages list every row of the tables they come from."""
    assert (ROOT / "docs" / name).read_text() == generate.PAGES[name]()


def targets() -> set[str]:
    """What the Makefile offers."""
    return set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_make_target_is_named_in_the_docs() -> None:
    """README or CONTRIBUTING says what each target is for."""
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()

    assert {name for name in targets() if f"make {name}" not in text} == set()


def test_the_docs_name_no_target_that_is_missing() -> None:
    """A command that the docs show exists."""
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`make ([a-z-]+)", text))

    assert named <= targets()


@pytest.mark.parametrize("service", sorted(path.name for path in (ROOT / "services").iterdir() if path.is_dir()))
def test_every_service_has_one_screen_about_itself(service: str) -> None:
    """Its README says what it eats, emits and how it fails."""
    text = (ROOT / "services" / service / "README.md").read_text()

    assert len(text.splitlines()) <= 90
    assert all(word in text.lower() for word in ("eats", "emits", "fail"))


def test_links_in_the_docs_lead_somewhere() -> None:
    """A relative link of any page points at a file that is there."""
    broken = []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("services/*/README.md")]:
        for link in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text()):
            if not (page.parent / link).exists():
                broken.append(f"{page.relative_to(ROOT)}: {link}")

    assert broken == []


def test_architecture_fits_its_length() -> None:
    """ARCHITECTURE stays under 200 lines, README on about a screen."""
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) < 200
    assert len((ROOT / "README.md").read_text().splitlines()) <= 80
