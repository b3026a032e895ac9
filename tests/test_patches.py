"""Patches of labelled images: their pixels, their labels however they are turned, and what an epoch takes of them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from zoo.config.recipe import Augment
from zoo.data import Split
from zoo.errors import InputError
from zoo.objects.cell_labels import IGNORED, cell_labels, scene_labels
from zoo.objects.marked import Objects, Scene, Scenes
from zoo.training.batches import NOTHING, training_batches
from zoo.training.jitter import draw_move, moved
from zoo.training.patches import PatchForm, WholeImages, training_patches

FORM = PatchForm(size=(27, 33), window=(15, 15), stride=(3, 3), cells=(5, 7))
MOVES = [(quarters, is_mirrored) for quarters in range(4) for is_mirrored in (False, True)]


def scene(height, width, name="a", seed=0, count=9):
    """An image whose samples are the places of its pixels, with ellipses and one point."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, (height, width), (count, 2))
    sides = rng.uniform(5, 14, (count, 2))
    sides[0] = 0
    objects = Objects(centres, sides, rng.integers(0, 2, count).astype(np.int32))
    return Scene(name, np.stack(np.mgrid[:height, :width], -1).astype(np.float32), objects, (height, width))


def scenes(*train, validation=()):
    return Scenes(("cell", "speck", "background"), "background", train, validation, (), tolerance=5.0, fill=(-1.0,))


def label_at(image, y, x):
    """The label of a place of an image, by its definition (see `cell_labels`) and one object after another."""
    best, label = np.inf, 2
    for centre, sides, index in zip(image.objects.centres, image.objects.sides, image.objects.classes, strict=True):
        reach = [max(side / 2 if sides.any() else 5.0, 3 * np.sqrt(2)) for side in sides]
        distance = np.hypot((y - centre[0]) / reach[0], (x - centre[1]) / reach[1])
        if distance < best and distance <= 1:
            best, label = distance, index if distance <= 0.5 else IGNORED
    return label


@pytest.mark.parametrize("asked", [(27, 33), (29, 35), (28, 34)])
def test_a_patch_is_the_largest_of_windows_and_strides_that_fits(asked):
    model = zoo.build("nin_digits", padding="valid", image_size=(15, 15))
    geometry = zoo.geometry(zoo.convolutionalize(model))
    form = PatchForm.of(geometry, asked)
    assert form.cells == geometry.grid_shape(*form.size) and form.window == (15, 15)
    for side, most, stride in zip(form.size, asked, form.stride, strict=True):
        assert most - stride < side <= most and (side - 15) % stride == 0
    with pytest.raises(InputError, match=r"train.dense.patch: received \[14, 40\]; accepted: at least the model's win"):
        PatchForm.of(geometry, (14, 40))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(-60, 60), st.integers(-60, 60))
def test_beyond_its_border_an_image_is_filled(height, width, top, left):
    image = scene(height, width)
    rows, columns = ((100, 100 + FORM.size[axis]) for axis in range(2))
    padded = np.pad(image.pixels, (rows, columns, (0, 0)), constant_values=-1)
    wanted = padded[100 + top : 127 + top, 100 + left : 133 + left]
    np.testing.assert_array_equal(FORM.pixels(image, scenes(image), (top, left)), wanted)


@pytest.mark.parametrize("move", MOVES)
def test_the_labels_of_a_moved_patch_are_those_of_the_moved_objects(move):
    form = PatchForm(size=(57, 63), window=(15, 15), stride=(3, 3), cells=(15, 17))
    image = scene(120, 110, seed=2, count=90)
    quarters, is_mirrored = move
    source, at = (form.turned if quarters % 2 else form), (31, 42)
    objects = replace(image.objects, centres=image.objects.centres - at)
    height, width = source.size
    for _ in range(quarters):  # to the left: what was right is up
        centres = np.stack([width - objects.centres[:, 1], objects.centres[:, 0]], -1)
        objects = Objects(centres, objects.sides[:, ::-1], objects.classes)
        height, width = width, height
    if is_mirrored:
        objects = Objects(objects.centres * (1, -1) + (0, width), objects.sides, objects.classes)
    assert (height, width) == form.size
    rows, columns = (7.5 + 3 * np.arange(count) for count in form.cells)
    wanted = cell_labels(objects, rows, columns, 2, (3, 3), 5.0)
    np.testing.assert_array_equal(moved(source.labels(image, scenes(image), at), move), wanted)
    assert len(np.unique(wanted)) == 4


@pytest.mark.parametrize("augment", [NOTHING, Augment(flip=True), Augment(turns=True)])
def test_the_label_of_every_cell_is_that_of_the_place_in_its_middle(augment):
    """The samples tell where in the image each pixel is from."""
    images = [scene(70, 61), scene(34, 80, seed=1), scene(20, 19, seed=2)]
    batches = training_patches(scenes(*images), FORM, augment, 6, 18, seed=3)
    ignored = 0
    for _ in range(3):
        patches, labels = next(batches)
        assert patches.shape == (18, *FORM.size, 2) and labels.shape == (18, *FORM.cells, 3)
        assert set(labels.sum(-1).ravel()) == {0, 1}
        for patch, grid in zip(patches, labels, strict=True):
            middles = patch[7::3, 7::3][: grid.shape[0], : grid.shape[1]] + 0.5
            # That one of the images in which every label is right.
            assert any(
                all(
                    not cell.any() or label_at(image, *middle) == cell.argmax()
                    for middle, cell in zip(middles.reshape(-1, 2), grid.reshape(-1, 3), strict=True)
                )
                for image in images
            )
            ignored += (grid.sum(-1) == 0).mean() / 54
    assert 0.05 < ignored < 0.6


