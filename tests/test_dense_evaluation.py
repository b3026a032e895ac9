"""Whole labelled images: bright discs on dark ground, a template that finds them, and what is known of both."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from zoo.card import Card, Peaks, attach, card
from zoo.dense_evaluation import calibrate_on_scenes, evaluate_dense
from zoo.dense_plots import dense
from zoo.objects.cell_labels import IGNORED, scene_labels
from zoo.objects.marked import Objects, Scene, Scenes
from zoo.scores import relative_error

SIDE, RADIUS = 9, 3
NAMES = ("disc", "square", "nothing")


def shapes():
    """The pixels of a window with a disc, and with a square of the same side, (9, 9) bool each."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    square = np.maximum(abs(y), abs(x)) <= RADIUS
    return np.hypot(y, x) <= RADIUS, square


def finder(sharpness=1.0):
    """A classifier of 9 x 9 pixels that is a template of each shape; its conversion has stride 1."""
    image = keras.Input((SIDE, SIDE, 1))
    model = keras.Model(image, layers.Dense(3, name="logits")(layers.Flatten()(image)))
    # Of a whole disc 29 - 25, of a whole square 49 - 40; whatever is too much counts twice, and "nothing" has 0.
    kernel = np.stack([np.where(each, 1.0, -2.0).ravel() / 200 for each in shapes()] + [np.zeros(SIDE**2)], -1)
    model.layers[-1].set_weights([sharpness * kernel, sharpness * np.array([-25.0, -40.0, 0.0])])
    return attach(model, Card(class_names=NAMES, background="nothing", image_size=(SIDE, SIDE), dtype="uint8"))


def scene(name, *rows, size=(60, 50), scale=(1.0, 1.0), unlabelled=()):
    """An image with shapes at (class, y, x), whole pixels; `unlabelled` ones have no label."""
    pixels = np.zeros((*size, 1), np.uint8)
    for kind, y, x in (*rows, *unlabelled):
        pixels[y - 4 : y + 5, x - 4 : x + 5, 0] = np.maximum(
            pixels[y - 4 : y + 5, x - 4 : x + 5, 0], 200 * shapes()[kind]
        )
    centres = np.array([(y + 0.5, x + 0.5) for _, y, x in rows]).reshape(-1, 2)
    objects = Objects(
        centres, np.full((len(rows), 2), 2.0 * RADIUS + 1), np.array([kind for kind, *_ in rows], np.int32)
    )
    given = Objects(objects.centres / scale, objects.sides / scale, objects.classes)
    return Scene(name, pixels, given, tuple(round(side / by) for side, by in zip(size, scale, strict=True)), scale)


ROWS = ((0, 10, 10), (0, 30, 12), (1, 11, 34), (1, 45, 40), (0, 5, 44), (1, 54, 4))


def scenes(*test, validation=()):
    return Scenes(NAMES, "nothing", (), tuple(validation), tuple(test))


def with_peaks(model, **peaks):
    """The model with a threshold and a distance of each class."""
    known = {name: Peaks(threshold=threshold, distance=3) for name, threshold in peaks.items()}
    return attach(model, Card.model_validate({**card(model).model_dump(), "peaks": known}))


def test_what_is_there_is_found_and_nothing_else():
    result = evaluate_dense(
        with_peaks(finder(), disc=0.5, square=0.5), scenes(scene("a", *ROWS), scene("b", *ROWS[:3]))
    )
    assert result.n_images == 2
    for name, count in (("disc", 5), ("square", 4)):
        each = result.classes[name]
        assert (each.precision, each.recall, each.f1, each.average_precision, each.n) == (1, 1, 1, 1, count)
        assert each.threshold == 0.5 and each.intervals["f1"] == (1, 1)
    assert "nothing" not in result.classes and result.micro.f1 == result.macro.f1 == 1
    assert all(each.errors == 0 for each in result.images)


