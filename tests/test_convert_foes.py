"""Models as people bring them, against their own answers for crops: channels, forms of vectors, permutations, files."""

import keras
import numpy as np
import pytest
from conftest import noise, randomize
from keras import layers, ops

import zoo
from zoo.errors import InputError
from zoo.network.keras_internals import adds_bias_along_columns
from zoo.network.network import Network
from zoo.scores import relative_error

pytestmark = pytest.mark.extended

FIRST = {"data_format": "channels_first"}


def last(before=lambda x: x, head=None, dtype="float32"):
    """A padding-free net of stride 2 on images of 12 x 10, its maps (5, 4, 5), with layers before it and a head."""
    image = keras.Input((12, 10, 3), dtype=dtype)
    x = layers.ReLU()(layers.Conv2D(5, 3, strides=2)(before(image)))
    return randomize(keras.Model(image, (head or flat)(x)))


def first(before=lambda x: x, head=None):
    """The same with channels first, its maps (5, 5, 4)."""
    image = keras.Input((3, 12, 10))
    x = layers.ReLU()(layers.Conv2D(5, 3, strides=2, **FIRST)(before(image)))
    return randomize(keras.Model(image, (head or flat)(x)))


def flat(x):
    return layers.Dense(4)(layers.Flatten()(x))


def check_crops(model, fcn, error=1e-5):
    """Every cell of a larger image is the model's answer for the cell's crop."""
    grid, axes = zoo.geometry(fcn), Network.of(model).axes
    size = tuple(int(side) + 3 * step for side, step in zip(grid.window, grid.stride, strict=True))
    image = noise(1, *size, Network.of(fcn).channels)
    scores = np.asarray(fcn(image))[0]
    assert scores.shape[:-1] == (4,) * axes.count
    for cell in np.ndindex(scores.shape[:-1]):
        box = grid.cell_box(*cell)
        parts = (slice(box[axis], box[axis + axes.count]) for axis in range(axes.count))
        crop = image[(slice(None), *parts)]
        wanted = np.asarray(model(axes.own(crop), training=False)).ravel()
        assert relative_error(scores[cell], wanted) <= error


CHANNELS = {
    "one of them": lambda x, axis: ops.expand_dims(ops.take(x, 0, axis=axis), axis),
    "taken": lambda x, axis: ops.take(x, [2, 0], axis=axis),
    "split": lambda x, axis: ops.concatenate(ops.split(x, 3, axis=axis)[::-1], axis=axis),
    "unstacked": lambda x, axis: ops.stack(ops.unstack(x, axis=axis)[::-1], axis=axis),
    "repeated": lambda x, axis: ops.repeat(ops.mean(x, axis=axis, keepdims=True), 3, axis=axis),
    "tiled": lambda x, axis: ops.tile(x, (1, 2, 1, 1) if axis == 1 else (1, 1, 1, 2)),
    "normalised": lambda x, axis: ops.normalize(x + 1, axis=axis),
    "compared": lambda x, axis: ops.where(x > 99, x, ops.floor(x / 2)),
    "reduced": lambda x, axis: x - ops.logsumexp(x / 99, axis=axis, keepdims=True) + ops.amax(x, axis, keepdims=True),
    "hue": lambda x, axis: ops.image.rgb_to_hsv(x / 255, data_format="channels_first" if axis == 1 else None),
    "plane": lambda x, axis: ops.expand_dims(ops.mean(x, axis=axis), axis) * 0.1,
}


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("way", CHANNELS)
def test_what_works_along_the_channels_is_at_every_position(way, axis):
    model = (first if axis == 1 else last)(lambda x: CHANNELS[way](x, axis))
    check_crops(model, zoo.convolutionalize(model))


INDICES = {
    "last, swapped": (last, lambda x: x[..., ::-1]),
    "last, some": (last, lambda x: x[:, :, :, 1:]),
    "last, planes": (last, lambda x: ops.stack([x[..., 2], x[..., 0]], axis=-1)),
    "last, a new axis": (last, lambda x: x[..., 1, None]),
    "first, swapped": (first, lambda x: x[:, ::-1]),
    "first, a new axis": (first, lambda x: x[:, 2, None]),
    "first, planes": (first, lambda x: ops.stack([x[:, 1], x[:, 0]], axis=1)),
}