def test_cells_whose_middle_is_beyond_the_image_are_ignored():
    image = scene(30, 40)
    rows, columns = np.arange(-6, 40, 1.5), np.arange(-6, 50, 1.5)
    labels = scene_labels(image, scenes(image), rows, columns, (3, 3))
    inside = ((rows >= 0) & (rows < 30))[:, None] & ((columns >= 0) & (columns < 40))
    assert (labels[~inside] == IGNORED).all()
    wanted = [[label_at(image, y, x) for x in columns] for y in rows]
    np.testing.assert_array_equal(labels[inside], np.array(wanted)[inside])


def test_a_scaled_image_has_the_labels_of_its_places_in_the_given_image():
    image = scene(60, 80, count=30)
    half = Scene("half", np.zeros((30, 40, 1)), image.objects, (60, 80), (0.5, 0.5))
    rows, columns = np.arange(1.5, 30, 3), np.arange(1.5, 40, 3)
    wanted = scene_labels(image, scenes(image), rows * 2, columns * 2, (6, 6))
    np.testing.assert_array_equal(scene_labels(half, scenes(half), rows, columns, (3, 3)), wanted)


def test_an_epoch_takes_each_image_as_often_as_is_asked_and_begins_anywhere():
    images = [scene(60 + index, 70, seed=index) for index in range(4)]
    for index, image in enumerate(images):
        image.pixels[...] = index
    given = scenes(*images)
    arguments = given, FORM, Augment(turns=True), 3, 4, 5
    first = [next(batch) for batch in [training_patches(*arguments)] for _ in range(7)]
    assert Counter(first[place][0][row].max() for place in range(3) for row in range(4)) == dict.fromkeys(range(4), 3)
    for step in (1, 3, 5):
        later = training_patches(*arguments, first_step=step)
        for wanted, batch in zip(first[step:], later, strict=False):
            np.testing.assert_array_equal(wanted[0], batch[0])
            np.testing.assert_array_equal(wanted[1], batch[1])


def test_samples_are_multiplied_within_what_is_asked():
    image = scene(60, 70)
    image.pixels[...] = (100, 200)
    for augment, spread in ((Augment(brightness=0.2), 0), (Augment(colour=0.1), 0.2), (NOTHING, 0)):
        patches, _ = next(training_patches(replace(scenes(image), fill=(100.0, 200.0)), FORM, augment, 64, 64, 0))
        np.testing.assert_allclose(patches, np.broadcast_to(patches[:, :1, :1], patches.shape))
        factors = patches[:, 0, 0] / (100, 200)
        bound = augment.brightness + augment.colour
        assert np.abs(factors - 1).max() <= bound + 1e-6 and np.abs(factors - 1).max() >= 0.8 * bound
        assert (np.abs(factors[:, 0] - factors[:, 1]).max() > 0.1) == bool(spread)


def test_whole_images_have_every_cell_once():
    images = scene(45, 61), scene(20, 16, seed=1), scene(3, 200, seed=2)
    whole = WholeImages(scenes(), images, FORM, 4)
    batches = [whole[index] for index in range(len(whole))]
    seen = Counter()
    for patches, labels, weights in batches:
        np.testing.assert_array_equal(weights > 0, labels.any(-1))
        for patch, grid in zip(patches, labels, strict=True):
            middles = patch[7::3, 7::3][: grid.shape[0], : grid.shape[1]] + 0.5
            seen.update(
                (tuple(middle), int(cell.argmax()))
                for middle, cell in zip(middles[grid.any(-1)], grid[grid.any(-1)], strict=True)
            )
    wanted = Counter()
    for image in images:
        height, width = image.pixels.shape[:2]
        places = [(y, x) for y in np.arange(0.5, height, 3) for x in np.arange(0.5, width, 3)]
        wanted.update((place, label) for place in places if (label := label_at(image, *place)) != IGNORED)
    assert seen == wanted
    np.testing.assert_array_equal(
        whole.counts, [sum(n for (_, label), n in wanted.items() if label == k) for k in range(3)]
    )
    # Keras weighs a batch's mean over its cells by its patches.
    assert sum(weights.mean() * len(weights) for *_, weights in batches) == pytest.approx(len(whole.places))


@pytest.mark.parametrize("shape", [(5, 5), (5, 4)])
def test_crops_are_turned_and_mirrored_but_keep_their_shape(shape):
    image = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(*shape, 2)
    split = Split(np.stack([image] * 64), np.zeros(64, int))
    kept = [move for move in MOVES if moved(image, move).shape == image.shape]
    batch = next(training_batches(split, 2, 64, 0, augment=Augment(turns=True)))[0]
    found = [next(move for move in kept if np.array_equal(moved(image, move), given)) for given in batch]
    assert len(kept) == (8 if shape == (5, 5) else 4) and set(found) == set(kept)
    later = training_batches(split, 2, 16, 0, first_step=2, augment=Augment(turns=True, colour=0.1))
    fresh = training_batches(split, 2, 16, 0, augment=Augment(turns=True, colour=0.1))
    np.testing.assert_array_equal([next(fresh)[0] for _ in range(4)][2], next(later)[0])


def test_flips_alone_never_turn_upside_down():
    moves = {draw_move(False, True, True, np.random.default_rng(seed)) for seed in range(20)}
    assert moves == {(0, False), (0, True)}
    assert {draw_move(False, False, True, np.random.default_rng(seed)) for seed in range(20)} == {(0, False)}
