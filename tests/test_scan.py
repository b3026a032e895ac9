import json

import keras
import numpy as np
import pytest
from conftest import noise, randomize, some_by_default
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import zoo
from zoo.card import Card, attach, card
from zoo.errors import InputError
from zoo.evaluation import predict_files
from zoo.network.network import Network
from zoo.scanning.grid import Grid
from zoo.scanning.overlay import palette
from zoo.scores import relative_error

# Under SAME padding in strided layers too: Keras's own pads an odd and an even size differently.
NETS = {
    "nin same": lambda: zoo.build("nin_mnist_bn"),
    "nin valid": lambda: zoo.build("nin_mnist_bn", padding="valid"),
    "nin valid flatten": lambda: zoo.build("nin_mnist_bn", padding="valid", head={"kind": "flatten", "hidden": [8]}),
    "inception same": lambda: zoo.build("inception_cifar10", channels=1, preprocess={}, modules=[MODULE, MODULE_2]),
    "resnet v2": lambda: zoo.build("resnet29_cifar10", channels=1, preprocess={}, stages=STAGES),
    "strided same": lambda: strided_same(),
}

MODULE = {"name": "a", "conv1": 4, "reduce3": 3, "conv3": 4, "reduce5": 2, "conv5": 3, "pool_proj": 2}
MODULE |= {"pool": "max 3x3/2"}
MODULE_2 = {**MODULE, "name": "b"}
STAGES = [{"blocks": 2, "width": 4, "filters": 16}, {"blocks": 1, "width": 8, "filters": 32, "stride": 2}]


def strided_same():
    image = keras.Input((17, 17, 1))
    x = image
    for filters in (4, 6):
        shortcut = layers.Conv2D(filters, 1, 2, "same")(x)
        x = layers.Conv2D(filters, 3, 2, "same", activation="relu")(x)
        x = layers.Add()([x, shortcut])
    x = layers.MaxPooling2D(3, 2, "same")(x)
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def converted():
    made = {}

    def get(name):
        if name not in made:
            made[name] = zoo.convolutionalize(randomize(NETS[name]()))
        return made[name]

    return get


@pytest.mark.parametrize("name", some_by_default(NETS, "nin valid"))
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_scores_do_not_depend_on_the_tiles(converted, name, data):
    fcn = converted(name)
    reach = int(max(zoo.geometry(fcn).receptive_field))
    tile = data.draw(st.integers(8, 40))
    # Larger than a tile and the field around it, so that seams inside the image exist.
    height, width = (data.draw(st.integers(tile + reach, tile + reach + 45)) for _ in range(2))
    image = noise(height, width, 1, seed=data.draw(st.integers(0, 99)))
    whole = np.asarray(fcn(image[None]))[0]
    scanned = zoo.scan(fcn, image, tile=tile)
    assert len(list(Grid.of(Network.of(fcn), (height, width)).tiles(tile))) > 1
    assert scanned.scores.shape == whole.shape
    assert relative_error(scanned.scores, whole) <= 1e-5


def test_tiles_hold_every_cell_once_and_only_the_pixels_that_they_need():
    grid = Grid.of(Network.of(zoo.convolutionalize(zoo.build("nin_mnist_bn"))), (301, 407))
    placed = grid.geometry
    seen = np.zeros(grid.shape, int)
    for part in grid.tiles(64):
        seen[part.cells] += 1
        for pixels in part.pixels:
            assert pixels.start % 4 == 0
            assert pixels.stop - pixels.start <= 64 + 47 + 2 * 4
        size = [pixels.stop - pixels.start for pixels in part.pixels]
        grid = placed.grid_shape(*size)
        assert all(inner.stop <= side for inner, side in zip(part.inner, grid, strict=True))
    assert (seen == 1).all()


