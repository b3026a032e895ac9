"""A temperature: found where a fine search finds it, and folded into models of every kind of head."""

import keras
import numpy as np
import pytest
from conftest import randomize
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from small_nets import HEADS, stack

import zoo
from zoo.calibration import (
    Calibration,
    Reliability,
    cross_entropy,
    expected_calibration_error,
    find_temperature,
    fold_temperature,
)
from zoo.errors import InputError
from zoo.scores import relative_error, softmax

# Of tests/small_nets.py, those whose outputs are no logits, or come from two layers.
REFUSED = {"flatten, stack": "received probabilities", "two heads merged": "no Dense or convolutional layer"}


def images(model, count=4):
    return np.random.default_rng(1).uniform(0, 255, (count, *model.input_shape[1:])).astype(np.float32)


@pytest.mark.parametrize("name", sorted(set(HEADS) - set(REFUSED)))
def test_logits_are_divided_and_classes_stay(name):
    model = stack(HEADS[name])
    batch = images(model)
    before = np.array(model(batch))
    assert fold_temperature(model, 2.5) is model
    after = np.array(model(batch))
    assert relative_error(after, before / 2.5) <= 1e-6
    assert (after.argmax(-1) == before.argmax(-1)).all() and np.ptp(before) > 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_last_kernel_of_logits_is_refused_in_a_line(name):
    model = stack(HEADS[name])
    weights = model.get_weights()
    with pytest.raises(InputError, match=REFUSED[name]):
        fold_temperature(model, 2.0)
    assert all((old == new).all() for old, new in zip(weights, model.get_weights(), strict=True))


def test_a_relu_after_class_maps_lets_a_temperature_through_and_a_capped_one_does_not():
    def head(cap):
        return lambda x: layers.GlobalAveragePooling2D()(layers.ReLU(cap)(layers.Conv2D(4, 1)(x)))

    model = stack(head(None))
    batch = images(model)
    before = np.array(model(batch))
    assert relative_error(np.array(fold_temperature(model, 0.4)(batch)), before / 0.4) <= 1e-6
    with pytest.raises(InputError, match="no Dense or convolutional layer"):
        fold_temperature(stack(head(6.0)), 0.4)


def test_auxiliary_outputs_stay_as_they_are():
    image = keras.Input((12, 10, 3))
    x = layers.Conv2D(6, 3, activation="relu")(image)
    outputs = [layers.Dense(4)(layers.Flatten()(x)), layers.Dense(4)(layers.GlobalAveragePooling2D()(x))]
    model = randomize(keras.Model(image, outputs))
    batch = images(model)
    before = [np.array(each) for each in model(batch)]
    after = [np.array(each) for each in fold_temperature(model, 3.0)(batch)]
    assert relative_error(after[0], before[0] / 3) <= 1e-6 and (after[1] == before[1]).all()


def test_a_layer_that_serves_two_outputs_is_refused():
    image = keras.Input((12, 10, 3))
    x, last = layers.Conv2D(6, 3)(image), layers.Dense(4)
    shared = keras.Model(image, [last(layers.GlobalAveragePooling2D()(x)), last(layers.GlobalMaxPooling2D()(x))])
    with pytest.raises(InputError, match="serve more than the model's first output"):
        fold_temperature(shared, 2.0)
    logits = layers.Dense(4)(layers.Flatten()(x))
    with pytest.raises(InputError, match="serve more than the model's first output"):
        fold_temperature(keras.Model(image, [logits, layers.Softmax()(logits)]), 2.0)


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_a_temperature_is_above_zero(temperature):
    with pytest.raises(InputError, match="temperature: received .*; accepted: a number above 0"):
        fold_temperature(stack(HEADS["average"]), temperature)


def test_a_conversion_of_a_calibrated_model_is_calibrated():
    model = stack(HEADS["flatten"])
    picture = np.random.default_rng(2).uniform(0, 255, (30, 31, 3)).astype(np.float32)
    before = zoo.scan(zoo.convolutionalize(model), picture).scores
    after = zoo.scan(zoo.convolutionalize(fold_temperature(model, 1.7)), picture).scores
    assert relative_error(after, before / 1.7) <= 1e-6


