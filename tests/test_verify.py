"""What trust in a conversion is measured on, and the report of it."""

import json

import keras
import numpy as np
import pytest
from conftest import command, noise, randomize, train_digits
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from PIL import Image
from small_nets import stack

import zoo
from zoo.card import Card, attach, card
from zoo.convert import cells
from zoo.convert.cells import named_images, samples_of
from zoo.convert.oracle import demand_equality
from zoo.errors import Diverged, InputError
from zoo.network.network import Network
from zoo.scores import agreement, lost


def edge_finder(size=16, classes=("flat", "edges")):
    """Two classes: no edges, and edges. On noise all is edges; on a smooth photo a crop's own border alone has any."""
    image = keras.Input((size, size, 3))
    edges = layers.Conv2D(1, 3, padding="same", activation="relu", name="edges")(layers.Rescaling(1 / 255)(image))
    scores = layers.Dense(2, name="scores")(layers.GlobalAveragePooling2D()(edges))
    model = keras.Model(image, scores, name="edge_finder")
    kernel = np.zeros((3, 3, 3, 1), np.float32)
    kernel[:, :, 0, 0], kernel[1, 1, 0, 0] = -1 / 8, 1
    model.get_layer("edges").set_weights([kernel, np.zeros(1, np.float32)])
    model.get_layer("scores").set_weights([np.array([[-1, 1]], np.float32), np.array([0.02, -0.02], np.float32)])
    return attach(model, Card(class_names=classes, image_size=(size, size), dtype="uint8"))


def photo(height=48, width=48):
    """Smooth, from grey to light grey."""
    return np.broadcast_to(np.linspace(150, 250, width)[None, :, None], (height, width, 3)).astype(np.uint8)


def strided(padding="same", size=(16, 12)):
    """Three strided layers, by which SAME pads as the image's size says."""
    image = keras.Input((*size, 3))
    x = layers.Conv2D(4, 3, strides=2, padding=padding, activation="relu")(image)
    x = layers.Add()([layers.Conv2D(4, 3, padding=padding)(x), x]) if padding == "same" else x
    x = layers.MaxPooling2D(3, strides=2, padding=padding)(x)
    return randomize(keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x))))


class Sliced:
    """An image that is read by slices, and counts the pixels that are."""

    def __init__(self, pixels, file=None):
        self.pixels, self.shape, self.dtype, self.file, self.read = pixels, pixels.shape, pixels.dtype, file, 0

    def __getitem__(self, region):
        part = self.pixels[region]
        self.read += part.shape[0] * part.shape[1]
        return part


def test_noise_is_called_noise_and_an_image_by_its_name():
    model = edge_finder()
    fcn = zoo.convolutionalize(model)
    on_noise, on_photo = zoo.verify(model, fcn), zoo.verify(model, fcn, Sliced(photo(), "there/photo.png"))
    assert on_noise.measured_on == ("noise",) and on_noise.crops_argmax_agreement == 1
    assert "100% of the cells, on noise, which says little" in on_noise.table()
    assert on_photo.measured_on == ("photo.png",) and on_photo.crops_argmax_agreement < 0.2
    assert on_photo.crops == 100 and "of the cells, on photo.png" in on_photo.table()
    assert "padding=valid" in on_photo.table() and "padding=valid" not in on_noise.table()
    report = json.loads(json.dumps(on_photo.to_dict()))
    assert report["measured_on"] == ["photo.png"]
    assert zoo.verify(model, fcn, photo()).measured_on == ("the image given",)