@pytest.mark.parametrize("way", INDICES)
def test_an_index_means_the_same_in_a_model_that_was_read_from_its_file(way, tmp_path):
    """Keras writes the tuple of an index as a list."""
    make, before = INDICES[way]
    model = make(before)
    fcn = zoo.convolutionalize(model)
    check_crops(model, fcn)
    again = zoo.load(zoo.save(fcn, tmp_path / "fcn.keras"))
    assert zoo.geometry(again) == zoo.geometry(fcn)
    scores = zoo.scan(fcn, noise(30, 31, 3)).scores
    assert relative_error(zoo.scan(again, noise(30, 31, 3), tile=8).scores, scores) <= 1e-5
    model.save(tmp_path / "model.keras")
    check_crops(model, zoo.convolutionalize(zoo.load(tmp_path / "model.keras")))


PERMUTED = {
    "with dropout": lambda x: flat(layers.Dropout(0.3)(layers.Permute((3, 2, 1))(x))),
    "scaled": lambda x: flat(layers.Permute((2, 1, 3))(x) * 0.1 + 3),
    "normalised": lambda x: flat(layers.BatchNormalization()(layers.Permute((2, 1, 3))(x))),
    "normalised along rows": lambda x: flat(layers.BatchNormalization(axis=1)(layers.Permute((3, 1, 2))(x))),
    "normalised, then permuted": lambda x: flat(
        layers.Permute((1, 3, 2))(layers.BatchNormalization(axis=2)(layers.Permute((2, 1, 3))(x)))
    ),
    "normalised twice": lambda x: layers.Dense(4)(
        layers.BatchNormalization()(layers.Flatten()(layers.BatchNormalization()(ops.transpose(x, (0, 3, 2, 1)))))
    ),
    "in five parts": lambda x: flat(layers.Permute((4, 2, 1, 3))(layers.Reshape((10, 2, 1, 5))(x))),
    "one slope": lambda x: layers.Dense(4)(layers.PReLU(shared_axes=[1])(layers.Flatten()(x))),
    "one position": lambda x: layers.Dense(4)(x[:, 2, 1] if x.shape[-1] == 5 else x[:, :, 2, 1]),
    "one channel": lambda x: flat(x[..., 1] if x.shape[-1] == 5 else x[:, 1]),
}


@pytest.mark.parametrize("make", [last, first])
@pytest.mark.parametrize("way", PERMUTED)
def test_what_lies_between_the_map_and_its_dense_layer_becomes_part_of_the_kernel(way, make):
    model = make(head=PERMUTED[way])
    check_crops(model, zoo.convolutionalize(model))


def pooled(x, **settings):
    form = FIRST if x.shape[-1] != 5 else {}
    return layers.GlobalAveragePooling2D(**form, **settings)(x)


def adaptive(x):
    form = "channels_last" if x.shape[-1] == 5 else "channels_first"
    return flat(layers.AdaptiveAveragePooling2D(1, data_format=form)(x))


def one_number(x, channels_last):
    """A pooled map without its positions."""
    return pooled(x, keepdims=True)[(slice(None), 0, 0) if channels_last else (..., 0, 0)]


VECTORS = {
    "permuted": lambda x: flat(layers.Permute((3, 1, 2))(pooled(x, keepdims=True))),
    "in the middle": lambda x: flat(layers.Permute((2, 1, 3))(pooled(x, keepdims=True))),
    "squeezed": lambda x: layers.Dense(4)(
        ops.squeeze(pooled(x, keepdims=True), (1, 2) if x.shape[-1] == 5 else (2, 3))
    ),
    "indexed": lambda x: layers.Dense(4)(one_number(x, x.shape[-1] == 5)),
    "parts": lambda x: (lambda v: ops.concatenate([v[:, 3:], ops.softmax(v[:, :3], axis=1)], axis=1))(
        layers.Dense(5)(pooled(x))
    ),
    "centred": lambda x: (lambda v: v - ops.mean(v, axis=1, keepdims=True))(layers.Dense(4)(layers.Flatten()(x))),
    "adaptive": adaptive,
}  # fmt: skip


@pytest.mark.parametrize("make", [last, first])
@pytest.mark.parametrize("way", VECTORS)
def test_a_vector_in_another_form_is_the_same_at_every_cell(way, make):
    model = make(head=VECTORS[way])
    check_crops(model, zoo.convolutionalize(model))


@pytest.mark.parametrize(
    "widen",
    [
        lambda v: v[:, :, None, None],
        lambda v: ops.expand_dims(ops.expand_dims(v, -1), -1),
        lambda v: ops.expand_dims(v, (2, 3)),
        layers.Reshape((5, 1, 1)),
    ],
)
def test_a_gate_on_channels_that_come_first(widen):
    def gated(x):
        return flat(x * widen(layers.Dense(5, "sigmoid")(layers.GlobalAveragePooling2D(**FIRST)(x))))

    model = first(head=gated)
    assert zoo.verify(model, zoo.convolutionalize(model)).same_function


