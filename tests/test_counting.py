"""Counting by overlapping windows: what is trained, what adds up, what is calibrated, and what a run then holds."""

import json
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from conftest import command
from cut_trainings import check_cut
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from small_nets import HEADS, stack
from test_dense_training import NIN

import zoo
from zoo.card import Card, attach, card
from zoo.config import Config, load_config
from zoo.config.recipe import Augment
from zoo.count_evaluation import find_factor
from zoo.data import load
from zoo.errors import InputError
from zoo.network.last_layer import fold_affine, linear_layer
from zoo.network.network import Network
from zoo.objects.count_scores import CountScores, labelled_counts
from zoo.objects.marked import Objects, Scene, Scenes
from zoo.objects.window_counts import scene_counts, windows_per_pixel
from zoo.scene_scanner import SceneScanner
from zoo.scores import relative_error
from zoo.training import start, train
from zoo.training.dense import begin_at_mean
from zoo.training.jitter import moved
from zoo.training.patches import PatchForm, WholeImages, training_patches

FORM = PatchForm(size=(21, 27), window=(12, 12), stride=(3, 3), cells=(4, 6), target="count")


def scene(height, width, count=9, seed=0, classes=2, name="a"):
    """An image whose samples are the places of its pixels, with points, some on lines between pixels and on its rim."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, (height, width), (count, 2))
    centres[: count // 2] = np.round(centres[: count // 2])
    objects = Objects(centres, np.zeros((count, 2)), rng.integers(0, classes, count).astype(np.int32))
    return Scene(name, np.stack(np.mgrid[:height, :width], -1).astype(np.float32), objects, (height, width))


def scenes(*train, validation=()):
    return Scenes(("cell", "speck"), None, train, validation, (), fill=(-1.0,))


def count_at(image, top, left, window=(12, 12)):
    """How many objects of each class lie in a window, one after the other; the last line of an image is inside."""
    counts = [0, 0]
    for (y, x), index in zip(image.objects.centres, image.objects.classes, strict=True):
        y, x = (min(at, np.nextafter(side, 0)) for at, side in zip((y, x), image.image_size, strict=True))
        counts[index] += top <= y < top + window[0] and left <= x < left + window[1]
    return counts


sizes = st.integers(1, 50)


@given(sizes, sizes, st.integers(0, 12), st.integers(0, 99))
def test_windows_of_true_numbers_add_up_to_the_count_at_any_size(height, width, count, seed):
    image = scene(height, width, count, seed)
    whole = WholeImages(scenes(), [image], FORM, 4)
    sums = np.zeros(2)
    cells = 0
    for index in range(len(whole)):
        _, labels, weights = whole[index]
        # No object is in a window that is none of the image.
        np.testing.assert_array_equal(labels[weights == 0], 0)
        sums += labels.sum((0, 1, 2))
        cells += (weights > 0).sum()
    np.testing.assert_array_equal(
        sums / windows_per_pixel(FORM.window, FORM.stride), np.bincount(image.objects.classes, minlength=2)
    )
    assert cells == np.prod([-(-side // 3) + 3 for side in (height, width)])


@given(sizes, sizes, st.integers(-60, 60), st.integers(-60, 60))
def test_the_number_of_a_window_is_that_of_the_objects_in_it(height, width, top, left):
    image = scene(height, width)
    given_counts = FORM.labels(image, scenes(image), (top, left))
    wanted = [[count_at(image, top + 3 * row, left + 3 * column) for column in range(6)] for row in range(4)]
    np.testing.assert_array_equal(given_counts, wanted)


def test_a_scaled_image_has_the_numbers_of_the_given_one():
    image = scene(60, 80, count=30)
    half = Scene("half", np.zeros((30, 40, 1)), image.objects, (60, 80), (0.5, 0.5))
    starts = np.arange(-9, 40, 3)
    wanted = scene_counts(image, 2 * starts, 2 * starts, (24, 24), 2)
    np.testing.assert_array_equal(scene_counts(half, starts, starts, (12, 12), 2), wanted)


@pytest.mark.parametrize("augment", [Augment(), Augment(turns=True), Augment(flip=True)])
def test_patches_have_the_numbers_of_their_windows_however_they_are_turned(augment):
    """The samples tell where in the image each pixel is from; beyond it they are -1."""
    images = [scene(40, 33, 60), scene(34, 50, 60, seed=1)]
    patches, numbers = next(training_patches(scenes(*images), FORM, augment, 20, 40, seed=3))
    assert patches.shape == (40, 21, 27, 2) and numbers.shape == (40, 4, 6, 2)
    beyond = 0
    for patch, grid in zip(patches, numbers, strict=True):
        for row, column in np.ndindex(4, 6):
            places = patch[3 * row : 3 * row + 12, 3 * column : 3 * column + 12].reshape(-1, 2)
            inside = {tuple(place) for place in places[places[:, 0] >= 0].astype(int).tolist()}
            beyond += len(inside) < len(places)
            assert any(
                np.array_equal(
                    grid[row, column],
                    np.bincount(
                        image.objects.classes[
                            [tuple(np.minimum(at, np.subtract(image.image_size, 1)).astype(int)) in inside
                             for at in image.objects.centres]
                        ],
                        minlength=2,
                    ),
                )
                for image in images
            )  # fmt: skip
    assert beyond > 100


def test_every_window_is_in_patches_the_outermost_ones_too():
    image, rng = scene(50, 61), np.random.default_rng(0)
    drawn = np.array([[FORM.draw(axis, side, rng) for axis, side in enumerate((50, 61))] for _ in range(2000)])
    seen = np.zeros((50 + 9, 61 + 9))
    for top, left in drawn + 9:
        for row, column in np.ndindex(FORM.cells):
            seen[top + 3 * row, left + 3 * column] += 1
    assert drawn.min() == -9 and FORM.labels(image, scenes(image), tuple(drawn.max(0))).shape == (4, 6, 2)
    # A corner's window, which one place in hundreds holds, comes a quarter as often as one in the middle.
    assert seen[0, 0] > seen[20:40, 20:40].mean() / 4


def test_turned_numbers_are_those_of_the_turned_image():
    image = scene(60, 60, 80, seed=4)
    image = replace(image, objects=replace(image.objects, centres=np.round(image.objects.centres) + 0.25))
    turned = Objects(
        np.stack([60 - image.objects.centres[:, 1], image.objects.centres[:, 0]], -1),
        image.objects.sides,
        image.objects.classes,
    )
    other = replace(image, objects=turned)
    # Its turned window is open where the window was closed: no object lies on such a line.
    source, wanted = FORM.turned.labels(image, scenes(), (9, 12)), FORM.labels(other, scenes(), (60 - 12 - 21, 9))
    np.testing.assert_array_equal(moved(source, (1, False)), wanted)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_factor_and_an_offset_a_class_are_folded_exactly_or_refused(name):
    model = stack(HEADS[name])
    images = np.random.default_rng(1).uniform(0, 255, (4, *model.input_shape[1:])).astype(np.float32)
    weights, before = model.get_weights(), np.array(model(images), np.float64)
    rng = np.random.default_rng(2)
    factor, offset = rng.uniform(0.5, 2, before.shape[-1]), rng.normal(size=before.shape[-1])
    try:
        linear_layer(Network.of(model))
    except InputError as error:
        assert "an offset cannot be folded in" in str(error) or "accepted: a last layer" in str(error)
        with pytest.raises(InputError):
            fold_affine(model, factor, offset)
        assert all((old == new).all() for old, new in zip(weights, model.get_weights(), strict=True))
        return
    assert fold_affine(model, factor, offset) is model
    assert relative_error(np.array(model(images)), before * factor + offset) <= 1e-5


def test_scores_that_are_bent_or_have_no_bias_take_no_offset():
    for head in (
        lambda x: layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Conv2D(4, 1)(x))),
        lambda x: layers.Dense(4, activation="relu")(layers.Flatten()(x)),
        lambda x: layers.Dense(4, use_bias=False)(layers.Flatten()(x)),
        # Every class is another place of one channel.
        lambda x: layers.Flatten()(layers.Conv2D(1, 1)(x)),
    ):
        with pytest.raises(InputError):
            linear_layer(Network.of(stack(head)))


def test_a_new_counter_begins_at_the_mean_and_a_trained_one_where_it_is():
    model = stack(lambda x: layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    network, counts = Network.of(model), np.random.default_rng(0).poisson((3, 40), (5, 6, 7, 2))
    kernel = np.array(linear_layer(network).kernel)
    linear_layer(network).bias.assign([0.0, 0.0])
    for _ in range(2):
        begin_at_mean(network, counts)
        layer = linear_layer(network)
        np.testing.assert_allclose(layer.bias, counts.mean((0, 1, 2)), rtol=1e-5)
        np.testing.assert_allclose(layer.kernel, kernel * counts.std((0, 1, 2)), rtol=1e-5)


def test_outputs_are_counts_where_the_card_says_so_in_the_conversion_too():
    model = zoo.build(Config.model_validate(CONFIG | {"data": DATA}).model)
    assert Network.of(model).outputs_are == ("logits",)
    network = Network.of(model)
    attach(model, Card(class_names=("a", "b"), image_size=(14, 14), target="count"))
    assert network.outputs_are == ("counts",)
    assert Network.of(zoo.convolutionalize(model)).outputs_are == ("counts",)


FOUND = np.array([20.0, 55, 31, 90, 64, 140])


@pytest.mark.parametrize("factor", [0.2, 0.97, 1.0, 1.05, 3.0])
def test_a_factor_without_chance_is_found_where_it_is(factor):
    assert find_factor(factor * FOUND, FOUND) == pytest.approx(factor)


def test_nothing_labelled_or_nothing_found_is_no_factor():
    assert find_factor(np.zeros(6), FOUND) == find_factor(FOUND, np.zeros(6)) == find_factor(FOUND, -FOUND) == 1


def test_a_factor_is_drawn_towards_one_as_far_as_it_may_be_chance():
    # One image that is wrong by itself: 430 where 400 are found, 1.075; its variance 6 * 94.6 / 400^2 = 0.00355.
    assert find_factor(FOUND + [0, 0, 0, 0, 0, 30], FOUND) == pytest.approx(1 + 0.075 * 0.3695, rel=1e-4)
    # Two images, 100 found each, 100 and 104 true: 1.02, its variance 2 * 8 / 200^2 = 0.02^2.
    factor = find_factor(np.array([100.0, 104]), np.array([100.0, 100]))
    assert factor == pytest.approx(1 + 0.02 * 0.03**2 / (0.03**2 + 0.02**2))
    # Far from 1 it is no chance: 1.5, whose variance is 0.02^2 again.
    factor = find_factor(np.array([148.0, 152]), np.array([100.0, 100]))
    assert factor == pytest.approx(1 + 0.5 * (0.5**2 - 0.02**2) / 0.5**2)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.floats(0.5, 2))
def test_a_factor_lies_between_one_and_what_the_images_suggest(seed, n, factor):
    rng = np.random.default_rng(seed)
    found = rng.uniform(50, 150, n)
    true = found * factor + rng.normal(0, 10, n)
    low, high = sorted((1.0, true.sum() / found.sum()))
    assert low - 1e-12 <= find_factor(true, found) <= high + 1e-12


def test_errors_of_counts_by_hand():
    scores = CountScores.of(np.array([4.0, 0, 8]), np.array([5.0, 1, 5]), 5.0)
    assert (scores.mean_absolute_error, scores.bias, scores.mean) == (pytest.approx(5 / 3), pytest.approx(-1 / 3), 4)
    assert scores.training_mean_error == pytest.approx(3)
    low, high = scores.intervals["mean_absolute_error"]
    assert 1 <= low < 5 / 3 < high <= 3
    assert CountScores.of(np.array([4.0]), np.array([5.0]), None).intervals["bias"] is None


CONFIG = {
    "name": "counter",
    "model": NIN | {"num_classes": 2, "image_size": [14, 14]},
    "train": {
        "target": "count",
        "epochs": 8,
        "batch_size": 4,
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
        "dense": {"patch": [40, 40], "patches": 4},
        "augment": {"turns": True},
    },
    "canvas": None,
}
DATA = {"name": "scenes", "dir": "x", "labels": "y"}


def write_spots(folder, count=24):
    """Images with up to fifteen bright and five dim spots of 3 x 3 pixels on noise, and their centres in a table."""
    folder.mkdir()
    rows = ["image,x,y,class"]
    for index in range(count):
        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 30, (37, 45, 3))
        for kind, value, most in (("bright", 250, 15), ("dim", 120, 5)):
            for _ in range(rng.integers(0, most + 1)):
                y, x = rng.integers(0, (37, 45))
                pixels[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = value
                rows.append(f"{index}.png,{x},{y},{kind}")
        (folder / f"{index}.png").write_bytes(imagecodecs.png_encode(pixels.astype(np.uint8)))
    (folder.parent / f"{folder.name}.csv").write_text("\n".join(rows))
    return folder


def spots_config(folder, **recipe):
    data = {"name": "scenes", "dir": folder, "labels": f"{folder}.csv", "validation": 0.3, "test": 0.3}
    return Config.model_validate(CONFIG | {"data": data, "train": CONFIG["train"] | recipe})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run that counts, and its images."""
    folder = tmp_path_factory.mktemp("spots")
    zoo.run(spots_config(write_spots(folder / "images")), folder / "run")
    return folder