def test_places_are_in_pixels_of_the_given_image():
    scaled = scene("a", *ROWS, scale=(0.5, 0.25))
    assert scaled.image_size == (120, 200)
    result = evaluate_dense(with_peaks(finder(), disc=0.5, square=0.5), scenes(scaled))
    assert result.micro.f1 == 1
    (image,) = result.images
    np.testing.assert_allclose(image.found.centres, scaled.objects.centres[image.matches], atol=1e-3)


def test_missed_and_false_objects_are_counted_by_class_and_by_image():
    ghost = scene("ghost", *ROWS[:2], size=(60, 50))
    missing = Objects.none()
    broken = Scene("broken", ghost.pixels, missing, ghost.image_size)  # two discs without a label
    blank = scene("blank", *ROWS[2:4])
    dark = Scene("dark", np.zeros_like(blank.pixels), blank.objects, blank.image_size)  # two squares that are not there
    result = evaluate_dense(with_peaks(finder(), disc=0.5, square=0.5), scenes(ghost, broken, blank, dark))
    disc, square = result.classes["disc"], result.classes["square"]
    assert (disc.precision, disc.recall, disc.f1, disc.hits, disc.found, disc.n) == (0.5, 1, 2 / 3, 2, 4, 2)
    assert (square.precision, square.recall, square.hits, square.found, square.n) == (1, 0.5, 2, 2, 4)
    assert [each.errors for each in result.images] == [0, 2, 0, 2]
    assert disc.intervals["precision"][0] < 0.5 < disc.intervals["precision"][1]
    assert result.micro.precision == pytest.approx(4 / 6) and result.micro.recall == pytest.approx(4 / 6)


def test_a_threshold_that_nothing_reaches_finds_nothing_and_leaves_average_precision():
    result = evaluate_dense(with_peaks(finder(), disc=1.0, square=0.5), scenes(scene("a", *ROWS)))
    disc = result.classes["disc"]
    assert (disc.precision, disc.recall, disc.found) == (None, 0, 0) and disc.average_precision == 1


def test_accuracy_by_location_is_that_of_every_crop_and_the_crops_agree():
    model, there = with_peaks(finder(), disc=0.5, square=0.5), scene("a", *ROWS)
    result = evaluate_dense(model, scenes(there))
    padded = np.pad(there.pixels, ((4, 4), (4, 4), (0, 0)), "reflect")
    middles = [np.arange(side) + 0.5 for side in there.image_size]
    labels = scene_labels(there, scenes(there), *middles, (1, 1))
    right, total = np.zeros(3, int), np.zeros(3, int)
    crops = np.stack([padded[y : y + SIDE, x : x + SIDE] for y, x in np.argwhere(labels != IGNORED)]).astype("float32")
    answers = np.asarray(model(crops)).argmax(-1)
    for label, answer in zip(labels[labels != IGNORED], answers, strict=True):
        total[label] += 1
        right[label] += label == answer
    place = result.by_location
    assert [place.classes[name].n for name in NAMES] == total.tolist() and place.overall.n == total.sum()
    assert [place.classes[name].accuracy for name in NAMES] == pytest.approx((right / total).tolist())
    assert place.overall.accuracy == pytest.approx(right.sum() / total.sum())
    assert result.crops.n == min(1024, total.sum()) and result.crops.agreement == 1
    assert result.crops.accuracy == result.crops.accuracy_by_location
    assert result.crops_cost.multiply_adds == result.crops.n * SIDE * SIDE * 3
    # The map, one pass: each cell of a net of one layer costs what its crop does.
    assert result.dense_cost.multiply_adds == result.dense_cost.cells * SIDE * SIDE * 3


