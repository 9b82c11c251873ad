"""The shapes world: prompts, pictures and what they promise to training and to the stub provider."""

import numpy as np
import pytest

from giclee.models import world

SCENES = world.all_scenes()


def test_the_world_has_1008_scenes_and_none_hides_its_object() -> None:
    assert len(SCENES) == len(set(SCENES)) == 1008
    assert all(scene.colour != scene.background for scene in SCENES)


@pytest.mark.parametrize("phrasing", range(len(world.PHRASINGS)))
def test_every_scene_reads_back_from_every_phrasing(phrasing: int) -> None:
    assert [world.parse(world.phrase(scene, phrasing)) for scene in SCENES] == SCENES


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("a small red circle on a blue background", ("small", "red", "circle", "blue")),
        ("large white ring , black background", ("large", "white", "ring", "black")),
        ("a green cross , medium , on orange", ("medium", "green", "cross", "orange")),
        ("A large Orange diamond, on an orange background.", ("large", "orange", "diamond", "orange")),
    ],
)
def test_a_written_prompt_is_read_whatever_its_case_and_stops(prompt: str, asked: tuple[str, ...]) -> None:
    assert tuple(world.parse(prompt)) == asked


def test_what_a_prompt_leaves_open_is_none() -> None:
    assert world.parse("a red circle, highly detailed") == world.Scene(colour="red", shape="circle")
    assert world.parse("a cat") == world.Scene()


def test_a_scene_that_leaves_attributes_open_reads_back_too() -> None:
    for scene in SCENES[::37]:
        for name in world.Scene._fields:
            part = scene._replace(**{name: None})
            assert world.parse(world.phrase_part(part)) == part


def test_alternatives_differ_in_one_attribute_and_begin_with_what_was_asked() -> None:
    for number, scene in enumerate(SCENES[::41]):
        prompt = world.phrase(scene, number % len(world.PHRASINGS))
        for name, captions in world.alternatives_of(prompt).items():
            read = [world.parse(caption) for caption in captions]
            assert read[0] == scene
            assert all(other._replace(**{name: getattr(scene, name)}) == scene for other in read)
            assert len(set(captions)) == len(captions) >= 3


def test_no_alternative_hides_the_object() -> None:
    captions = world.alternatives_of("a small red circle on a blue background")
    scenes = [world.parse(caption) for several in captions.values() for caption in several]
    assert all(scene.colour != scene.background for scene in scenes)


def test_a_seed_always_gives_the_same_scene_prompt_and_picture() -> None:
    for seed in (0, 7, world.EVALUATION_SEED_FIRST):
        scene = world.scene_of(seed)
        assert scene == world.scene_of(seed)
        assert world.parse(world.prompt_of(seed)) == scene
        assert np.array_equal(world.render(scene, seed), world.render(scene, seed))


def test_another_seed_moves_the_object_but_not_far() -> None:
    scene = world.Scene("small", "red", "circle", "blue")
    centres = []
    for seed in range(50):
        rows, columns = np.nonzero(world.render(scene, seed)[..., 0] > 120)
        centres.append((columns.mean(), rows.mean()))
    away_px = np.abs(np.array(centres) - (world.WIDTH_PX - 1) / 2)
    assert 1.0 < away_px.max() <= world.JITTER * world.WIDTH_PX + 0.5


def test_pictures_are_rgb_bytes_of_the_width_asked() -> None:
    scene = SCENES[0]
    for width_px in (32, 64, 200):
        picture = world.render(scene, 1, width_px)
        assert picture.shape == (width_px, width_px, 3)
        assert picture.dtype == np.uint8


def test_corners_show_the_background_and_most_of_the_object_its_exact_colour() -> None:
    for number, scene in enumerate(SCENES):
        picture = world.render(scene, number)
        assert {tuple(picture[y, x]) for y in (0, -1) for x in (0, -1)} == {world.COLOURS[str(scene.background)]}
        exact = np.all(picture == np.array(world.COLOURS[str(scene.colour)]), axis=-1).mean()
        covered = world.coverage(str(scene.shape), str(scene.size)).mean()
        assert exact > 0.55 * covered


def test_outlines_are_antialiased() -> None:
    picture = world.render(world.Scene("large", "white", "circle", "black"), 0)
    assert len(np.unique(picture[..., 0])) > 20


def test_a_size_scales_every_shape_alike() -> None:
    for shape in world.SHAPES:
        areas = [world.coverage(shape, size).sum() for size in world.SIZES]
        radii = np.array([*world.SIZES.values()])
        assert np.allclose(np.sqrt(areas) / np.sqrt(areas[0]), radii / radii[0], rtol=0.02)


def test_a_scene_with_an_open_attribute_cannot_be_drawn_or_phrased() -> None:
    with pytest.raises(ValueError, match="open"):
        world.render(world.Scene("small", "red", "circle"), 0)
    with pytest.raises(ValueError, match="open"):
        world.phrase(world.Scene("small", "red", "circle"))