def test_a_pooling_by_an_operation_computes_in_the_type_of_its_model():
    keras.config.set_dtype_policy("float64")
    try:
        model = last(dtype="float64", head=lambda x: layers.Dense(4)(ops.mean(x, axis=(1, 2))))
    finally:
        keras.config.set_dtype_policy("float32")
    check_crops(model, zoo.convolutionalize(model), error=1e-12)


def test_one_slope_is_kept_apart_from_a_slope_a_number():
    with pytest.raises(InputError, match="'slopes'.*on the flattened map"):
        zoo.convolutionalize(last(head=lambda x: layers.Dense(4)(layers.PReLU(name="slopes")(layers.Flatten()(x)))))


@pytest.mark.parametrize(
    "end",
    [
        lambda x: flat(layers.AveragePooling2D((5, 4), name="end")(x)),
        lambda x: layers.Reshape((4,), name="end")(layers.Conv2D(4, (5, 4))(x)),
    ],
)
def test_a_map_of_one_position_gives_no_single_answer_for_larger_images(end):
    with pytest.raises(InputError, match="flattens the map; accepted for pooling='global': a pooled head"):
        zoo.convolutionalize(last(head=end), pooling="global")
    model = last(head=end)
    check_crops(model, zoo.convolutionalize(model))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: last(head=lambda x: layers.Flatten(name="f")(ops.mean(x, -1))), "'f': received a map without an axis"),
        (lambda: last(head=lambda x: ops.max(x, -1)), "without an axis of channels, .*5, 4.; accepted: a map"),
        (lambda: last(head=lambda x: ops.argmax(flat(x), -1)), "'argmax"),
        (lambda: last(lambda x: ops.unstack(x, axis=1)[0][..., None]), "'unstack.*axis 1"),
        (lambda: last(lambda x: ops.repeat(x, 2, axis=1)), "'repeat.*axis 1"),
        (lambda: last(lambda x: ops.tile(x, (1, 2, 1, 1))), "'tile.*rows or columns"),
        (lambda: last(lambda x: x[:, 1:]), "'get_item.*part of the positions"),
        (lambda: last(head=lambda x: flat(layers.AdaptiveAveragePooling2D(2, name="two")(x))), "'two'.*to 2 x 2 pos"),
        (lambda: sequence(layers.Reshape((12, 10, 1), name="wide")), "without an axis of channels, which layer 'wide'"),
        (lambda: sequence(lambda x: x[..., None]), "which layer 'get_item.*accepted: .12, 10, 1."),
    ],
)  # fmt: skip
def test_what_stays_refused_names_its_layer(make, text):
    with pytest.raises(InputError, match=text):
        zoo.convolutionalize(make())


def sequence(widen):
    """Images (12, 10), as a sequence of 12 with 10 channels would be, that get their axis of channels inside."""
    image = keras.Input((12, 10))
    return keras.Model(image, flat(layers.Conv2D(4, 3)(widen(image / 255))))


def test_planes_are_scanned_in_tiles():
    model = last(lambda x: ops.expand_dims(ops.mean(x, axis=-1), -1))
    fcn, image = zoo.convolutionalize(model), noise(40, 41, 3)
    whole = zoo.scan(fcn, image).scores
    assert relative_error(zoo.scan(fcn, image, tile=8).scores, whole) <= 1e-5


def test_a_twin_is_described_at_its_window():
    model = last(lambda x: layers.Conv2D(4, 3, padding="same")(x), head=lambda x: layers.Dense(4)(pooled(x)))
    twin = zoo.convolutionalize(model, padding="valid")
    assert zoo.describe(twin).image_size == zoo.geometry(twin).window != (12, 10)


def test_keras_adds_a_bias_to_columns_where_they_are_as_many_as_filters():
    """Where this fails, Keras has mended it, and the refusal can go."""
    layer = layers.Conv2D(4, 3, bias_initializer=lambda shape, dtype: ops.arange(4, dtype="float32"), **FIRST)
    given = np.asarray(layer(np.zeros((1, 3, 5, 6), "float32")))
    assert np.array_equal(given[0, 0, 0], range(4)) and np.array_equal(given[0, :, 0, 0], [0] * 4)
    assert adds_bias_along_columns(layer, (None, 4, 3, 4)) and not adds_bias_along_columns(layer, (None, 4, 4, 3))
    image = keras.Input((3, 7, 6))
    x = layers.Conv2D(4, 3, name="square", **FIRST)(image)
    with pytest.raises(InputError, match="'square': received 4 columns for as many filters"):
        zoo.convolutionalize(keras.Model(image, flat(x)))