def sample(temperature, count=4000, classes=4, seed=3):
    """Logits, and labels drawn from the probabilities of logits / temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, (count, classes))
    chances = softmax(logits / temperature)
    return logits, (generator.random((count, 1)) > chances.cumsum(-1)).sum(-1).clip(0, classes - 1)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.0])
def test_the_temperature_is_that_of_a_fine_search_and_near_the_true_one(true):
    logits, labels = sample(true)
    found = find_temperature(logits, labels)
    grid = np.exp(np.linspace(np.log(found / 1.2), np.log(found * 1.2), 401))
    best = grid[np.argmin([cross_entropy(logits / each, labels) for each in grid])]
    assert found == pytest.approx(best, rel=2e-3) and found == pytest.approx(true, rel=0.1)


def test_scores_that_are_never_wrong_or_always_have_the_bounds():
    logits = np.eye(3)[[0, 1, 2]] * 2.0
    assert find_temperature(logits, np.arange(3)) == pytest.approx(0.1, rel=1e-3)
    wrong = logits, np.array([1, 2, 0])
    assert find_temperature(*wrong) == pytest.approx(10, rel=1e-3)
    assert "by the temperature 10.000, as far as is looked: " in Calibration.measured("images", wrong, wrong).sentence()


def test_calibration_error_by_hand():
    # Of two answers at 0.95 one is right, of two at 0.6 both: half of |0.5 - 0.95| and half of |1 - 0.6|.
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.4, 0.6], [0.4, 0.6]])
    error = expected_calibration_error(probabilities, np.array([0, 1, 1, 1]))
    assert error == pytest.approx(0.5 * 0.45 + 0.5 * 0.4)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), min_size=1, max_size=40))
def test_calibration_error_is_that_of_plain_loops(rows):
    chances = [0.5 + share / 62 for share, _ in rows]  # never at the border of two bins
    probabilities = np.array([[chance, 1 - chance] for chance in chances])
    labels = np.array([label for _, label in rows])
    wanted = 0.0
    for bin_ in range(15):
        inside = [i for i, chance in enumerate(chances) if bin_ / 15 < chance <= (bin_ + 1) / 15]
        if inside:
            right = sum(labels[i] == 0 for i in inside) / len(inside)
            wanted += len(inside) / len(rows) * abs(right - sum(chances[i] for i in inside) / len(inside))
    assert expected_calibration_error(probabilities, labels) == pytest.approx(wanted, abs=1e-9)


def test_a_calibration_is_measured_where_it_was_not_found():
    validation, test = sample(2.0, seed=4), sample(2.0, seed=5)
    result = Calibration.measured("images", validation, test)
    assert result.temperature == pytest.approx(find_temperature(*validation))
    assert result.before == Reliability.of(*test)
    assert result.after.expected_calibration_error < result.before.expected_calibration_error / 2
    assert result.to_dict()["after"]["loss"] < result.to_dict()["before"]["loss"]
    assert result.sentence().startswith("calibrated on 4,000 images of the validation part by the temperature 1.977:")


@pytest.mark.parametrize("strange, kept", [(0, True), (1, False)])
def test_a_temperature_that_one_image_asks_for_is_not_taken(strange, kept):
    """Of eight images, all overconfident, or one that is wrong everywhere among others that are right as they are."""
    parts = [sample(1.0 if strange else 2.0, count=200, seed=seed) for seed in range(8)]
    for logits, labels in parts[:strange]:
        labels[:] = logits.argmin(-1)
    together = tuple(map(np.concatenate, zip(*parts, strict=True)))
    images = np.repeat(np.arange(8), 200)
    result = Calibration.measured("grid cells", together, sample(1.0 if strange else 2.0, seed=9), images)
    assert result.found == find_temperature(*together) > 1.3
    assert result.temperature == (result.found if kept else 1.0)
    assert (result.after == result.before) is not kept and (result.after.loss < result.before.loss) is kept
    assert result.sentence().startswith("calibrated on" if kept else "calibrated as it is: on 1,600 grid cells")
    gains = [cross_entropy(*part) - cross_entropy(part[0] / result.found, part[1]) for part in parts]
    assert result.gain == pytest.approx(np.mean(gains))
    assert result.spread == pytest.approx(np.std(gains, ddof=1) / np.sqrt(8))


def test_the_spread_over_images_of_unequal_sizes_is_that_of_drawing_them_anew():
    sizes = np.random.default_rng(6).integers(20, 400, 60)
    parts = [sample(2.0 + seed % 3, count=size, seed=seed) for seed, size in enumerate(sizes)]
    together = tuple(map(np.concatenate, zip(*parts, strict=True)))
    result = Calibration.measured("grid cells", together, parts[0], np.repeat(np.arange(60), sizes))
    gains = np.array([cross_entropy(*part) - cross_entropy(part[0] / result.found, part[1]) for part in parts])
    weights = np.random.default_rng(7).multinomial(60, np.full(60, 1 / 60), 4000)
    assert result.spread == pytest.approx(((weights @ (gains * sizes)) / (weights @ sizes)).std(), rel=0.1)


def test_of_one_image_the_spread_is_not_known():
    logits, labels = sample(2.0)
    result = Calibration.measured("grid cells", (logits, labels), (logits, labels), np.zeros(len(labels), int))
    assert result.spread is None and result.temperature == 1 and "over images is not known" in result.sentence()


def test_right_answers_alone_sharpen_nothing():
    logits = np.random.default_rng(8).normal(0, 1, (200, 3))
    labels = logits.argmax(-1)
    result = Calibration.measured("images", (logits, labels), (logits, labels))
    assert result.found < 0.2 and result.gain > result.spread and (result.wrong, result.temperature) == (0, 1)
    labels[0] = logits[0].argmin()
    result = Calibration.measured("images", (logits, labels), (logits, labels))
    assert (result.wrong, result.temperature) == (1, result.found) and result.found < 1
