"""The shapes world: one object on a flat ground, in which what is right can be read off the pixels.

Colours, shapes, sizes, the prompts that ask for them, the renderer, and the parser that reads a prompt back.
Needs numpy only. Training, measurements and the stub provider of the tests draw with it; the oracle judges without it.
Training draws with seeds below VALIDATION_SEED_FIRST, choices between checkpoints with those from there on, and seeds
from EVALUATION_SEED_FIRST on are kept for measurements: nothing is ever trained on, or chosen by, them.
"""

import re
from typing import NamedTuple

import numpy as np

VALIDATION_SEED_FIRST = 900_000
EVALUATION_SEED_FIRST = 1_000_000
WIDTH_PX = 64
# How far the object's centre may stray from the picture's, as a part of the width: 1.9 px of 64, so that positions
# differ and a mean picture is still nearly sharp.
JITTER = 0.03

# sRGB. Fixed: others measure against them.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (33, 96, 214),
    "yellow": (245, 205, 40),
    "purple": (130, 60, 190),
    "orange": (245, 130, 30),
    "white": (245, 245, 245),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "ring", "cross", "diamond")
# The shape's nominal radius divided by the picture's width.
SIZES: dict[str, float] = {"small": 0.17, "medium": 0.27, "large": 0.37}


class Scene(NamedTuple):
    """What a picture shows, or what a prompt asks for; None is an attribute that was not asked."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None
    background: str | None = None


ALTERNATIVES: dict[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "background": tuple(COLOURS),
}

# A name in braces is an attribute; {a} before it is its article.
PHRASINGS = (
    "{a_size} {colour} {shape} on {a_background} background",
    "{size} {colour} {shape} , {background} background",
    "{a_colour} {shape} , {size} , on {background}",
    "{a_colour} {size} {shape} on {background}",
    "{size} {shape} in {colour} on {a_background} background",
    "{a_size} {shape} , {colour} on {background}",
    "{background} background with {a_size} {colour} {shape}",
    "on {a_background} background , {a_size} {colour} {shape}",
    "picture of {a_size} {colour} {shape} on {background}",
    "the {shape} is {colour} and {size} , the background is {background}",
)


def all_scenes() -> list[Scene]:
    """Every picture the world has, 1,008 of them, in a fixed order; an object never has its background's colour."""
    return [
        Scene(size, colour, shape, background)
        for shape in SHAPES
        for size in SIZES
        for colour in COLOURS
        for background in COLOURS
        if colour != background
    ]


def scene_of(seed: int) -> Scene:
    """One of the 1,008 scenes, the same for the same seed."""
    scenes = _SCENES
    return scenes[np.random.default_rng([seed, 0]).integers(len(scenes))]


def prompt_of(seed: int) -> str:
    """The scene of a seed in one of the phrasings, also drawn by the seed."""
    return phrase(scene_of(seed), int(np.random.default_rng([seed, 1]).integers(len(PHRASINGS))))


def phrase(scene: Scene, phrasing: int = 0) -> str:
    """Say a whole scene in one of the PHRASINGS. One that leaves something open is a ValueError: see phrase_part."""
    words: dict[str, str] = {}
    for name, word in zip(Scene._fields, _closed(scene), strict=True):
        words[name] = word
        words[f"a_{name}"] = f"an {word}" if word[0] in "aeiou" else f"a {word}"
    return PHRASINGS[phrasing].format(**words)


def phrase_part(scene: Scene) -> str:
    """Say a scene of which some attributes are open: `a red circle`, `something large on blue`."""
    words = [word for word in (scene.size, scene.colour, scene.shape or "something") if word]
    article = [] if words[0] == "something" else ["an" if words[0][0] in "aeiou" else "a"]
    ground = ["on", scene.background] if scene.background else []
    return " ".join(article + words + ground)


def parse(prompt: str) -> Scene:
    """Read a prompt back into the attributes it asks for; words the world does not know are passed over."""
    words = _words(prompt)
    return Scene(**{name: words[at] for name, at in _positions(words).items()})


