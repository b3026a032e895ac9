import keras
import numpy as np
import pytest
from click.testing import CliRunner

from zoo.cli import zoo
from zoo.data import Split
from zoo.evaluation import evaluate, predict_views


@pytest.fixture(scope="module")
def model():
    """Logits that depend on where in the image something is."""
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 5, 2))
    x = keras.layers.Dense(3, name="head_logits")(keras.layers.Flatten()(keras.layers.Rescaling(1 / 50)(image)))
    return keras.Model(image, x)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (300, 6, 5, 2), dtype=np.uint8)


def by_loops(model, image):
    """The mean over the six views, each pixel looked up by itself."""
    height, width, _ = image.shape
    total = 0
    for shift, share in ((0, 0.5), (-1, 0.25), (1, 0.25)):
        for is_mirrored in (False, True):
            view = np.empty_like(image)
            for row in range(height):
                for column in range(width):
                    y, x = row + shift, (width - 1 - column if is_mirrored else column) + shift
                    y, x = (abs(at) if at < size else 2 * size - 2 - at for at, size in ((y, height), (x, width)))
                    view[row, column] = image[y, x]
            total = total + share / 2 * np.asarray(model(view[None].astype(np.float32)))[0]
    return total


def test_views_are_flips_and_shifts_with_mirrored_borders(model, images):
    made = predict_views(model, images)
    assert made.shape == (300, 3)
    for index in (0, 255, 256, 299):
        np.testing.assert_allclose(made[index], by_loops(model, images[index]), rtol=1e-4, atol=1e-4)


def test_an_evaluation_by_views_counts_their_answers(model, images):
    answers = predict_views(model, images).argmax(1)
    result = evaluate(model, Split(images, answers.astype(np.int32)), ("a", "b", "c"), views=True)
    assert result.accuracy == 1
    assert evaluate(model, Split(images, answers.astype(np.int32)), ("a", "b", "c")).accuracy < 1


@pytest.mark.parametrize("beside", [["--dense"], ["--against", "other"]])
def test_views_are_of_one_run_on_its_test_split(beside):
    result = CliRunner().invoke(zoo, ["evaluate", "run", "--views", *beside])
    assert result.exit_code == 2 and f"--views and {beside[0]}: accepted: one of the two" in result.output