@pytest.mark.extended
def test_a_run_that_counts_is_better_than_the_training_mean_and_says_what_it_counted(finished):
    record = json.loads((finished / "run" / "evaluation.json").read_text())
    model = zoo.load(finished / "run")
    assert card(model).target == "count" and card(model).background is None
    assert card(model).class_names == ("bright", "dim") and Network.of(model).outputs_are == ("counts",)
    dense, calibration = record["dense"], record["calibration"]
    assert "accuracy" not in record and dense["n_images"] == calibration["n_test"] == len(dense["images"])
    assert dense["is_exact"]
    for name, scores in dense["counts"].items():
        errors = [each["found"][name] - each["labelled"][name] for each in dense["images"]]
        assert scores["mean_absolute_error"] == pytest.approx(np.abs(errors).mean())
        assert scores["bias"] == pytest.approx(np.mean(errors))
        # What was folded in is what was measured.
        assert calibration["classes"][name]["after"] == pytest.approx(scores["mean_absolute_error"], abs=1e-3)
    assert dense["counts"]["bright"]["mean_absolute_error"] < dense["counts"]["bright"]["training_mean_error"] / 2
    assert {path.name for path in (finished / "run").glob("*.png")} == {"curves.png", "dense.png", "filters.png"}


@pytest.mark.extended
def test_a_counters_window_is_its_grid_cell(finished):
    model, data = zoo.load(finished / "run"), load(load_config(finished / "run" / "config.yaml"))
    scene = data.scenes.test[0]
    score_map = SceneScanner(model, data.scenes).scan(scene)
    # The windows that were trained, of images with odd sides, of which true numbers add up to the count.
    form = PatchForm.of(zoo.geometry(model), (40, 40), "count")
    for axis, starts in enumerate(score_map.starts):
        assert starts[0] == form.first(axis) and -2 < starts[-1] - scene.pixels.shape[axis] < 0
    true = scene_counts(scene, *score_map.starts, (14, 14), 2)
    counts = replace(score_map, scores=true).counts()
    np.testing.assert_array_equal(list(counts.values()), labelled_counts([scene], 2)[0])
    cell = tuple(int(np.flatnonzero(each == 0)[0]) for each in score_map.starts)
    window = np.asarray(scene.pixels)[None, :14, :14].astype(np.float32)
    np.testing.assert_allclose(score_map.scores[cell], np.array(model(window))[0], rtol=1e-4, atol=1e-4)