def test_a_classifier_is_converted_first():
    model = randomize(zoo.build("nin_digits"))
    image = noise(30, 21, 1)
    by_itself = zoo.scan(model, image)
    np.testing.assert_array_equal(by_itself.scores, zoo.scan(zoo.convolutionalize(model), image).scores)
    assert by_itself.class_names == tuple("0123456789")


def test_input_forms_give_the_same_scores(tmp_path):
    from PIL import Image

    model = zoo.convolutionalize(randomize(zoo.build("nin_digits")))
    image = noise(30, 21).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    wanted = zoo.scan(model, image[..., None]).scores
    for form in (image, image.astype(np.float32), mapped, tmp_path / "image.png", str(tmp_path / "image.npy")):
        np.testing.assert_array_equal(zoo.scan(model, form).scores, wanted)
    mapped._mmap.close()


@pytest.mark.parametrize(
    ("image", "tile", "text"),
    [
        (np.zeros((30, 30, 3)), None, r"\(30, 30, 3\); accepted: \(H, W, 1\)"),
        (np.zeros((7, 30)), None, "at least one window of 8 x 8"),
        (np.zeros(30), None, r"accepted: \(H, W\)"),
        (np.zeros((30, 30)), 1, "at least one stride, 2"),
        ("gone.png", None, "gone.png"),
    ],
)
def test_bad_images_and_tiles_are_refused(image, tile, text):
    with pytest.raises(InputError, match=text):
        zoo.scan(zoo.build("nin_digits"), image, tile=tile)


def test_a_global_block_is_scanned_whole_and_refused_in_tiles():
    image = keras.Input((12, 12, 1))
    x = layers.Conv2D(4, 3, padding="same")(image)
    x = layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
    model = randomize(keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))
    pixels = noise(20, 30, 1)
    whole = np.asarray(zoo.convolutionalize(model)(pixels[None]))[0]
    assert relative_error(zoo.scan(model, pixels).scores, whole) <= 1e-6
    with pytest.raises(InputError, match="pools over the whole image"):
        zoo.scan(model, pixels, tile=16)


def test_saved_results_and_uncovered_pixels(tmp_path):
    model = zoo.build("nin_digits", padding="valid")
    attach(model, Card(class_names=tuple("abcdefghij"), image_size=(8, 8)))
    result = zoo.scan(model, noise(31, 21, 1))
    # 8 x 8 windows at stride 2: the last row of windows ends at 8 + 11 * 2 = 30, the last column at 20.
    assert result.scores.shape == (12, 7, 10)
    assert result.uncovered == (0, 0, 1, 1)
    result.save(tmp_path / "out")
    with np.load(tmp_path / "out" / "scores.npz") as saved:
        np.testing.assert_array_equal(saved["scores"], result.scores)
        assert list(saved["class_names"]) == list("abcdefghij")
    about = json.loads((tmp_path / "out" / "geometry.json").read_text())
    assert about["stride"] == [2, 2] and about["window"] == [8, 8] and about["offset"] == [0, 0]
    assert about["receptive_field"] == [8, 8] and about["grid_shape"] == [12, 7]
    assert about["uncovered"] == {"top": 0, "left": 0, "bottom": 1, "right": 1}


def test_probabilities_are_a_softmax():
    result = zoo.scan(randomize(zoo.build("nin_digits")), noise(20, 20, 1))
    np.testing.assert_allclose(result.probabilities.sum(-1), 1)
    np.testing.assert_array_equal(result.probabilities.argmax(-1), result.scores.argmax(-1))
    np.testing.assert_allclose(
        np.log(result.probabilities), np.asarray(keras.ops.log_softmax(result.scores)), rtol=1e-4, atol=1e-4
    )


