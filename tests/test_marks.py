"""Marks: what they make of labels, how they are read, and what training makes of them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from data_sets import SCENE_SIDES, one_line, scene_parts, scenes, split_file, write_scenes
from test_dense_training import config_of
from test_dense_training import scene as training_scene
from test_patches import FORM
from test_patches import scene as patch_scene
from test_patches import scenes as patch_scenes

import zoo
from zoo.config.recipe import Augment
from zoo.data import Dataset, Split, load
from zoo.data.crops import MARKED
from zoo.errors import InputError
from zoo.objects.cell_labels import IGNORED, marked_cells, scene_labels
from zoo.objects.corrections import corrected, usual_sizes
from zoo.objects.marked import Objects, Scene, Scenes
from zoo.training.batches import NOTHING
from zoo.training.dense import DenseTraining
from zoo.training.patches import training_patches

DISC, SQUARE, NOTHING_THERE = 0, 1, 2


def marked(*marks, is_labelled=True, scale=(1.0, 1.0)):
    """A disc 12 wide at (30, 30) and a square 8 wide at (60, 60) with marks (y, x, class), corrected."""
    objects = Objects(np.array([[30.0, 30], [60, 60]]), np.array([[12.0, 12], [8, 8]]), np.array([0, 1], np.int32))
    pixels = np.zeros((round(90 * scale[0]), round(90 * scale[1]), 1), np.uint8)
    first = Scene("a", pixels, objects, (90, 90), scale)
    names = Scenes(("disc", "square", "background"), "background", (first,), (), ())
    if not is_labelled:
        first = replace(first, objects=Objects.none(), is_labelled=False)
    places, classes = np.array([mark[:2] for mark in marks], float), np.array([mark[2] for mark in marks])
    return corrected(first, places, classes, names, usual_sizes(names)), names


def rows(objects):
    return [
        (*centre, *sides, index)
        for centre, sides, index in zip(
            objects.centres.tolist(), objects.sides.tolist(), objects.classes.tolist(), strict=True
        )
    ]


OWN_DISC, OWN_SQUARE = (30.0, 30.0, 12.0, 12.0, DISC), (60.0, 60.0, 8.0, 8.0, SQUARE)
# Marks, the objects after them, and what is marked. The usual size of all objects together is 10.
CORRECTIONS = {
    "missed": ([(10, 70, 1)], [OWN_DISC, OWN_SQUARE, (10, 70, 8, 8, 1)], [(10, 70, 8, 8, 1)]),
    "right": ([(35, 30, 0)], [OWN_DISC, OWN_SQUARE], [OWN_DISC]),
    "of another class": ([(31, 32, 1)], [(30, 30, 12, 12, 1), OWN_SQUARE], [(30, 30, 12, 12, 1)]),
    "another one in its ring": ([(34, 30, 1)], [OWN_DISC, OWN_SQUARE, (34, 30, 8, 8, 1)], [(34, 30, 8, 8, 1)]),
    "none": ([(31, 32, 2)], [OWN_SQUARE], [(31, 32, 10, 10, 2)]),
    "nothing beside it": ([(34, 30, 2)], [OWN_DISC, OWN_SQUARE], [(34, 30, 10, 10, 2)]),
    "nothing, then a disc": (
        [(10, 10, 2), (11, 10, 0)],
        [OWN_DISC, OWN_SQUARE, (11, 10, 12, 12, 0)],
        [(11, 10, 12, 12, 0)],
    ),
    "a disc, then nothing": ([(10, 10, 0), (11, 10, 2)], [OWN_DISC, OWN_SQUARE], [(11, 10, 10, 10, 2)]),
    "one class, then another": ([(60, 61, 0), (61, 60, 1)], [OWN_DISC, OWN_SQUARE], [OWN_SQUARE]),
}


@pytest.mark.parametrize("what", CORRECTIONS)
def test_marks_correct_labels(what):
    marks, objects, marks_after = CORRECTIONS[what]
    image, _ = marked(*marks)
    assert rows(image.objects) == [tuple(map(float, row)) for row in objects]
    assert rows(image.marks) == [tuple(map(float, row)) for row in marks_after]


def test_of_an_image_at_another_scale_an_added_object_has_the_usual_size_there():
    image, names = marked((10, 70, 1), scale=(0.5, 2.0))
    assert usual_sizes(names).tolist() == [12, 8, 10] and rows(image.objects)[-1] == (10, 70, 16, 4, 1)


def grid(side=90, step=2):
    return np.arange(step / 2, side, step)


def test_an_image_without_labels_is_known_at_its_marks_alone():
    image, names = marked((30, 30, 2), (60, 60, 0), is_labelled=False)
    labels = scene_labels(image, names, grid(), grid(), (2, 2))
    y, x = np.meshgrid(grid(), grid(), indexing="ij")
    wanted = np.full(labels.shape, IGNORED)
    wanted[np.hypot(y - 30, x - 30) <= 2.5] = NOTHING_THERE
    wanted[np.hypot(y - 60, x - 60) <= 3] = DISC
    np.testing.assert_array_equal(labels, wanted)
    np.testing.assert_array_equal(marked_cells(image, names, grid(), grid(), (2, 2)), wanted != IGNORED)


def test_a_place_of_nothing_is_background_in_a_ring_and_leaves_the_rest_of_it():
    image, names = marked((34.5, 30, 2))
    before, _ = marked()
    labels, old = (scene_labels(each, names, grid(), grid(), (2, 2)) for each in (image, before))
    y, x = np.meshgrid(grid(), grid(), indexing="ij")
    near = np.hypot(y - 34.5, x - 30) <= 2.5
    assert (labels[~near] == old[~near]).all() and (old[near] == IGNORED).any()
    nearer = near & (np.hypot(y - 34.5, x - 30) / 5 < np.hypot(y - 30, x - 30) / 6)
    assert (labels[nearer] == NOTHING_THERE).all() and (labels[near & ~nearer] == old[near & ~nearer]).all()


def with_marks(root, text, name="marks.csv"):
    (root / name).write_text("image,x,y,class\n" + text)
    return root / name


def without_labels(root, *names):
    lines = (root / "points.csv").read_text().splitlines(True)
    (root / "points.csv").write_text("".join(line for line in lines if not line.startswith(names)))


SPLIT = [(f"{index}.tif", {0: "test", 1: "validation"}.get(index, "train")) for index in range(6)]


def test_marks_are_added_to_the_labels_of_their_images(tmp_path):
    root = write_scenes(tmp_path, 6)
    split = split_file(root, SPLIT)
    text = "2.TIF,40.5,5.5,disc\nimages/2.tif,32.0,22.5,\n3.tif,13.4,15.6,square\n2.TIF,99.0,5.5,disc\n"
    marks = with_marks(root, text)
    before, data = load(scenes(root, split=split)), load(scenes(root, split=split, marks=marks))
    assert scene_parts(data) == scene_parts(before)
    images = {scene.name: scene for scene in data.scenes.train}
    # A point reaches as far as its tolerance, 4. The square of one image is none, the disc of the other a square.
    assert rows(images["2.tif"].objects) == [(14.5, 12.5, 0, 0, 0), (5.5, 40.5, 8, 8, 0)]
    assert rows(images["2.tif"].marks) == [(5.5, 40.5, 8, 8, 0), (22.5, 32, 8, 8, 2)]
    assert images["3.tif"].objects.classes.tolist() == [1, 1] and len(images["3.tif"].marks) == 1
    assert data.protocol.endswith("; 3 marks on 2 training images")
    assert "1 of 4 marks is left out, lying outside the image: 2.tif at (99, 5.5)" in map(str, data.faults)
    assert data.fingerprint != before.fingerprint and data.test_fingerprint == before.test_fingerprint


def test_whole_numbers_are_indices_of_pixels_and_text_of_marks_may_be_a_spreadsheets(tmp_path):
    root = write_scenes(tmp_path, 6)
    split, marks = split_file(root, SPLIT), root / "marks.csv"
    marks.write_bytes("\ufeffClass;X;Y;Image\r\ndisc;40;5;2.tif\r\nbackground;3;30;2.tif\r\n".encode())
    image = next(each for each in load(scenes(root, split=split, marks=marks)).scenes.train if each.name == "2.tif")
    assert rows(image.marks) == [(5.5, 40.5, 8, 8, 0), (30.5, 3.5, 8, 8, 2)]


@pytest.mark.parametrize("unlabelled", ["refuse", "skip", "background"])
@pytest.mark.parametrize("divided", [False, True])
def test_an_image_without_labels_that_is_marked_is_trained_on_and_moves_no_other(tmp_path, unlabelled, divided):
    root = write_scenes(tmp_path, 14)
    without_labels(root, "7.tif", "8.tif", *(["9.tif"] if unlabelled != "refuse" else []))
    split = None
    if divided:
        rows = [(f"{index}.tif", ["test", "validation", "train"][min(index, 2)]) for index in range(14)]
        split = split_file(
            root, rows if unlabelled != "skip" else [row for row in rows if row[0] not in ("7.tif", "8.tif")]
        )
    before = scene_parts(load(scenes(root, unlabelled="skip" if unlabelled == "refuse" else unlabelled, split=split)))
    marks = with_marks(root, "7.tif,10.5,10.5,disc\n8.tif,3.5,30.5,\n")
    options = {"unlabelled": unlabelled, "split": split, "marks": marks}
    if unlabelled == "background" and not {"7.tif", "8.tif"} <= before["train"]:
        with pytest.raises(InputError, match="held out for validation or testing"):
            load(scenes(root, **options))
        return
    data = load(scenes(root, **options))
    assert scene_parts(data) == {**before, "train": before["train"] | {"7.tif", "8.tif"}}
    alone = {image.name: image for image in data.scenes.train if not image.is_labelled}
    assert set(alone) == {"7.tif", "8.tif"} and rows_of(alone["7.tif"]) == [(10.5, 10.5, DISC)]
    assert not len(alone["8.tif"].objects) and len(alone["8.tif"].marks) == 1
    assert "are trained on at marks alone, having no labels: 7.tif, 8.tif" in "; ".join(map(str, data.faults))
    assert len(data.scenes.labelled) == len(data.scenes.train) - 2


def rows_of(image):
    return [(y, x, index) for y, x, _, _, index in rows(image.marks)]


def test_a_marked_copy_of_an_image_that_is_held_out_is_refused(tmp_path):
    root = write_scenes(tmp_path, 6)
    without_labels(root, "5.tif")
    split, marks = split_file(root, SPLIT[:5]), with_marks(root, "5.tif,10.5,10.5,disc\n")
    assert "5.tif" in scene_parts(load(scenes(root, split=split, marks=marks)))["train"]
    (root / "images" / "5.tif").write_bytes((root / "images" / "0.tif").read_bytes())
    with pytest.raises(InputError, match=r"marks on 1 images held out for validation or testing \(5.tif\)") as raised:
        load(scenes(root, split=split, marks=marks))
    one_line(raised)


def test_a_marked_image_of_a_specimen_that_is_held_out_is_refused(tmp_path):
    root = write_scenes(tmp_path, 12)
    for index in range(12):
        (root / "images" / f"s{index % 4}").mkdir(exist_ok=True)
        (root / "images" / f"{index}.tif").rename(root / "images" / f"s{index % 4}" / f"{index}.tif")
    options = {"group": "s[0-9]", "unlabelled": "skip"}
    without_labels(root, *(f"{index}.tif" for index in range(4)))
    parts = scene_parts(load(scenes(root, **options)))
    # An image without labels of a specimen that is held out, and of one that is not.
    held_out, kept = (f"s{name}/{name}.tif" for name in (sorted(parts[part])[0][1] for part in ("test", "train")))
    with pytest.raises(InputError, match="held out for validation or testing"):
        load(scenes(root, **options, marks=with_marks(root, f"{held_out},10.5,10.5,disc\n")))
    data = load(scenes(root, **options, marks=with_marks(root, f"{kept},10.5,10.5,disc\n")))
    assert scene_parts(data) == {**parts, "train": parts["train"] | {kept}}


REFUSED = {
    "held out": ("0.tif,10.5,10.5,disc\n1.tif,3.5,3.5,\n", r"marks on 2 images held out for .* \(1.tif, 0.tif\); acc"),
    "unknown image": (
        "9.tif,10.5,10.5,disc\n",
        r"1 images that are not in data.dir \(9.tif\); accepted: those",
    ),
    "unknown class": ("2.tif,10.5,10.5,dics\n", r"marks.csv: .*'dics'.*disc"),
    "no mark": ("", "received no mark; accepted: a .csv file with a row image,x,y,class for each mark"),
    "no image": (",10.5,10.5,disc\n", "received marks without an image; accepted: a .csv file with a row"),
    "no place": ("2.tif,,10.5,disc\n", "marks.csv"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_marks_that_cannot_be_used_are_refused_in_one_line(tmp_path, what):
    root = write_scenes(tmp_path, 6)
    text, message = REFUSED[what]
    with pytest.raises(InputError, match=message) as raised:
        load(scenes(root, split=split_file(root, SPLIT), marks=with_marks(root, text)))
    assert "data.marks" in one_line(raised) or "marks.csv" in one_line(raised)


def test_files_of_marks_that_are_none_are_refused(tmp_path):
    root = write_scenes(tmp_path, 6)
    (root / "boxes.csv").write_text("image,left,top,right,bottom,class\n2.tif,1,1,5,5,disc\n")
    for name, message in (
        ("gone.csv", "gone.csv: cannot be read"),
        ("marks.geojson", "data.marks: received '.*marks.geojson'; accepted: a .csv file"),
        ("boxes.csv", "received boxes in 2.tif; accepted: a .csv file with a row image,x,y,class"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            load(scenes(root, split=split_file(root, SPLIT), marks=root / name))
        one_line(raised)


def test_crops_at_marks_are_a_share_of_all_and_lie_where_their_cells_do(tmp_path):
    root = write_scenes(tmp_path, 16)
    without_labels(root, "9.tif")
    names = [(f"{index}.tif", {0: "test", 1: "validation"}.get(index, "train")) for index in range(16)]
    options = {"split": split_file(root, [row for row in names if row[0] != "9.tif"]), "unlabelled": "skip"}
    before = load(scenes(root, **options)).train
    data = load(scenes(root, **options, marks=with_marks(root, "9.tif,30.5,20.5,\n9.tif,10.5,8.5,disc\n")))
    added = len(data.train) - len(before)
    assert added / len(data.train) == pytest.approx(MARKED, abs=0.05)
    assert "copy" not in {each.kind for each in data.faults}
    own = [at for at, name in enumerate(data.train.records.names) if name.startswith("9.tif")]
    assert len(own) == added and set(data.train.labels[own]) == {DISC, NOTHING_THERE}
    (image,) = (each for each in data.scenes.train if each.name == "9.tif")
    for at in own:
        y, x = (30.5, 20.5)[::-1] if data.train.labels[at] else (8.5, 10.5)
        found = [
            (top, left)
            for top in range(SCENE_SIDES[0] - 7)
            for left in range(SCENE_SIDES[1] - 7)
            if (image.pixels[top : top + 8, left : left + 8] == data.train.images[at]).all()
        ]
        assert min(np.hypot(top + 4 - y, left + 4 - x) for top, left in found) <= 2 + np.sqrt(0.5)


def test_patches_are_about_marks_as_often_as_they_are_to_be():
    """The samples tell where in the image each pixel is from, and of which image it is."""
    first = patch_scene(70, 61)
    at = np.array([[52.0, 40.0], [3.0, 58.0]])
    marks = Objects(at, np.full((2, 2), 10.0), np.array([2, 0], np.int32))
    alone = replace(
        first, pixels=first.pixels + 1000, objects=marks.at(marks.classes < 2), marks=marks, is_labelled=False
    )
    batches = training_patches(patch_scenes(first, alone), FORM, Augment(turns=True), 400, 100, seed=5)
    counts = Counter()
    for _ in range(4):
        images, labels, are_marked = next(batches)
        assert are_marked.shape == labels.shape[:3] and are_marked.dtype == np.float32
        for patch, grid_labels, own in zip(images, labels, are_marked, strict=True):
            is_alone = patch.max() >= 1000
            counts[is_alone] += 1
            if not is_alone:
                assert not own.any()
                continue
            middles = patch[7::3, 7::3][: own.shape[0], : own.shape[1]] + 0.5 - 1000
            distances = np.hypot(*np.moveaxis((middles[:, :, None] - at) / 5, -1, 0))
            near = distances.min(-1) <= 0.5
            assert near.any()
            np.testing.assert_array_equal(own > 0, near)
            np.testing.assert_array_equal(grid_labels.sum(-1) > 0, near)
            assert (grid_labels.argmax(-1)[near] == marks.classes[distances.argmin(-1)[near]]).all()
    assert counts[True] / 400 == pytest.approx(MARKED, abs=0.07)
    again = training_patches(patch_scenes(first, alone), FORM, Augment(turns=True), 400, 100, seed=5, first_step=3)
    for one, other in zip(next(again), (images, labels, are_marked), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_step_of_dense_training_takes_marks(monkeypatch):
    """An epoch is as long as labelled images make it, and the cells of marks reach the loss."""
    alone = replace(training_scene("alone", 9), objects=Objects.none(), is_labelled=False)
    marks = Objects(np.array([[10.0, 12.0]]), np.array([[9.0, 9.0]]), np.array([2], np.int32))
    images = (*(training_scene(f"{seed}", seed) for seed in range(3)), replace(alone, marks=marks))
    names = Scenes(("large", "small", "background"), "background", images, images[:1], images[:1])
    crops = Split(np.zeros((6, 14, 14, 3), np.uint8), np.arange(6) % 3)
    dataset = Dataset("scenes", names.class_names, crops, crops, crops, "", "", "", scenes=names)
    config = config_of(dense={"patch": [25, 31], "patches": 5, "hardest": 2}, class_weight="balanced")
    course = DenseTraining(zoo.build(config.model), dataset, config)
    assert course.steps == 5
    seen, real = [], type(course.trainer).cell_weights

    def weights(self, y, logits, are_marked=None):
        seen.append(are_marked is not None)
        return real(self, y, logits, are_marked)

    monkeypatch.setattr(type(course.trainer), "cell_weights", weights)
    course.trainer.run_eagerly = True
    logs = course.trainer.fit(course.batches(0), steps_per_epoch=1, shuffle=False, verbose=0)
    assert seen and all(seen) and np.isfinite(logs.history["loss"]).all()


def test_without_marks_batches_are_pairs():
    assert len(next(training_patches(patch_scenes(patch_scene(70, 61)), FORM, NOTHING, 4, 4, seed=5))) == 2