@pytest.mark.extended
def test_commands_take_a_counter_or_refuse_it_in_a_line(finished, capsys, tmp_path):
    run, out = finished / "run", tmp_path / "counts.json"
    code, printed, _ = command(capsys, "evaluate", run, "--dense", "-o", out)
    assert code == 0 and "error of the training mean" in printed and out.with_suffix(".png").exists()
    before = json.loads((run / "evaluation.json").read_text())["dense"]
    assert json.loads(out.read_text())["counts"] == before["counts"]
    # Of other images the training mean is still known.
    others = write_spots(tmp_path / "others", count=3)
    arguments = ("--images", others, "--labels", f"{others}.csv", "-o", tmp_path / "others.json")
    assert command(capsys, "evaluate", run, "--dense", *arguments)[0] == 0
    record = json.loads((tmp_path / "others.json").read_text())
    assert record["n_images"] == 3
    assert record["counts"]["dim"]["training_mean"] == before["counts"]["dim"]["training_mean"]
    for line, text in (
        (("evaluate", run), "zoo evaluate: received a run that counts"),
        (("evaluate", run, "--against", run), "received one that counts; accepted: classifiers"),
        (("plot", run / "config.yaml", "--labels", "-o", tmp_path / "labels.png"), "train.target: received count"),
    ):
        code, _, error = command(capsys, *line)
        assert code == 2 and text in error and error.count("\n") == 1
    assert command(capsys, "plot", run)[0] == 0