def test_the_overlay_colours_each_cells_own_pixels():
    """Stride 2, window 8: cell (r, c) colours rows 3 + 2r and 4 + 2r, columns alike; the border stays grey."""
    result = zoo.scan(zoo.build("nin_digits", padding="valid"), np.zeros((31, 21)))
    scores = np.zeros_like(result.scores)
    scores[2, 5, 7] = 100
    result.scores[:] = scores
    image = np.full((31, 21, 1), 80, np.uint8)
    picture = result.overlay(image, class_index=7, opacity=1.0)
    assert picture.shape == (31, 21, 3) and picture.dtype == np.uint8
    strong = np.argwhere((np.abs(picture - 255 * palette(10)[7]) < 2).all(-1))
    assert {tuple(position) for position in strong} == {(7, 13), (7, 14), (8, 13), (8, 14)}
    assert (picture[:3] == 80).all() and (picture[:, :3] == 80).all() and (picture[27:] == 80).all()
    winner = result.overlay(image)
    assert (winner[7:9, 13:15] != 80).any() and (winner[15:, 3:11] == 80).all()
    with pytest.raises(InputError, match="overlay"):
        result.overlay(image[:-1])


@pytest.mark.parametrize(("trained", "other"), [("uint8", "uint16"), ("uint16", "uint8"), ("float32", "uint8")])
def test_samples_of_another_type_are_refused(tmp_path, trained, other):
    model = randomize(zoo.build("nin_digits"))
    attach(model, card(model).model_copy(update={"dtype": trained}))
    fcn = zoo.convolutionalize(model)
    image = noise(30, 20, 1)
    for type_ in (trained, np.float32):
        np.testing.assert_array_equal(zoo.scan(fcn, image.astype(type_)).scores, zoo.scan(fcn, image).scores)
    np.save(tmp_path / "image.npy", image.astype(other))
    for source in (image.astype(other), tmp_path / "image.npy"):
        with pytest.raises(InputError, match=f"received {other} samples; accepted: {trained}"):
            zoo.scan(fcn, source)
    with pytest.raises(InputError, match=f"received {other} samples; accepted: {trained}"):
        list(predict_files(model, [tmp_path / "image.npy"]))
    np.save(tmp_path / "image.npy", image.astype(trained))
    (answer,) = predict_files(model, [tmp_path / "image.npy"])
    assert answer.probabilities.shape == (10,)


@pytest.mark.parametrize("image", [np.full((30, 30), np.nan), np.full((30, 30), 1j), np.full((30, 30), "a")])
def test_values_that_are_no_pixels_are_refused(image):
    with pytest.raises(InputError, match="image: received (values that are not finite|complex128|<U1)"):
        zoo.scan(zoo.build("nin_digits"), image)


@pytest.mark.parametrize("tile", [2.5, "x", True])
def test_tiles_that_are_no_number_are_refused(tile):
    with pytest.raises(InputError, match=f"tile: received {tile!r}; accepted: a whole number"):
        zoo.scan(zoo.build("nin_digits"), noise(30, 30), tile=tile)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_of_a_model_that_gives_them_are_its_scores(tmp_path, activation):
    image = keras.Input((8, 8, 1))
    x = layers.Flatten()(layers.Rescaling(1 / 255)(layers.Conv2D(4, 3)(image)))
    model = randomize(keras.Model(image, layers.Dense(3, activation=activation)(x)))
    result = zoo.scan(model, noise(20, 20, 1))
    np.testing.assert_array_equal(result.probabilities, result.scores)
    np.save(tmp_path / "image.npy", noise(12, 9))
    # No card: the size is that of the model's input.
    (answer,) = predict_files(model, [tmp_path / "image.npy"])
    crop = noise(12, 9)[None, 2:10, :8, None]
    np.testing.assert_allclose(answer.probabilities, np.asarray(model(crop))[0], rtol=1e-5)
    assert "12 x 9 pixels, cropped or padded to 8 x 8" in answer.note


