"""TABLE of rules; the first that matches refuses the request, and its name is the refusal's `rule`.

A predicate gets a Subject and answers with the JSON pointer of what it found, or None. To change what a rule
does, raise its version: the policy version that is stamped on every verdict follows from this table, the word
lists, the templates and the asset types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from giclee.policy import matchers
from giclee.policy.asset_types import AssetType
from giclee.policy.matchers import Terms, lines, read_terms
from giclee.schemas.events import ImageRequested
from giclee.schemas.parts import Reason
from giclee.schemas.strict import pointer

STAGE = "policy"


@dataclass(frozen=True, slots=True)
class Subject:
    """A request as rules see it: what was asked, its asset type's row, and the prompt as a model would read it."""

    request: ImageRequested
    row: AssetType
    prompt: str

    def wished(self) -> Iterator[tuple[str, str]]:
        """(pointer, text) of everything the caller wants to see. What a negative prompt names is not wanted."""
        if self.request.prompt is not None:
            yield "/prompt", self.request.prompt
        if self.request.template is not None:
            for name, value in self.request.template.variables.items():
                if isinstance(value, str):
                    yield pointer(("template", "variables", name)), value
            # A term cut in two by a template's slots is whole again here.
            yield "/template", self.prompt

    def written(self) -> Iterator[tuple[str, str]]:
        """(pointer, text) of everything the caller wrote that a model or a person will read."""
        yield from self.wished()
        if self.request.negative_prompt:
            yield "/negative_prompt", self.request.negative_prompt


Predicate = Callable[[Subject], str | None]
_ALLOWED = read_terms("allowed")


class Rule(NamedTuple):
    """A row: what refuses, why in one sentence for the caller, and the version of its meaning."""

    name: str
    matches: Predicate
    message: str
    version: int = 1


def _characters(has: Callable[[str], bool]) -> Predicate:
    """Matches where any text that was written has such characters."""
    return lambda subject: next((where for where, text in subject.written() if has(text)), None)


@lru_cache(maxsize=64)
def _doubtful(text: str) -> str:
    """What is left to judge of a text without the phrases that are allowed."""
    return _ALLOWED.without(text)


def _words(terms: Terms) -> Predicate:
    """Matches where any text that was wished for has one of the terms, outside the allowed phrases."""
    return lambda subject: next((where for where, text in subject.wished() if terms.find(_doubtful(text))), None)


def _both(first: Terms, second: Terms) -> Predicate:
    """Matches where terms of both lists stand in one request, wherever each stands."""

    def matches(subject: Subject) -> str | None:
        texts = list(subject.wished())
        if not any(first.find(_doubtful(text)) for _, text in texts):
            return None
        return next((where for where, text in texts if second.find(_doubtful(text))), None)

    return matches


def _either(*predicates: Predicate) -> Predicate:
    def matches(subject: Subject) -> str | None:
        return next((where for predicate in predicates if (where := predicate(subject)) is not None), None)

    return matches


def _too_many_wanted(subject: Subject) -> str | None:
    return "/wanted" if subject.request.wanted > subject.row.wanted_max else None


def _too_many_candidates(subject: Subject) -> str | None:
    return "/max_candidates" if subject.request.candidate_cap() > subject.row.candidates_max else None


def _wrong_size(subject: Subject) -> str | None:
    return None if subject.row.allows(subject.request.size) else "/size"


_SEXUAL = read_terms("sexual")
_MINORS = read_terms("minors")
_SUGGESTIVE = Terms(lines("sexual") + lines("suggestive"))

# fmt: off
TABLE: tuple[Rule, ...] = (
    Rule("control-characters", _characters(matchers.has_control_characters),
         "The text has control characters; remove them."),
    Rule("bidi-controls", _characters(matchers.has_bidi_controls),
         "The text has characters that show it in another order than it is read; remove them."),
    Rule("hidden-text", _characters(matchers.has_hidden_text),
         "The text has characters that nobody sees; remove them."),
    Rule("vanishing-text", _characters(matchers.vanishes),
         "Nothing of the text is visible."),
    Rule("network-tag", _characters(matchers.names_network),
         "The text has a tag that would load weights; name the model in the field for it."),
    Rule("heavy-weight", _characters(matchers.has_heavy_weight),
         "The text has emphasis above 2; describe instead what matters."),
    Rule("instructions", _words(read_terms("instructions")),
         "The text gives orders to a language model; describe the picture."),
    Rule("personal-data", _characters(matchers.has_personal_data),
         "The text has an e-mail address or a card number; prompts are stored and published."),
    Rule("sexual-minors", _either(_words(read_terms("sexual-minors")), _both(_MINORS, _SUGGESTIVE)),
         "Sexual content with minors is never made."),
    Rule("sexual-content", _words(_SEXUAL),
         "Sexual content is not made here."),
    Rule("intimate-fakes", _words(read_terms("intimate-fakes")),
         "Pictures that undress or fake a person are not made."),
    Rule("gore", _words(read_terms("gore")),
         "Gore and cruelty are not made here."),
    Rule("self-harm", _words(read_terms("self-harm")),
         "Pictures of self-harm are not made. If this is about you: please talk to somebody, a doctor or a helpline."),
    Rule("weapons-making", _words(read_terms("weapons-making")),
         "Instructions for making weapons, explosives or poisons are not made."),
    Rule("hate-symbols", _words(read_terms("hate-symbols")),
         "Symbols and slogans of hate are not made."),
    Rule("public-figure-deception", _both(read_terms("public-figures"), read_terms("deception")),
         "Pictures of real public figures in invented events or endorsements are not made."),
    Rule("forged-documents", _words(read_terms("forged-documents")),
         "Forged documents and money are not made."),
    Rule("medical-claims", _words(read_terms("medical-claims")),
         "Claims of healing need a legal review; take the claim out of the picture."),
    Rule("wanted-cap", _too_many_wanted,
         "More images are wanted than this asset type allows in one request."),
    Rule("candidates-cap", _too_many_candidates,
         "More candidates are allowed than this asset type may use in one request."),
    Rule("size-bounds", _wrong_size,
         "The size or its shape is outside what this asset type takes."),
)
# fmt: on


def first_match(subject: Subject) -> Reason | None:
    """The reason of the first rule that matches; None when the request may pass."""
    for rule in TABLE:
        where = rule.matches(subject)
        if where is not None:
            return Reason(code="policy_rule", stage=STAGE, message=rule.message, pointer=where, rule=rule.name)
    return None
