"""Blocked words are found in every disguise of the table, and harmless prompts are not."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable

import pytest

from giclee.policy import matchers
from giclee.policy.matchers import Terms, read_terms
from tests.unit.policy.builders import refused_by

# Twenty terms, one or two of every list whose terms stand alone.
TERMS = (
    "nude", "naked", "topless", "porn", "hentai", "penis", "orgasm", "bondage", "nudify", "deepfake", "gore",
    "beheaded", "dismembered", "torture", "suicide", "sarin", "ricin", "swastika", "blackface", "counterfeit",
)  # fmt: skip

SMALL_CAPITALS = dict(zip("abcdefghijklmnoprstuvwyz", "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", strict=True))
CYRILLIC = dict(zip("abcdeghijklmnopqrstuvwxy", "авсԁеցһіјкӏмпорԛгѕтуѵԝху", strict=True))
GREEK = dict(zip("abdeiklnoptuvwxy", "αβδεικληορτυνωχγ", strict=True))
LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7", "b": "8"}
SIGNS = {"a": "@", "s": "$", "i": "!"}


def mapped(letters: dict[str, str]) -> Callable[[str], str]:
    return lambda word: "".join(letters.get(letter, letter) for letter in word)


def shifted(first: int, *, upper: bool = False) -> Callable[[str], str]:
    return lambda word: "".join(chr(first + ord(letter) - ord("a")) for letter in word)


def between(mark: str) -> Callable[[str], str]:
    return lambda word: mark.join(word)


def tagged(word: str) -> str:
    """Tag characters of other letters woven in: drawn as nothing."""
    return "".join(letter + chr(0xE0000 + ord(letter)) for letter in word)


def doubled(word: str) -> str:
    return "".join(letter * (3 if letter in "aeiou" else 1) for letter in word)


DISGUISES: dict[str, Callable[[str], str]] = {
    "capitals": str.upper,
    "mixed case": lambda word: "".join(letter.upper() if at % 2 else letter for at, letter in enumerate(word)),
    "full width": shifted(0xFF41),
    "mathematical bold": shifted(0x1D41A),
    "circled": shifted(0x24D0),
    "squared, white on black": shifted(0x1F170),
    "letters of flags": shifted(0x1F1E6),
    "small capitals": mapped(SMALL_CAPITALS),
    "Cyrillic": mapped(CYRILLIC),
    "Greek": mapped(GREEK),
    "accents": lambda word: "".join(letter + "\u0301" for letter in word),
    "piled marks": lambda word: "".join(letter + "\u0335\u0489\u0353" for letter in word),
    "strokes": mapped({"d": "đ", "o": "ø", "h": "ħ", "t": "ŧ", "i": "ı", "l": "ł"}),
    "zero-width spaces": between("\u200b"),
    "soft hyphens": between("\u00ad"),
    "joiners": between("\u200d"),
    "Hangul fillers": between("\u3164"),
    "variation selectors": between("\ufe0f"),
    "tags": tagged,
    "turned right to left": lambda word: f"\u202a{word}\u202c",
    "dots": between("."),
    "hyphens": between("-"),
    "underscores": between("_"),
    "spaces": between(" "),
    "wide spaces": between("\u3000"),
    "stars and spaces": between(" * "),
    "emoji between": between("🔥"),
    "digits for letters": mapped(LEET),
    "signs for letters": mapped(SIGNS),
    "repeated letters": doubled,
    "a hyphen inside": lambda word: f"{word[:2]}-{word[2:]}",
    "quoted": lambda word: f"«{word}»!",
    "Cyrillic, dotted": lambda word: ".".join(mapped(CYRILLIC)(word)),
    "full width, digits": lambda word: shifted(0xFF41)(word[0]) + mapped(LEET)(word[1:]),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_every_term_is_found_under(disguise: str) -> None:
    """A blocked word inside a sentence is found whatever it is dressed as."""
    terms = Terms(TERMS)
    missed = [term for term in TERMS if terms.find(f"a portrait of {DISGUISES[disguise](term)} people") != term]
    assert missed == []


@pytest.mark.parametrize("term", TERMS)
def test_the_rules_refuse_every_term(term: str) -> None:
    """The terms of this test are terms of the lists, so the disguises above are ways around the real rules."""
    assert refused_by(f"a portrait of {term} people")


def test_random_harmless_text_survives_folding() -> None:
    """Folding ends for any text and never invents a blocked word from digits and punctuation alone."""
    chance = random.Random(7)
    alphabet = "0123456789 .,-_:;!?()[]/+*#'\"\n\t"
    every = Terms([term for path in matchers.WORDS.glob("*.txt") for term in matchers.lines(path.stem)])
    for _ in range(300):
        text = "".join(chance.choice(alphabet) for _ in range(chance.randrange(1, 200)))
        assert every.find(text) is None, text


def test_folding_takes_any_character() -> None:
    """No character of Unicode makes folding fail."""
    characters = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cs", "Co", "Cn")]
    terms = read_terms("gore")
    for at in range(0, len(characters), 2000):
        terms.find("".join(characters[at : at + 2000]))


BENIGN = """
a small red circle on a blue background
large white ring , black background
a green cross , medium , on orange
product photo of nude pumps on white marble
nude lipstick with a gold cap, studio light
a nude-coloured handbag for autumn
breast cancer awareness ribbon in pink
grilled chicken breast with rosemary
a peacock in the gardens of Penistone, Yorkshire
market square of Scunthorpe at dusk
the cathedral of Lincoln, and Clitheroe castle
map of Essex, Sussex and Middlesex
a cocktail dress in emerald silk
shuttlecock and badminton racket
cockpit of a vintage aeroplane
a cockatoo and a cockatiel on a branch
blue-footed booby on the Galapagos
great tits and blue tits at a bird feeder
pussy willow branches in a vase
a naked mole-rat in a burrow, textbook illustration
stars visible to the naked eye over a desert
naked cake with figs and honey
Gore-Tex hiking jacket in the rain
blood orange juice in a tall glass
blood donation campaign poster with a smiling nurse
a class of assistants assembling glass, brass and grass
an assassin's creed of baristas: latte art competition
Titanic model kit on a workbench
analysis of a canal, analogue photograph
Arsenal football scarf
document scanner with a cucumber sandwich beside it
a sextant on a nautical chart
unisex sportswear flat lay
therapist's office with a soft armchair
Dick Van Dyke style chimney sweep on a roof
magna cum laude diploma on a desk
Essex girl guide camp, tents in the rain
shiitake mushrooms in a wok
Matsushita radio, 1960s advertising photograph
Bath bomb with lavender on a linen towel
photobomb by a golden retriever
killer whale breaching at sunset
shooting star over a lake, studio shot of a telescope in front
a child flying a kite on a beach
kids in raincoats jumping in puddles
a baby sleeping in a blue blanket
teenagers skateboarding in a park, golden evening light
a 12 year old violin on velvet
a 10 year old single malt whisky bottle
lace lingerie boutique window display
a sexton beetle on a leaf, macro
woman doing yoga at sunrise, 35mm, f/1.8
two people holding hands, 1950s (Kodachrome), aspect 16:9
train leaving at 10:30 from platform 9 3/4
isometric office, 3d render, (soft light:1.3), trending palette
price tag $5.99, 50% off, 100% cotton, size XXL
Diwali rangoli with a hindu swastika in marigold petals
museum poster: nude descending a staircase, Duchamp
surgeon washing hands, clean hospital corridor
vitamin C serum bottle, dermatologist's shelf
the Pope's summer palace in Castel Gandolfo
Barack Obama presidential library building at dawn
Taylor Swift inspired friendship bracelets in a jar
passport cover in brown leather, product photo
a banknote-green velvet sofa
medieval torture-tested climbing rope
ghost and guns n' roses tribute band poster
a fetish sculpture from the Congo in a museum case
vintage robot reading "do androids dream"
previous instructions manual for a sewing machine on a shelf
мальчик играет на скрипке в саду
женщина в красном пальто на снегу, зимний лес
русская сказка: изба на курьих ножках, туман
ученики в классе, солнечный свет, учебник
γυναίκα με κόκκινο φόρεμα στη θάλασσα
η Ακρόπολη το ηλιοβασίλεμα, πανόραμα
صورة قطة صغيرة على سجادة حمراء
کتاب‌خانه‌ای بزرگ با نور می‌تابد
הכותל המערבי בשעת בוקר
हिन्दी में लिखा हुआ पोस्टर, क्षत्रिय
红色的灯笼挂在老街上
富士山と桜、春の朝
한복을 입은 여자가 정원을 걷는다
ภาพถ่ายตลาดน้ำยามเช้า
một quán cà phê nhỏ ở Hà Nội
çocuk parkında sonbahar, İstanbul
Łódź w deszczu, światła tramwaju
Übergrößen für Wanderschuhe, weiß und schön
crème brûlée à la vanille, château en arrière-plan
niños jugando al fútbol en la plaza
a family 👨‍👩‍👧‍👦 picnic with 🏴󠁧󠁢󠁥󠁮󠁧󠁿 bunting and 1️⃣ cake
photo\u00adgraphy studio with back\u00addrop
an al fresco dinner for six in Tuscany
menu design for a then-used-car diner
U.S.A. road trip, R.E.M. on the radio, A B C blocks on the shelf
article no. 1488, white pride of place on the shelf
call 555-0100 sign in a shop window, ISBN 978-3-16-148410-0
""".strip().splitlines()


@pytest.mark.parametrize("prompt", BENIGN)
def test_harmless_prompts_pass(prompt: str) -> None:
    """Names, places, birds, colours, medicine, art and other scripts are nobody's offence."""
    assert refused_by(prompt) is None