def test_a_single_output_is_a_sigmoid_or_refused(tmp_path):
    np.save(tmp_path / "image.npy", noise(8, 8))
    image = keras.Input((8, 8, 1))
    for activation in ("sigmoid", "linear"):
        x = layers.Flatten()(layers.Rescaling(1 / 255)(image))
        model = randomize(keras.Model(image, layers.Dense(1, activation=activation)(x)))
        if activation == "sigmoid":
            (answer,) = predict_files(model, [tmp_path / "image.npy"])
            assert answer.probabilities == pytest.approx(np.asarray(model(noise(1, 8, 8, 1)[..., :1]))[0], rel=1e-5)
            assert Network.of(model).class_names == ("1",)
        else:
            with pytest.raises(InputError, match="single output; accepted: one a class, or a single sigmoid"):
                list(predict_files(model, [tmp_path / "image.npy"]))


def test_one_answer_for_any_size_takes_images_whole(tmp_path):
    source = randomize(zoo.build("nin_digits", padding="valid"))
    model = zoo.convolutionalize(source, pooling="global")
    np.save(tmp_path / "image.npy", noise(31, 20))
    (answer,) = predict_files(model, [tmp_path / "image.npy"])
    wanted = np.asarray(keras.ops.softmax(model(noise(31, 20)[None, ..., None])))[0, 0, 0]
    assert answer.note == ""
    np.testing.assert_allclose(answer.probabilities, wanted, rtol=1e-4, atol=1e-6)
    np.save(tmp_path / "small.npy", noise(3, 3))
    with pytest.raises(InputError, match=r"small.npy: image_size: received \(3, 3\); .*layer"):
        list(predict_files(model, [tmp_path / "small.npy"]))


def test_a_net_without_a_window_takes_every_image_that_its_layers_fit():
    """Halved twice and joined again: multiples of four, far below the receptive field too."""
    image = keras.Input((None, None, 1))
    x = layers.Conv2D(2, 9, padding="same")(image)
    deep = layers.UpSampling2D(4)(layers.MaxPooling2D(2)(layers.MaxPooling2D(2)(x)))
    model = randomize(keras.Model(image, layers.Concatenate()([deep, x])))
    assert zoo.scan(model, noise(8, 8)).scores.shape == (8, 8, 4)
    with pytest.raises(InputError, match="received 10 x 8 pixels; accepted: sides that every layer fits, from 4 x 4"):
        zoo.scan(model, noise(10, 8))


@pytest.mark.parametrize("stride", [None, 2])
@pytest.mark.extended
def test_openvino_gives_what_keras_gives(stride):
    pytest.importorskip("openvino")
    fcn = zoo.convolutionalize(randomize(zoo.build("nin_mnist_bn")))
    image = noise(90, 77, 1)
    wanted = zoo.scan(fcn, image, tile=40, stride=stride)
    given_ = zoo.scan(fcn, image, tile=40, stride=stride, engine="openvino")
    assert given_.scores.dtype == np.float32 and relative_error(given_.scores, wanted.scores) <= 1e-5
    assert not np.array_equal(given_.scores, wanted.scores)


@pytest.mark.extended
def test_engines_that_do_not_fit_are_refused(tmp_path):
    model, image = zoo.build("nin_mnist_valid"), noise(40, 40)
    for options, text in (
        ({"engine": "onnx"}, "unknown engine 'onnx'"),
        ({"precision": "float32"}, "precision: received 'float32'"),
        (
            {"engine": "openvino", "stride": 2},
            "engine: received 'openvino' with a stride below the model's own, for a model without padding;",
        ),
    ):
        with pytest.raises(InputError, match=text):
            zoo.scan(model, image, output=tmp_path / "a.npy", **options)
    assert not list(tmp_path.iterdir())


def test_several_outputs_are_refused():
    image = keras.Input((8, 8, 1))
    x = layers.Flatten()(image)
    model = keras.Model(image, [layers.Dense(2)(x), layers.Dense(3)(x)])
    for attempt in (
        lambda: zoo.scan(model, noise(20, 20)),
        lambda: list(predict_files(model, [])),
        lambda: Network.of(model).class_names,
    ):
        with pytest.raises(InputError, match="has 2 outputs, .*; accepted: one"):
            attempt()
