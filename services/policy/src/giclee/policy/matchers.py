"""What rules look for in text: terms of the lists in words/, and characters that have no business in a prompt.

Words are compared as folding.py reads them and by their runs of letters, so that nuuude is nude; and only as
whole words, so that Sussex is a county.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from giclee.policy.folding import SPELLED_MIN, Key, Word, fold, key, plain, visible, words_at

WORDS = Path(__file__).with_name("words")

# ---- terms --------------------------------------------------------------------------------------

NOTHING = "allowedphrase"


def _reads_as(word: Word, term: Key) -> bool:
    """Whether a reading of `word` is `term`, perhaps with letters repeated; never with letters missing."""
    for bare, runs in map(key, word):
        if bare == term[0] and all(have[1] >= want[1] for have, want in zip(runs, term[1], strict=True)):
            return True
    return False


class Terms:
    """A list of words and phrases, folded as text is. `find` says which of them a text contains."""

    def __init__(self, terms: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[str, tuple[Key, ...]]]] = {}
        self._singles: list[tuple[str, str]] = []
        for term in terms:
            words = [readings[0] for readings, _, _ in words_at(plain(term))]
            keys = tuple(key(word) for word in words)
            self._by_first.setdefault(keys[0][0], []).append((term, keys))
            if len(words) == 1 and len(words[0]) >= SPELLED_MIN:
                self._singles.append((term, words[0]))

    def _hits(self, words: Sequence[Word]) -> Iterator[tuple[str, int, int]]:
        """(term, first word, past the last word) of every hit in one sequence."""
        for at, word in enumerate(words):
            for bare in {key(reading)[0] for reading in word}:
                for term, wanted in self._by_first.get(bare, ()):
                    found = words[at : at + len(wanted)]
                    if len(found) == len(wanted) and all(map(_reads_as, found, wanted)):
                        yield term, at, at + len(wanted)

    def find(self, text: str) -> str | None:
        """A term that `text` contains; None when it contains none."""
        folded = fold(text)
        if folded.keys.isdisjoint(self._by_first) and not folded.spelled:
            return None
        for words in folded.sequences:
            for term, _, _ in self._hits(words):
                return term
        return next((term for letters in folded.spelled for term, word in self._singles if word in letters), None)

    def without(self, text: str) -> str:
        """`text`, plain, with every term of this list replaced by a word that means nothing."""
        seen = plain(text)
        places = words_at(seen)
        pieces, past = [], 0
        hits = sorted(self._hits([word for word, _, _ in places]), key=lambda hit: (hit[1], -hit[2]))
        for _, first, end in hits:
            start = places[first][1]
            if start >= past:  # of overlapping terms the first and longest counts
                pieces += [seen[past:start], NOTHING]
                past = places[end - 1][2]
        return "".join([*pieces, seen[past:]])


def read_terms(name: str) -> Terms:
    """The list `words/<name>.txt`: a term a line, # starts a comment."""
    return Terms(lines(name))


def lines(name: str) -> list[str]:
    """The terms of `words/<name>.txt` as they are written."""
    rows = (WORDS / f"{name}.txt").read_text().splitlines()
    return [term for row in rows if (term := row.partition("#")[0].strip())]


# ---- characters ---------------------------------------------------------------------------------

_OVERRIDES = frozenset("\u202d\u202e")
_EMBEDDINGS = frozenset("\u202a\u202b\u202c\u2066\u2067\u2068\u2069")
_ZERO_WIDTH = "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\u180e\ufeff\u034f\u115f\u1160\u3164\uffa0"
_SMUGGLED = re.compile(rf"(?<=[A-Za-z0-9])[{_ZERO_WIDTH}]+(?=[A-Za-z0-9])|[{_ZERO_WIDTH}]{{4}}")
# A flag of a region is a black flag, tags, and an end tag; tags anywhere else carry text that nobody sees.
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f")
_TAG = re.compile("[\U000e0000-\U000e007f]")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2}")
_NETWORK = re.compile(r"<\s*(lora|lyco|lycoris|hypernet|hypernetwork|ti|embedding)\s*:|\bembedding:\w", re.IGNORECASE)
_WEIGHT = re.compile(r"\([^():]*[^\W\d]\s*:\s*([0-9]{1,6}(?:\.[0-9]{0,6})?)\s*\)")
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){0,6}\.[a-z]{2,24}\b", re.IGNORECASE)
_DIGITS = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])")
WEIGHT_MAX = 2.0
"""Emphasis above this is an attack on the encoder, not a wish."""


def has_control_characters(text: str) -> bool:
    """Control characters other than tab and line breaks."""
    return any(unicodedata.category(char) == "Cc" and char not in "\t\n\r" for char in text)


def has_bidi_controls(text: str) -> bool:
    """Characters that show text in another order: overrides anywhere, others where nothing is written right to left."""
    if _OVERRIDES.intersection(text):
        return True
    if not _EMBEDDINGS.intersection(text):
        return False
    return not any(unicodedata.bidirectional(char) in ("R", "AL") for char in text)


def has_hidden_text(text: str) -> bool:
    """Text that nobody sees: tags outside a flag, zero-width characters inside Latin words, runs of selectors.

    Joiners between other letters are spelling (Persian, Hindi) or emoji.
    """
    return bool(_TAG.search(_FLAG.sub("", text)) or _SMUGGLED.search(text) or _SELECTORS.search(text))


def vanishes(text: str) -> bool:
    """A text of which nothing is left to see."""
    return not visible(text).strip()


def names_network(text: str) -> bool:
    """A tag that would load weights: <lora:...>, embedding:..."""
    return bool(_NETWORK.search(unicodedata.normalize("NFKC", text)))


def has_heavy_weight(text: str) -> bool:
    """Emphasis such as ((x:99)); aspect ratios and times of day are none."""
    return any(float(number) > WEIGHT_MAX for number in _WEIGHT.findall(unicodedata.normalize("NFKC", text)))


def has_personal_data(text: str) -> bool:
    """An e-mail address or the number of a payment card."""
    return bool(_EMAIL.search(text)) or any(_luhn(found) for found in _DIGITS.findall(text))


def _luhn(found: str) -> bool:
    digits = [int(char) for char in reversed(found) if char.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) if at % 2 else digit for at, digit in enumerate(digits)]
    return sum(doubled) % 10 == 0