def test_cells_are_spread_over_images_and_those_too_small_are_named():
    model = edge_finder()
    fcn = zoo.convolutionalize(model)
    images = [photo(), photo(15, 48), photo(17, 16), noise(40, 40, 3)]
    report = zoo.verify(model, fcn, images)
    names = [f"the image given {number}" for number in (1, 2, 3, 4)]
    assert report.measured_on == (names[0], names[2], names[3]) and report.too_small == (names[1],)
    assert "left out, too small           the image given 2" in report.table()
    assert report.crops == 33 + 2 + 65  # what an image has no cells for, later ones take
    with pytest.raises(InputError, match=r"image: received \(15, 48\); accepted: at least the window \(16, 16\)"):
        zoo.verify(model, fcn, photo(15, 48))
    with pytest.raises(InputError, match=r"image: received 2 of at most \(15, 48\)"):
        zoo.verify(model, fcn, [photo(15, 48), photo(10, 10)])
    with pytest.raises(InputError, match="images: received 101; accepted: 1 to 100"):
        zoo.verify(model, fcn, [photo()] * 101)
    with pytest.raises(InputError, match="images: received 0"):
        zoo.verify(model, fcn, [])
    assert zoo.verify(model, fcn, [photo(16, 16)] * 100).crops == 100


def test_a_net_without_padding_is_its_crops_on_every_image():
    model = stack(lambda x: layers.Dense(4)(layers.Flatten()(x)))
    fcn = zoo.convolutionalize(model)
    for image in (None, noise(40, 33, 3), [noise(12, 10, 3), noise(30, 30, 3)]):
        report = zoo.verify(model, fcn, image)
        assert report.same_as_crops and "100% of the cells\n" in report.table()


