"""Undoes disguises of words, so that what was hidden can be matched. For matching only: what is generated from and
kept is the original. Called by matchers.py.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby, islice, product
from typing import NamedTuple

SPELLED_MIN = 3
"""Single letters in a row that count as one spelled word; a term hidden among them is at least this long."""

_HIDDEN = frozenset({"Cf", "Mn", "Me", "Cc"})
# Drawn as nothing, though Unicode counts them as letters: Hangul fillers, the blank braille cell, a Khmer vowel.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\u17b4\u17b5")

# fmt: off
_LOOKS_LIKE: dict[str, str] = {
    # Cyrillic, after case folding
    **dict(zip("зчбавьсԁеєғнһіјкӏмипоөрԛгяѕтцѵшщԝхуү",
               "346abbcdeefhhijklmnnoopqrrstuvwwwxyy", strict=True)),
    # Greek, after case folding
    **dict(zip("αβϲδειϳκληποσφρςτμυνωχγ",
               "abcdeijklnnooopstuuvwxy", strict=True)),
    # Armenian
    **dict(zip("ցհյոօքգզսա",
               "ghjnopqquw", strict=True)),
    # small capitals
    **dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘꞯʀꜱᴛᴜᴠᴡʏᴢ",
               "abcdefghijklmnopqrstuvwyz", strict=True)),
    # letters of phonetics, letters with strokes
    **dict(zip("ɐɑɓƈðđɗǝəɛɠɡħɦıɩłɫɱŋɲɳøɔƥʠɼɾʂŧƭʉʊʋʌɯƴƶʐ",
               "aabcdddeeegghhiillmnnnoopqrrsttuuvvwyzz", strict=True)),
    "æ": "ae", "œ": "oe",
}
_TWO_WAYS = {
    "у": "yu", "ү": "yu", "υ": "uvy", "и": "nu", "г": "rg", "ρ": "pr", "γ": "yv", "η": "nh", "п": "np", "π": "np",
    "σ": "os", "ν": "vn", "1": "il", "!": "il", "|": "il",
}
"""Letters and signs that are read in more than one way."""
_STANDS_FOR = {
    "0": "o", "3": "e", "4": "a", "5": "s", "6": "b", "7": "t", "8": "b", "9": "g",
    "@": "a", "$": "s", "€": "e", "£": "l", "¢": "c", "¡": "i", "+": "t",
}
# fmt: on
READINGS_MAX = 16
"""Readings of one word that are matched; a word of five ambiguous letters is no word."""


def _pictures() -> dict[int, str]:
    """Letters in circles and squares that no normalisation takes apart, and the letters of flags."""
    firsts = (0x1F150, 0x1F170, 0x1F1E6)
    return {first + at: chr(ord("a") + at) for first in firsts for at in range(26)}


_LETTERS = str.maketrans({sign: letter for sign, letter in _LOOKS_LIKE.items() if sign not in _TWO_WAYS}) | _pictures()
_SIGNS = str.maketrans(_STANDS_FOR)
_WORD = re.compile(r"[^\W_]+")
_NO_WORD = re.compile(r"[\W_]+")
_KEPT = re.compile(r"[^\w@$€£¢¡+!|]|_")
# A sign at a chunk's edge may be a letter (pu$$ y) or punctuation; exclamation marks are tried both ways.
_EDGES = (re.compile(r"^(?:[^\w@$]|_)+|(?:[^\w@$]|_)+$"), re.compile(r"^(?:[^\w@$!|]|_)+|(?:[^\w@$!|]|_)+$"))


def visible(text: str) -> str:
    """`text` decomposed, without what is drawn as nothing or only on top of another character."""
    spaced = " ".join(text.split())  # a line break separates words; as a control character it would glue them
    if spaced.isascii() and spaced.isprintable():
        return spaced
    taken_apart = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", spaced))
    return "".join(char for char in taken_apart if unicodedata.category(char) not in _HIDDEN and char not in _BLANK)


def plain(text: str) -> str:
    """`text` in small Latin letters as far as it can be read in one way only."""
    return visible(text).casefold().translate(_LETTERS)


Word = tuple[str, ...]
"""The readings of one word, usually one."""


Key = tuple[str, tuple[tuple[str, int], ...]]


@lru_cache(maxsize=4096)
def key(word: str) -> Key:
    """A word without its repetitions, to look it up by, and how often each letter comes."""
    runs = tuple((letter, len(list(run))) for letter, run in groupby(word))
    return "".join(letter for letter, _ in runs), runs


class Folded(NamedTuple):
    """One text, ready to be matched: its words, cut in several ways, and the words it spells letter by letter.

    `keys` are all its words without their repetitions: most texts share none with a list.
    """

    sequences: tuple[tuple[Word, ...], ...]
    spelled: tuple[str, ...]
    keys: frozenset[str]


@lru_cache(maxsize=64)
def fold(text: str) -> Folded:
    """All readings of `text`. Cached, because every rule reads the same few texts of a request.

    A word can be hidden in more ways than a list can hold, so lists and texts are brought to one form. The text is
    normalised (NFKC, then NFD), invisible and combining characters fall away, letters of other scripts and
    pictures of letters become the Latin letter they look like, and digits and signs inside words become the letter
    they stand for. A letter that looks like two Latin ones (Cyrillic u is drawn as y) gives its word two readings.
    The text is cut into words three ways: at everything that is no letter; at white space only, with everything
    else squeezed out (n.u.d.e); and with runs of single letters joined (n u d e).
    """
    seen = plain(text)
    cut = _WORD.findall(seen)
    chunks = seen.split()
    squeezed = [[word for chunk in chunks if (word := _KEPT.sub("", edge.sub("", chunk)))] for edge in _EDGES]
    sequences = {tuple(readings(word) for word in words) for words in (cut, *squeezed)}
    spelled = tuple(reading for word in _spelled(cut) for reading in readings(word))
    keys = frozenset(key(reading)[0] for words in sequences for word in words for reading in word)
    return Folded(tuple(sequences), spelled, keys)


def words_at(text: str) -> list[tuple[Word, int, int]]:
    """(word, start, end) of every word of a `plain` text."""
    return [(readings(found[0]), found.start(), found.end()) for found in _WORD.finditer(text)]


def readings(word: str) -> Word:
    """Every way to read a word of a `plain` text; a number stays a number."""
    if word.isdigit() or (word.isascii() and word.isalpha()):
        return (word,)
    if not any(char.isalpha() for char in word):
        return (_NO_WORD.sub("", word),)
    choices = [_TWO_WAYS.get(char, char) for char in word.translate(_SIGNS)]
    return tuple("".join(letters) for letters in islice(product(*choices), READINGS_MAX))


def _spelled(words: list[str]) -> Iterator[str]:
    for single, run in groupby(words, key=lambda word: len(word) == 1):
        letters = "".join(run) if single else ""
        if len(letters) >= SPELLED_MIN:
            yield letters
