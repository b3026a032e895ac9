"""Training on the grid is training on all its windows at once: gradients, losses, and whole trainings."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import noise, randomize, some_by_default
from cut_trainings import check_cut, trained
from keras import layers
from small_nets import HEADS, stack

import zoo
from zoo.config import Config, load_config
from zoo.convert.copy import in_dtype
from zoo.data import Dataset, Split
from zoo.errors import InputError
from zoo.models.inception import InceptionConfig
from zoo.models.nin import NINConfig
from zoo.models.resnet import ResNetConfig
from zoo.network.network import Network
from zoo.objects.cell_labels import cell_labels
from zoo.objects.marked import Objects, Scene, Scenes
from zoo.scores import relative_error, to_probabilities
from zoo.training.dense import MARK_WEIGHT, DenseTraining, check_model, check_weights, grid_trainer
from zoo.training.recipe import balanced, trainer

NIN = {
    "family": "nin",
    "num_classes": 3,
    "channels": 3,
    "image_size": [14, 14],
    "padding": "valid",
    "normalization": "batch",
    "mlpconvs": [
        {"kernel": 3, "filters": [8, 6], "pool": {"kind": "max", "size": 2, "stride": 2}},
        {"kernel": 3, "filters": [8]},
    ],
}
BOTTLENECKS = {
    "family": "resnet",
    "variant": "v2",
    "num_classes": 3,
    "image_size": [20, 22],
    "padding": "valid",
    "stem": {"kernel": 3, "filters": 8},
    "stages": [{"blocks": 1, "width": 4, "filters": 8}, {"blocks": 2, "width": 4, "filters": 12, "stride": 2}],
}
MODULES = {
    "family": "inception",
    "num_classes": 3,
    "image_size": [26, 26],
    "padding": "valid",
    "stem": ["3x3 8"],
    "modules": [
        {"name": "3a", "conv1": 4, "reduce3": 4, "conv3": 6, "reduce5": 2, "conv5": 4, "pool_proj": 4,
         "pool": "max 3x3/2"},
        {"name": "3b", "conv1": 4, "reduce3": 4, "conv3": 6, "reduce5": 2, "conv5": 4, "pool_proj": 4},
    ],
}  # fmt: skip


MODELS = {
    "nin": lambda: zoo.build(NINConfig.model_validate(NIN)),
    "flatten": lambda: zoo.build(NINConfig.model_validate({**NIN, "head": {"kind": "flatten", "hidden": [7]}})),
    "bottlenecks": lambda: zoo.build(ResNetConfig.model_validate(BOTTLENECKS)),
    "inception": lambda: zoo.build(InceptionConfig.model_validate(MODULES)),
    "max": lambda: stack(lambda x: layers.Dense(3)(layers.GlobalMaxPooling2D()(x))),
}


def gradients(model, images, labels):
    """Those of the summed cross-entropy, flat, by weight; normalisations by their moving averages."""
    import tensorflow as tf

    @tf.function
    def made(images, labels):
        with tf.GradientTape() as tape:
            logits = tf.reshape(model(images, training=False), (-1, 3))
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_sum(losses)
        return tape.gradient(loss, [weight.value for weight in model.trainable_weights])

    values = made(images, labels.ravel())
    return {weight.path: np.ravel(value) for weight, value in zip(model.trainable_weights, values, strict=True)}


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-9), ("float32", 1e-4)])
@pytest.mark.parametrize("name", some_by_default(MODELS))
def test_the_gradient_of_a_grid_is_the_sum_of_its_crops(name, dtype, bound):
    model = randomize(MODELS[name]())
    if dtype == "float64":
        model = in_dtype(Network.of(model), dtype).model
    converted = zoo.convolutionalize(model)
    geometry = zoo.geometry(converted)
    height, width = (side + 5 * stride for side, stride in zip(geometry.window_sides, geometry.stride, strict=True))
    # Two: at the kernel's gradient of a strided 1x1 convolution of one image TensorFlow may end the process.
    images = noise(2, height, width, 3).astype(dtype)
    labels = np.random.default_rng(1).integers(0, 3, (2, 6, 6))
    boxes = [geometry.cell_box(row, column) for row in range(6) for column in range(6)]
    crops = np.stack([image[top:bottom, left:right] for image in images for top, left, bottom, right in boxes])
    wanted, given = gradients(model, crops, labels), gradients(converted, images, labels)
    assert len(wanted) == len(given) == len(model.trainable_weights)
    # A hidden unit that no crop excites has no gradient.
    assert sum(np.abs(value).max() > 0 for value in wanted.values()) >= len(wanted) - 1
    for path, value in wanted.items():
        assert relative_error(given[path], value) <= bound if np.abs(value).max() else not given[path].any(), path


def scene(name, seed, shape=(34, 40)):
    """Bright discs, large ones of class 0 and small ones of class 1, on noise."""
    rng = np.random.default_rng(seed)
    places, pixels = np.stack(np.mgrid[: shape[0], : shape[1]], -1) + 0.5, rng.integers(0, 60, (*shape, 3))
    centres, classes = rng.uniform((3, 3), np.array(shape) - 3, (4, 2)), rng.integers(0, 2, 4)
    sides = np.where(classes[:, None], 6.0, 11.0) * [1, 1]
    for centre, side in zip(centres, sides, strict=True):
        pixels[(np.hypot(*np.moveaxis(places - centre, -1, 0)) < side[0] / 2)] += 150
    return Scene(name, pixels.astype(np.uint8), Objects(centres, sides, classes.astype(np.int32)), shape)


@pytest.fixture(scope="module")
def dataset():
    parts = {"train": range(5), "validation": range(5, 8), "test": range(8, 9)}
    images = {part: tuple(scene(f"{seed}", seed, (30 + seed, 41)) for seed in seeds) for part, seeds in parts.items()}
    scenes = Scenes(("large", "small", "background"), "background", **images, fill=(90.0,))
    crops = Split(np.zeros((6, 14, 14, 3), np.uint8), np.arange(6) % 3)
    return Dataset("scenes", scenes.class_names, crops, crops, crops, "", "", "", scenes=scenes)


def config_of(model=NIN, **changes):
    recipe = {
        "epochs": 2,
        "batch_size": 3,
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
        "dense": {"patch": [25, 31], "patches": 4},
        **changes,
    }
    return Config.model_validate(
        {"name": "x", "data": {"name": "scenes", "dir": "x", "labels": "y"}, "model": model, "train": recipe}
    )


EVERYTHING = {
    "ema": 0.8,
    "accumulate": 2,
    "patience": 5,
    "clip_norm": 1.0,
    "freeze": "mlpconv1_conv1",
    "label_smoothing": 0.1,
    "class_weight": "balanced",
    "dense": {"patch": [25, 31], "patches": 4, "hardest": 2},
    "augment": {"turns": True, "brightness": 0.1, "colour": 0.1},
    "checkpoint_every_steps": 4,
}


@pytest.mark.extended
def test_a_training_that_is_cut_ends_in_the_same_bits(dataset, tmp_path, monkeypatch):
    """With everything of the recipe that goes with dense training; six steps an epoch, a checkpoint every four."""
    config = config_of({**NIN, "mlpconvs": [{**NIN["mlpconvs"][0], "dropout": 0.2}, NIN["mlpconvs"][1]]}, **EVERYTHING)
    whole, first, history = check_cut(config, dataset, tmp_path, 10, monkeypatch)
    assert [*history[0]] == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate"]
    kept = dict(zip((weight.path for weight in whole.weights), first, strict=True))
    for weight in whole.weights:
        assert np.array_equal(weight, kept[weight.path]) == weight.path.startswith("mlpconv1_conv1"), weight.path
    assert (tmp_path / "whole/history.csv").read_text() == (tmp_path / "cut/history.csv").read_text()


@pytest.mark.extended
def test_validation_is_over_the_labelled_cells_of_whole_images_and_the_classifier_learns(dataset, tmp_path):
    head = {"kind": "flatten", "hidden": [8]}
    config = config_of({**NIN, "normalization": "none", "head": head}, epochs=6)
    model, _, history = trained(config, dataset, tmp_path)
    converted = zoo.convolutionalize(model)
    losses, right = [], []
    for image in dataset.scenes.validation:
        # The windows of 14 pixels at stride 2 whose middles are in the image.
        border = [(7, 7 + side % 2) for side in image.pixels.shape[:2]]
        score_map = zoo.scan(converted, np.pad(image.pixels, (*border, (0, 0)), constant_values=90))
        rows, columns = (np.arange(0, side, 2) for side in image.pixels.shape[:2])
        labels = cell_labels(image.objects, rows, columns, 2, (2, 2))
        scores = score_map.scores[: len(rows), : len(columns)][labels >= 0]
        chosen = to_probabilities(scores, "logits")[np.arange(len(scores)), labels[labels >= 0]]
        losses.append(-np.log(chosen))
        right.append(scores.argmax(-1) == labels[labels >= 0])
    assert history[-1]["val_loss"] == pytest.approx(np.concatenate(losses).mean(), rel=1e-4)
    assert history[-1]["val_accuracy"] == pytest.approx(np.concatenate(right).mean(), abs=1e-6)
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


def test_bfloat16_trains_the_same_classifier(dataset, tmp_path):
    model, first, history = trained(config_of(precision="bfloat16", epochs=1), dataset, tmp_path)
    assert {weight.dtype for weight in model.weights} == {"float32"} and np.isfinite(history[0]["val_loss"])
    assert any(not np.array_equal(weight, value) for weight, value in zip(model.weights, first, strict=True))


def test_a_run_of_crops_is_what_it_may_begin_from(dataset, tmp_path):
    model = randomize(zoo.build(NINConfig.model_validate(NIN)))
    course = DenseTraining(model, dataset, config_of())
    images = noise(2, 25, 31, 3)
    crops = np.stack([image[top : top + 14, left : left + 14] for image in images for top in (0, 2) for left in (0, 2)])
    given = np.asarray(course.learner(images))[:, :2, :2].reshape(8, 3)
    assert relative_error(given, np.asarray(model(crops))) <= 1e-5


@pytest.mark.parametrize("hardest", [None, 1.5, 100])
@pytest.mark.parametrize("weights", [None, np.float32([2, 5, 0.5])])
@pytest.mark.parametrize("objects", [0, 9])
@pytest.mark.parametrize("marked", [False, True])
def test_the_loss_is_the_mean_over_the_cells_that_count(hardest, weights, objects, marked):
    """Against one cell after another."""
    rng = np.random.default_rng(objects)
    grid = np.full(2 * 5 * 6, 2)
    grid[: objects + 6] = [*rng.integers(0, 2, objects), *[-1] * 6]
    grid = rng.permutation(grid)
    image = keras.Input((None, None, 3))
    made = randomize(keras.Model(image, layers.Conv2D(3, 3)(image)))
    config = config_of(label_smoothing=0.1, dense={"patch": [20, 20], "hardest": hardest})
    grids = grid_trainer(made, config.train, 10, 2, hardest, weights)
    images = noise(2, 7, 8, 3) / 255
    logits = np.asarray(made(images), np.float64).reshape(-1, 3)
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    hard = sorted((-log[place, 2] for place in range(60) if grid[place] == 2), reverse=True)
    if hardest is not None:
        hard = hard[: int(max(np.ceil(hardest * objects), 2))]
    total = weight = 0.0
    are_marked = (rng.random(60) < 0.2) & (grid >= 0) if marked else np.zeros(60, bool)
    for place, label in enumerate(grid):
        if label == -1 or (label == 2 and -log[place, 2] < hard[-1] and not are_marked[place]):
            continue
        own = (1.0 if weights is None else weights[label]) * (MARK_WEIGHT if are_marked[place] else 1)
        total -= own * (0.9 * log[place, label] + 0.1 * log[place].mean())
        weight += own
    labels = (grid[:, None] == range(3)).astype("float32").reshape(2, 5, 6, 3)
    third = are_marked.reshape(2, 5, 6).astype("float32") if marked else None
    loss = grids.compute_loss(images, labels, {"logits": made(images)}, third)
    assert float(loss) == pytest.approx(total / weight, rel=1e-5)
    grids.compute_metrics(images, labels, {"logits": made(images)})
    right = [logits[place].argmax() == label for place, label in enumerate(grid) if label >= 0]
    assert float(grids.get_metrics_result()["accuracy"]) == pytest.approx(np.mean(right))


def test_balanced_classes_weigh_the_same_and_an_image_one_on_average():
    counts = np.array([90, 0, 9, 1])
    weights = balanced(counts)
    np.testing.assert_allclose(weights * counts, [100 / 3, 0, 100 / 3, 100 / 3], rtol=1e-6)


def test_images_of_crop_training_weigh_by_their_class():
    image = keras.Input((4, 4, 1))
    model = randomize(keras.Model(image, layers.Dense(3)(layers.Flatten()(image))))
    weights, images, labels = np.float32([0.5, 1, 3]), noise(5, 4, 4, 1) / 255, np.array([0, 0, 1, 2, 0])
    config = config_of().train.model_copy(update={"dense": None})
    made = trainer(model, config, (0.0,), 10, weights)
    log = np.log(to_probabilities(np.asarray(model(images)), "logits"))
    wanted = np.mean([-weights[label] * row[label] for row, label in zip(log, labels, strict=True)])
    for training in (True, False):
        loss = made.compute_loss(images, np.eye(3)[labels], {"logits": [model(images)]}, training=training)
        assert float(loss) == pytest.approx(wanted, rel=1e-5)


def refused(match, model, dataset, **changes):
    with pytest.raises(InputError, match=match):
        DenseTraining(model, dataset, config_of(**changes))


def test_what_cannot_be_trained_on_its_grid_is_refused_with_the_way_out(dataset):
    same = zoo.build(NINConfig.model_validate({**NIN, "padding": "same"}))
    refused("a model whose layer 'mlpconv1_conv1' pads its map; accepted: model.padding: valid", same, dataset)
    model = zoo.build(NINConfig.model_validate(NIN))
    refused(r"train.dense.patch: received \[13, 31\]; accepted: at least", model, dataset, dense={"patch": [13, 31]})
    refused(
        "train.batch_size: received 21; accepted: at most 20, the patches of an epoch", model, dataset, batch_size=21
    )

    alone = replace(dataset, scenes=replace(dataset.scenes, validation=()))
    refused("train.patience: received 3; accepted: null where no image is held out", model, alone, patience=3)
    assert DenseTraining(model, alone, config_of()).validation is None
    folded = stack(HEADS["flatten, normalised"])
    with pytest.raises(InputError, match="train.dense: received a model whose layer '.*' becomes part of another one"):
        check_weights(folded, zoo.convolutionalize(folded))
    auxiliary = zoo.build(InceptionConfig.model_validate({**MODULES, "auxiliary": ["3a"]}))
    for bad, what in (
        (auxiliary, "a model with the outputs"),
        (zoo.convolutionalize(model), "which gives a map; accepted: a classifier"),
    ):
        with pytest.raises(InputError, match=f"train.dense: received .*{what}"):
            check_model(Network.of(bad))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.augment.shift=2", "train.augment.shift: received 2 beside train.dense; accepted: 0"),
        ("train.augment.mixup=0.2", "train.augment.mixup: received 0.2 beside train.dense; accepted: 0"),
        ("train.augment.cutmix=0.2", "train.augment.cutmix: received 0.2 beside train.dense; accepted: 0"),
        ("train.augment.randaugment={magnitude: 0.1}", "train.augment.randaugment: received .* accepted: null"),
        ("train.distribute=data", "train.distribute: received data beside train.dense; accepted: null"),
        ("data={name: digits}", r"train.dense: received patches of \[25, 31\]; accepted for data.name = digits: null"),
        (
            "train.dense.patch=[40000, 40000]",
            "train.batch_size: received 3, whose largest map has .* accepted: at most 1",
        ),
    ],
)
def test_keys_that_do_not_go_with_dense_are_refused(override, message, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(config_of().to_yaml())
    with pytest.raises(InputError, match=message):
        load_config(path, [override])