@pytest.mark.extended
def test_calibration_folds_a_temperature_and_finds_thresholds_on_validation_images(capsys):
    generator = np.random.default_rng(0)
    noisy = []
    for index, brightness in enumerate((0.84, 0.92, 1.0) * 2):
        clean = scene(f"{index}", *ROWS)
        pixels = brightness * clean.pixels + generator.normal(0, 8, clean.pixels.shape)
        noisy.append(Scene(clean.name, np.clip(pixels, 0, 255).astype(np.uint8), clean.objects, clean.image_size))
    both = scenes(*noisy[:3], validation=noisy[3:])
    model, twin = finder(sharpness=2), finder(sharpness=2)
    result = calibrate_on_scenes(model, both)
    assert result.of == "grid cells" and 1 < result.temperature < 10
    assert result.after.loss < result.before.loss
    assert capsys.readouterr().out.startswith("calibrated on ")
    crops = generator.integers(0, 255, (5, SIDE, SIDE, 1)).astype("float32")
    assert relative_error(np.asarray(model(crops)), np.asarray(twin(crops)) / result.temperature) <= 1e-6
    peaks = card(model).peaks
    assert set(peaks) == {"disc", "square"}
    assert all(0 < each.threshold < 1 and each.distance in (1.75, 3.5, 5.25, 7) for each in peaks.values())
    # With these thresholds no validation image's F1 is lower than with any other one.
    own = Scenes(NAMES, "nothing", (), (), both.validation)
    best = {name: evaluate_dense(model, own).classes[name].f1 for name in peaks}
    for other in (0.3, 0.5, 0.7, 0.9):
        moved = with_peaks(model, **{name: other for name in peaks})
        for name in peaks:
            again = Card.model_validate({**card(moved).model_dump(), "peaks": {
                key: {"threshold": other, "distance": peaks[key].distance} for key in peaks}})  # fmt: skip
            assert evaluate_dense(attach(moved, again), own).classes[name].f1 <= best[name] + 1e-12
    test = evaluate_dense(attach(model, Card.model_validate({**card(model).model_dump(), "peaks": peaks})), both)
    assert test.by_location.reliability.expected_calibration_error == pytest.approx(
        result.after.expected_calibration_error, abs=1e-4
    )


def test_the_result_as_json_and_as_a_picture(tmp_path):
    pictures = [scene(f"{index}", *ROWS[: index + 1], unlabelled=ROWS[index + 1 :]) for index in range(3)]
    result = evaluate_dense(with_peaks(finder(), disc=0.5, square=0.5), scenes(*pictures))
    record = json.loads(json.dumps(result.to_dict()))
    assert record["n_images"] == 3 and record["classes"]["disc"]["f1"] == result.classes["disc"].f1
    assert {"precision", "recall", "f1", "average_precision", "n", "threshold", "intervals"} <= set(
        record["classes"]["disc"]
    )
    assert record["accuracy_by_location"]["classes"]["nothing"]["n"] > 0
    assert record["cost"]["dense"]["seconds"] > 0 and record["tolerance"] is None
    assert dense(result, tmp_path / "dense.png").read_bytes().startswith(b"\x89PNG")
    assert "all together" in [row[0] for row in result.rows()] and "by crops" in result.sentences()


def test_average_precision_is_over_peaks_at_every_score_also_where_another_class_wins():
    """Of three discs one is so dim that "nothing" wins there, and it still ranks above all that is none."""
    dim = scene("dim", (0, 10, 10), (0, 30, 12), (0, 45, 30))
    dim.pixels[40:51, 25:36] //= 2
    result = evaluate_dense(with_peaks(finder(), disc=0.5, square=0.5), scenes(dim))
    disc = result.classes["disc"]
    assert (disc.precision, disc.recall, disc.found) == (1, 2 / 3, 2)
    matches = result.curves["disc"]
    assert matches.hits[:3].all() and matches.scores[2] < 0.5 and len(matches.scores) > 3 and matches.hits.sum() == 3
    assert disc.average_precision == 1


def test_a_class_that_no_validation_image_shows_has_its_size_from_training_images():
    shown, other = scene("shown", *ROWS), scene("other", *ROWS[:2])
    model = finder()
    calibrate_on_scenes(model, Scenes(NAMES, "nothing", (shown,), (other, other), (other,)))
    square = card(model).peaks["square"]
    assert (square.threshold, square.distance, square.margin) == (0, 3.5, 0)