def alternatives_of(prompt: str) -> dict[str, list[str]]:
    """Per asked attribute the prompt in all its alternatives, the asked one first.

    For a judge that compares a picture with the prompt and its neighbours. An object never gets its background's
    colour, nor the other way round.
    """
    words = _words(prompt)
    positions = _positions(words)
    found: dict[str, list[str]] = {}
    for name, at in positions.items():
        taken = {words[other] for other in positions.values()}
        others = [word for word in ALTERNATIVES[name] if word not in taken]
        found[name] = [" ".join([*words[:at], word, *words[at + 1 :]]) for word in (words[at], *others)]
    return found


def _words(prompt: str) -> list[str]:
    return re.findall(r"[a-z]+|,", prompt.lower())


def _positions(words: list[str]) -> dict[str, int]:
    """Where each asked attribute stands. The object's colour is the first that is not the background's."""
    ground = _background_position(words)
    places = {
        "size": [at for at, word in enumerate(words) if word in SIZES],
        "colour": [at for at, word in enumerate(words) if word in COLOURS and at != ground],
        "shape": [at for at, word in enumerate(words) if word in SHAPES],
        "background": [] if ground is None else [ground],
    }
    return {name: found[0] for name, found in places.items() if found}


def _background_position(words: list[str]) -> int | None:
    """The colour right before `background`, else the one after `on`, `on a`, `on an` or `background is`."""
    colours = [at for at, word in enumerate(words) if word in COLOURS]
    for at in colours:
        if words[at + 1 : at + 2] == ["background"]:
            return at
    for at in colours:
        before = [word for word in words[max(0, at - 2) : at] if word not in ("a", "an")]
        if before[-1:] == ["on"] or before == ["background", "is"]:
            return at
    return None


def distance(shape: str, radius: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to the shape's outline, negative inside, in the units of x, y and radius; y points down.

    Beyond corners the square, the cross, the triangle and the diamond are bounds and not Euclidean, which only rounds
    nothing: antialiasing needs the half pixel around the outline. Factors keep the six areas within a factor of two.
    """
    ax, ay = np.abs(x), np.abs(y)
    match shape:
        case "circle":
            return np.hypot(x, y) - radius
        case "ring":
            # Hole of 0.55 radius: at 64 px the small ring is still 4.9 px thick.
            return np.abs(np.hypot(x, y) - 0.775 * radius) - 0.225 * radius
        case "square":
            return np.maximum(ax, ay) - 0.9 * radius
        case "diamond":
            return (ax + ay - 1.1 * radius) * np.sqrt(0.5)
        case "cross":
            arm = 0.32 * radius
            return np.minimum(np.maximum(ax - radius, ay - arm), np.maximum(ax - arm, ay - radius))
        case "triangle":
            # Equilateral around its centroid, circumradius 1.2: the sides are 0.6 from the centroid.
            return np.maximum(y, ax * np.sqrt(0.75) - 0.5 * y) - 0.6 * radius
    raise ValueError(f"unknown shape: {shape}")


def coverage(shape: str, size: str, centre: tuple[float, float] = (0.5, 0.5), width_px: int = WIDTH_PX) -> np.ndarray:
    """How much of each pixel the object covers, (width, width) in [0, 1]; centre is x, y as parts of the width."""
    at = (np.arange(width_px) + 0.5) / width_px
    x, y = at[None, :] - centre[0], at[:, None] - centre[1]
    return np.clip(0.5 - distance(shape, SIZES[size], x, y) * width_px, 0.0, 1.0)


def render(scene: Scene, seed: int, width_px: int = WIDTH_PX) -> np.ndarray:
    """Draw a whole scene: (width, width, 3) uint8 sRGB, the same bytes for the same seed.

    The seed moves the object by at most JITTER.
    """
    size, colour, shape, background = _closed(scene)
    x, y = 0.5 + np.random.default_rng([seed, 2]).uniform(-JITTER, JITTER, 2)
    covered = coverage(shape, size, (x, y), width_px)[..., None]  # (width, width, 1)
    front, ground = np.array(COLOURS[colour]), np.array(COLOURS[background])
    return np.rint(ground + covered * (front - ground)).astype(np.uint8)


def _closed(scene: Scene) -> tuple[str, str, str, str]:
    size, colour, shape, background = scene
    if size is None or colour is None or shape is None or background is None:
        raise ValueError(f"the scene leaves an attribute open: {scene}")
    return size, colour, shape, background


_SCENES = all_scenes()