@pytest.mark.extended
def test_a_finished_run_says_its_errors_again(finished, capsys):
    zoo.run(load_config(finished / "run" / "config.yaml"), finished / "run")
    assert "mean absolute error of the counts in" in capsys.readouterr().out


@pytest.mark.extended
def test_a_training_of_numbers_that_is_cut_ends_in_the_same_bits(finished, tmp_path, monkeypatch):
    recipe = {"epochs": 3, "ema": 0.9, "patience": 3, "checkpoint_every_steps": 2}
    config = spots_config(finished / "images", **recipe)
    dataset = load(config)
    *_, history = check_cut(config, dataset, tmp_path, 13, monkeypatch)
    assert {"mean_absolute_error", "val_mean_absolute_error"} <= set(history[0])


@pytest.mark.extended
def test_nothing_held_out_calibrates_nothing_and_is_said(finished, capsys, tmp_path):
    config = spots_config(finished / "images", epochs=1)
    config = config.model_copy(update={"data": config.data.model_copy(update={"validation": 0})})
    result = zoo.run(config, tmp_path / "run")
    assert "not calibrated: no images are held out for validation" in capsys.readouterr().out
    assert "calibration" not in result.evaluation


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.dense=null", "train.dense: received null beside train.target = count; accepted: patches"),
        ("train.dense.hardest=3", "train.dense.hardest: received 3 beside train.target = count; accepted: null"),
        ("train.class_weight=balanced", "train.class_weight: received balanced beside .* accepted: null"),
        ("train.label_smoothing=0.1", "train.label_smoothing: received 0.1 beside train.target = count; accepted: 0"),
        ("data.background=none", "data.background: received none; accepted with train.target = count: null"),
        ("data.marks=marks.csv", "data.marks: received .*marks.csv; accepted with train.target = count: null"),
        ("canvas={count: 4}", "canvas: received a canvas of 4 images; accepted with train.target = count: null"),
        ("data={name: digits}", "train.dense: received patches of .* accepted for data.name = digits: null"),
        ("train.target=class", "model.num_classes: received 1; accepted: at least 2, or 1 with train.target = count"),
        ("train.target=sum", "train.target"),
    ],
)
def test_keys_that_do_not_go_with_counts_are_refused(override, message, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(Config.model_validate(CONFIG | {"data": DATA}).to_yaml())
    with pytest.raises(InputError, match=message):
        load_config(path, ["model.num_classes=1", override])


@pytest.mark.extended
def test_a_model_whose_scores_are_bent_is_refused_before_it_is_trained(finished, tmp_path):
    config = spots_config(finished / "images")
    config = config.model_copy(update={"model": config.model.model_copy(update={"head": config.model.head.model_copy(
        update={"relu": True})})})  # fmt: skip
    with pytest.raises(InputError, match="train.target: received count for a model that cannot give any number"):
        start(0, True)
        train(zoo.build(config.model), load(config), config, tmp_path)