@pytest.mark.parametrize(
    "make", [strided, lambda: stack(lambda x: layers.Dense(4)(layers.Flatten()(x)), padding="same")]
)
@settings(max_examples=12)
@given(height=st.integers(40, 90), width=st.integers(40, 90), seed=st.integers(0, 9))
def test_cells_of_parts_of_a_large_image_are_those_of_the_whole(make, height, width, seed):
    """Parts lie on the whole's grid, and of each those cells are taken that see what they see in the whole."""
    fcn, image = Network.of(zoo.convolutionalize(make())), noise(height, width, 3, seed=seed)
    sliced = Sliced(image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_PART", 36)
        samples = samples_of(fcn, [("image", sliced)])
    whole = {}
    scores, geometry = np.asarray(fcn.model(image[None]))[0], fcn.geometry((height, width))
    for row, column in np.ndindex(scores.shape[:2]):
        whole[geometry.cell_box(row, column)[:2]] = scores[row, column]
    assert len(samples.samples) == 4
    for sample in samples.samples:
        # Where the part lies is not told: its pixels do.
        part = sample.image[0]
        places = [
            (top, left)
            for top in range(height - part.shape[0] + 1)
            for left in range(width - part.shape[1] + 1)
            if np.array_equal(image[top, left], part[0, 0])
            and np.array_equal(image[top : top + part.shape[0], left : left + part.shape[1]], part)
        ]
        ((top, left),) = places
        for corner, given_scores in zip(sample.corners, sample.scores[0], strict=True):
            wanted = whole[(corner[0] + top, corner[1] + left)]
            np.testing.assert_allclose(given_scores, wanted, rtol=0, atol=1e-5 * np.abs(scores).max())


def test_a_large_image_is_never_read_whole_and_classes_that_no_cell_has_are_named(monkeypatch):
    model = edge_finder()
    image = Sliced(np.broadcast_to(np.uint8(200), (30_000, 40_000, 3)))
    monkeypatch.setattr(cells, "_PART", 100)
    report = zoo.verify(model, zoo.convolutionalize(model), image)
    assert report.crops == 100 and image.read <= 4 * 120**2
    assert report.classes_lost == {"edges": 100} and "edges (100 of 100 crops)" in report.table()


def centre_taps(taps=5, size=16):
    """A padded net whose kernel sees the centre alone, so that no border changes it; its classes follow the place."""
    image = keras.Input((size, size, 1))
    x = layers.Conv2D(1, taps, padding="same", use_bias=False, name="centre")(image)
    model = keras.Model(image, layers.Dense(40, name="scores")(layers.Flatten()(x)))
    kernel = np.zeros((taps, taps, 1, 1))
    kernel[(taps - 1) // 2, (taps - 1) // 2] = 1
    model.get_layer("centre").set_weights([kernel])
    return randomize_head(model)


def randomize_head(model):
    generator = np.random.default_rng(1)
    layer = model.get_layer("scores")
    layer.set_weights([generator.normal(0, 1, weight.shape) for weight in layer.get_weights()])
    return model


@pytest.mark.parametrize("taps", [3, 4, 7])
def test_a_twin_is_compared_with_the_classifier_on_the_crop_in_its_middle(taps):
    """One pixel aside, forty classes of random weights would not agree."""
    model = centre_taps(taps)
    twin = zoo.convolutionalize(model, padding="valid")
    side = 16 + taps - 1
    assert zoo.geometry(twin).window == (side, side)
    for image in (None, noise(60, 50, 1)):
        report = zoo.verify(model, twin, image)
        assert report.classifier_argmax_agreement == 1 and report.classifier_crops == report.crops
        assert "same answer as the classifier" in report.table()
    assert zoo.verify(zoo.convolutionalize(model), twin).classifier_argmax_agreement == 1


def test_a_twin_that_is_another_classifier_is_not_recommended():
    model = edge_finder()
    twin = zoo.convolutionalize(model, padding="valid")
    report = zoo.verify(model, twin, photo())
    assert report.same_function and report.same_as_crops and report.classifier_argmax_agreement < 0.2
    assert "the twin is another classifier here; train with `model.padding=valid`" in report.table()
    assert report.to_dict()["classifier_argmax_agreement"] == report.classifier_argmax_agreement
    plain = zoo.verify(model, zoo.convolutionalize(model))
    assert plain.classifier_argmax_agreement is None and "classifier  " not in plain.table()


def test_sequences_several_outputs_and_single_scores():
    signal = keras.Input((32, 2))
    x = layers.Conv1D(4, 5, strides=2, padding="same")(signal)
    ends = [layers.Dense(3)(layers.GlobalAveragePooling1D()(x)), layers.Dense(2)(layers.GlobalMaxPooling1D()(x))]
    model = randomize(keras.Model(signal, ends))
    report = zoo.verify(model, zoo.convolutionalize(model), [noise(90, 2), noise(3000, 2)])
    assert report.same_function and report.crops == 30 + 70 and not report.classes_lost
    single = np.array([[0.3], [-0.2], [1.0]]), np.array([[0.1], [0.2], [2.0]])
    assert agreement(*single, "logits") == pytest.approx(2 / 3) and lost(*single, "logits") == {}
    many = np.eye(3)[[0, 1, 1, 0]], np.eye(3)[[0, 2, 1, 2]]
    assert agreement(*many, "logits") == 0.5 and lost(*many, "logits") == {2: 2}
    assert [name for name, _ in named_images([noise(3, 3, 1), Sliced(photo(), "a/b.png")])] == [
        "the image given 1",
        "b.png",
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "digits"
    train_digits(folder, "train.epochs=1")
    return folder


def report_of(capsys, tmp_path, *line, code=0):
    done, out, err = command(capsys, "convert", *line, "-o", tmp_path / "fcn.keras", "--overwrite")
    assert done == code, err
    return (out, json.loads((tmp_path / "fcn.verification.json").read_text())) if code == 0 else err


@pytest.mark.extended
def test_convert_measures_on_images_else_on_those_of_the_run_else_on_noise(capsys, run, tmp_path):
    for name, size in (("a.png", 40), ("b.png", 30), ("small.png", 5)):
        Image.fromarray(noise(size, size).astype(np.uint8)).save(tmp_path / name)
    images = ("--image", tmp_path / "a.png", "--image", tmp_path / "b.png")
    out, report = report_of(capsys, tmp_path, run, *images, "--image", tmp_path / "small.png")
    assert report["measured_on"] == ["a.png", "b.png"] and report["too_small"] == ["small.png"]
    assert "on a.png, b.png" in out and report["crops"] == 100
    out, report = report_of(capsys, tmp_path, run)
    assert report["measured_on"] == ["canvas_input.png", "36 test images side by side"] and "noise" not in out
    out, report = report_of(capsys, tmp_path, run, "--padding", "valid")
    assert report["measured_on"] == ["canvas_input.png", "36 test images side by side"]
    assert 0 <= report["classifier_argmax_agreement"] <= 1 and "same answer as the classifier" in out
    out, report = report_of(capsys, tmp_path, run / "model.keras")
    assert report["measured_on"] == ["noise"] and "on noise" in out
    err = report_of(capsys, tmp_path, run, "--image", tmp_path / "small.png", code=2)
    assert "at least the window" in err
    err = report_of(capsys, tmp_path, run, "--image", tmp_path / "gone.png", code=2)
    assert "gone.png" in err
    assert "--pooling global" in report_of(capsys, tmp_path, run, *images, "--pooling", "global", code=2)


@pytest.mark.extended
def test_a_run_without_its_data_is_measured_on_its_canvas(capsys, run, tmp_path, monkeypatch):
    from zoo import trial_images

    monkeypatch.setattr(trial_images.data, "is_at_hand", lambda data: False)
    _, report = report_of(capsys, tmp_path, run)
    assert report["measured_on"] == ["canvas_input.png"]


def cancelling():
    """Weights of a training that diverged: scores that are the difference of numbers beyond float32's digits.

    The third map is the sum of the first two, up to rounding, in whatever order a processor adds.
    """
    model = stack(lambda x: layers.Dense(4, use_bias=False, name="scores")(layers.GlobalAveragePooling2D()(x)))
    matrix = np.zeros((5, 4))
    matrix[:2] = np.random.default_rng(0).normal(0, 1e20, 4)
    matrix[2] = -matrix[0]
    kernel = np.abs(model.layers[-3].get_weights()[0])
    kernel[..., 2] = kernel[..., 0] + kernel[..., 1]
    model.layers[-3].set_weights([kernel, np.zeros(5)])
    model.get_layer("scores").set_weights([matrix])
    return model


def test_scores_that_are_rounding_alone_are_no_fault_of_the_converter():
    with pytest.raises(RuntimeError, match="a fault of the converter"):
        demand_equality(Network.of(edge_finder()), 1e-3, "the training size")
    for error in (1e-3, float("inf")):
        with pytest.raises(Diverged, match="training diverged; try a lower"):
            demand_equality(Network.of(cancelling()), error, "the training size")


def test_a_diverged_model_leaves_one_line_and_no_file(capsys, tmp_path, monkeypatch):
    from zoo.convert import conversion

    zoo.save(attach(cancelling(), card(edge_finder())), tmp_path / "net.keras")
    monkeypatch.setattr(conversion, "error_on_larger_maps", lambda *given: 1.0)
    code, _, err = command(capsys, "convert", tmp_path / "net.keras", "-o", tmp_path / "fcn.keras")
    assert code == 2 and "diverged" in err and err.count("\n") == 1, err
    assert [path.name for path in tmp_path.iterdir()] == ["net.keras"]


@pytest.mark.parametrize("side", [None, 24])
def test_a_map_of_fixed_size_is_compared_with_itself_on_crops(side):
    image = keras.Input((side, side, 3))
    x = keras.layers.MaxPooling2D(2)(keras.layers.Conv2D(4, 3)(image))
    model = keras.Model(image, keras.layers.Conv2D(2, 3)(x))
    report = zoo.verify(model, zoo.convolutionalize(model))
    assert report.same_function and report.same_as_crops and report.geometry["window"] == [8, 8]
    padded = keras.Model(image, keras.layers.Conv2D(2, 3, padding="same")(x))
    with pytest.raises(InputError, match="of a net that pads.*accepted: a classifier, or a map without padding"):
        zoo.verify(padded, zoo.convolutionalize(padded))
